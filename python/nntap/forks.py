"""Whether this process was forked since nntap was imported.

The core notices forks from when it is loaded, which is at the first use. torch's threads may have run before, and are
missing in the child: asking them for help would hang it.
"""

from __future__ import annotations

import os

forked = False


def _in_child() -> None:
    global forked
    forked = True


os.register_at_fork(after_in_child=_in_child)
