"""The one error of the demo: bad input or a missing part, told in words a user can act on."""

from __future__ import annotations


class DemoError(Exception):
    """Says what was given, what is allowed and what to do. The command line ends with exit code 2."""
