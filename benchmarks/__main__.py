"""``python -m benchmarks``: measure, and draw what was measured."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


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
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="threads of torch (default: torch's own choice)")
    parser.add_argument(
        "--clock",
        choices=("wall", "process"),
        default="wall",
        help="process: processor time, which other processes do not disturb; for the CPU and one thread",
    )
    parser.add_argument("--quick", action="store_true", help="the quick cases, in under two minutes")


def _run(options: argparse.Namespace) -> int:
    from benchmarks import results, run
    from benchmarks.cases import CASES
    from benchmarks.worker import Settings

    if options.clock == "process" and (options.threads != 1 or options.device != "cpu"):
        raise SystemExit("--clock process counts the time of all threads: give --threads 1 and --device cpu with it")
    cases = [case for case in CASES if (case.key in options.only if options.only else case.quick or not options.quick)]
    settings = Settings(options.device, options.threads, options.clock)
    result = run.measure(cases, settings, lambda label, part: print(f"{part:4.0%} {label}"))
    results.save(result, options.out)
    print(f"written: {options.out}")
    return 0


def _table(options: argparse.Namespace) -> int:
    from benchmarks import results, tables

    text = tables.headline(results.committed())
    tables.README.write_text(tables.put_in_readme(text, tables.README.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
