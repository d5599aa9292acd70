"""`python -m nntap`: the same as the command `nntap`."""

from __future__ import annotations

import sys

from nntap.cli import main

if __name__ == "__main__":
    sys.exit(main())
