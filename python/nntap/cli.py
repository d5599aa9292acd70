"""The command line: `nntap demo` and `nntap doctor`.

Exit codes: 0 all is well; 1 `doctor` found that capture cannot work; 2 bad input, a missing part, or output that cannot
be written.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from nntap._version import __version__

BAD_INPUT = 2
INTERRUPTED = 130  # what a shell reports for Ctrl-C
_NOT_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. `argv` is without the program's name; None takes `sys.argv`."""
    arguments = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a token may hold what the terminal's encoding does not
    try:
        code = _demo(arguments) if arguments.command == "demo" else _doctor()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("nntap: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, e.g. `head`, has gone
        _drop_output()
        return 0
    except OSError as error:
        if error.errno not in _NOT_WRITTEN:
            raise
        _drop_output()
        print(f"nntap: error: the output cannot be written: {error.strerror}", file=sys.stderr)
        return BAD_INPUT


def _drop_output() -> None:
    # At exit Python would flush into it again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nntap", description="Record the activations of PyTorch models through a compiled core."
    )
    parser.add_argument("--version", action="version", version=f"nntap {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="record every layer of a real model on real sentences, offline",
        description=(
            "Record every layer of a model on sentences, time it, and read the records: how alike two "
            "sentences are in every layer, or for a causal model the logit lens. Nothing is downloaded."
        ),
    )
    demo.add_argument(
        "--model",
        metavar="ID_OR_PATH",
        help="a folder, or a model ID in the local Hugging Face cache, e.g. openai-community/gpt2 "
        "(default: all-MiniLM-L6-v2 from the demo extra)",
    )
    demo.add_argument(
        "--text",
        metavar="FILE",
        type=Path,
        help="UTF-8 text: one sentence a line, or two with a TAB between them; a line '# NAME' names the "
        "pairs below it (default: bundled sentences)",
    )
    demo.add_argument("--plot", metavar="OUT.png", type=Path, help="also draw a picture (.png, .svg or .pdf)")
    commands.add_parser(
        "doctor",
        help="say what is installed, what is missing and how to fix it",
        description="Check what nntap needs and can use. The exit code is 0 when capture can work, else 1.",
    )
    return parser


def _demo(arguments: argparse.Namespace) -> int:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is first imported
    try:
        from nntap import demo
    except ImportError as error:
        print(f"nntap demo: error: {error}\nTo see what is missing: nntap doctor", file=sys.stderr)
        return BAD_INPUT
    try:
        demo.main(arguments.model, arguments.text, arguments.plot, sys.stdout)
    except demo.DemoError as error:
        print(f"nntap demo: error: {error}", file=sys.stderr)
        return BAD_INPUT
    except ImportError as error:
        print(f"nntap demo: error: {error}\nTo see what is missing: nntap doctor", file=sys.stderr)
        return BAD_INPUT
    return 0


def _doctor() -> int:
    from nntap import doctor

    checks = doctor.run_checks()
    doctor.print_report(checks, sys.stdout)
    return doctor.exit_code(checks)
