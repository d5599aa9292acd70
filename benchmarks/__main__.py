"""``python -m benchmarks``: measure, and draw what was measured."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    measure = commands.add_parser("run", help="measure this machine (the default)")
    for where in (parser, measure):
        _add_run_options(where)
    table = commands.add_parser("table", help="write the README's table from the committed results")
    table.set_defaults(do=_table)
    measure.set_defaults(do=_run)
    parser.set_defaults(do=_run)
    options = parser.parse_args(arguments)
    return int(options.do(options))


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("benchmarks.json"), help="where to write the result")
    parser.add_argument("--only", action="append", metavar="CASE", help="measure this case; may be given again")
    parser.add_argument("--threads", type=int, help="threads of torch (default: torch's own choice)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="the quick cases, in under two minutes")


def _run(options: argparse.Namespace) -> int:
    import torch

    from benchmarks import results, run
    from benchmarks.cases import CASES

    _quiet()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    cases = [case for case in CASES if (case.key in options.only if options.only else case.quick or not options.quick)]
    result = run.measure(cases, options.device, lambda label, done, of: None)
    results.save(result, options.out)
    print(f"written: {options.out}")
    return 0


def _table(options: argparse.Namespace) -> int:
    from benchmarks import results, tables

    text = tables.headline(results.committed())
    tables.README.write_text(tables.put_in_readme(text, tables.README.read_text()))
    return 0


def _quiet() -> None:
    """What libraries say about configs and submodule names when they are loaded is no result."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
