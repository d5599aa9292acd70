"""``python -m benchmarks``: measure, and draw what was measured."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from benchmarks import compare, instructions, pictures, report, results, run, tables, timeline
from benchmarks.cases import CASES, Case, find
from benchmarks.models import Unsuited
from benchmarks.worker import Settings

QUICK_SCALE = 0.1
PROCESSES = 2


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    _add_run_options(parser)
    parser.set_defaults(do=_run)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    shown = commands.add_parser("show", help="a result as tables")
    shown.add_argument("result", type=Path)
    shown.set_defaults(do=_show)
    drawn = commands.add_parser("plot", help="a result as pictures")
    drawn.add_argument("result", type=Path)
    drawn.add_argument("--to", type=Path, default=Path(), metavar="FOLDER", help="where to (default: here)")
    drawn.set_defaults(do=_plot)
    compared = commands.add_parser(
        "compare", help="whether nntap has become slower: exits 1 if so, 2 where two results cannot be compared"
    )
    compared.add_argument("before", type=Path)
    compared.add_argument("after", type=Path)
    compared.add_argument("--tolerance", type=float, default=compare.TOLERANCE, help="default: %(default)s")
    compared.set_defaults(do=_compare)
    counted = commands.add_parser("instructions", help="instructions a recorded module costs, counted by valgrind")
    counted.add_argument("--out", type=Path, help="also write them as JSON")
    counted.set_defaults(do=_instructions)
    timed = commands.add_parser("timeline", help="one recorded run on a time axis: compute, snapshots, copies, waits")
    _add_timeline_options(timed)
    timed.set_defaults(do=_timeline)
    table = commands.add_parser("table", help="write the README's table from the committed results")
    table.set_defaults(do=_table)
    options = parser.parse_args(arguments)
    return int(options.do(options))


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("benchmarks.json"), help="where to write the result")
    parser.add_argument("--only", action="append", metavar="CASE", help="measure this case; may be given again")
    parser.add_argument("--quick", action="store_true", help="a few cases, shortly: under two minutes")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="threads of torch (default: torch's own choice)")
    parser.add_argument(
        "--clock",
        choices=("wall", "process"),
        default="wall",
        help="process: processor time, which other processes disturb less; for the CPU and one thread",
    )
    parser.add_argument(
        "--processes", type=int, help=f"processes to measure each case in (default: {PROCESSES}; 1 with --quick)"
    )


def _add_timeline_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--case", default=timeline.DEFAULT_CASE, help="what is run and recorded (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="threads of torch (default: torch's own choice)")
    parser.add_argument(
        "--warm-ups",
        type=int,
        default=timeline.WARM_UPS,
        help="runs before; 0 shows a first run (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, default=Path("timeline.json"), help="where to write what was measured")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="measure nothing: draw this one")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="also draw it")
    parser.add_argument("--trace", type=Path, metavar="JSON", help="also write it for https://ui.perfetto.dev")


def _run(options: argparse.Namespace) -> int:
    if options.clock == "process" and (options.threads != 1 or options.device != "cpu"):
        raise SystemExit("--clock process counts the time of all threads: give --threads 1 and --device cpu with it")
    console = Console(stderr=True)
    settings = Settings(options.device, options.threads, options.clock, QUICK_SCALE if options.quick else 1.0)
    processes = options.processes or (1 if options.quick else PROCESSES)
    with _progress(console) as tell:
        result = run.measure(_chosen(options), settings, processes, tell)
    results.save(result, options.out)
    report.show(result, _wide())
    complaints = list(run.complaints(result))
    for complaint in complaints:
        console.print(f"WRONG  {complaint}", style="red", highlight=False)
    console.print(f"written: {options.out}")
    return 1 if complaints else 0


def _wide() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=190)


def _chosen(options: argparse.Namespace) -> list[Case]:
    there = [case for case in CASES if options.device in case.devices]
    known = [case.key for case in there]
    for key in options.only or ():
        if key not in known:
            raise SystemExit(f"--only {key} is not a case. These are: {', '.join(known)}")
    if options.only:
        return [case for case in there if case.key in options.only]
    return [case for case in there if case.quick or not options.quick]


@contextmanager
def _progress(console: Console) -> Iterator[run.Progress]:
    """A bar on a terminal, a line a case elsewhere."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    if not console.is_terminal:
        seen: set[str] = set()

        def line(title: str, part: float) -> None:
            if title not in seen:
                seen.add(title)
                console.print(f"{part:4.0%}  {title}", highlight=False)

        yield line
        return
    columns = (BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda title, part: bar.update(task, completed=part, description=title)


def _show(options: argparse.Namespace) -> int:
    report.show(results.load(options.result), _wide())
    return 0


def _plot(options: argparse.Namespace) -> int:
    for path in pictures.draw(results.load(options.result), options.to, options.result.stem):
        print(f"written: {path}")
    return 0


def _compare(options: argparse.Namespace) -> int:
    try:
        changes = compare.compare(results.load(options.before), results.load(options.after), options.tolerance)
    except compare.NotComparable as reason:
        print(f"not comparable: {reason}")
        return 2
    for change in changes:
        numbers = f"{change.before:.3f} -> {change.after:.3f} bare runs added"
        print(f"{change.verdict:<7} {change.case}, {change.contestant}: {numbers}")
    return 1 if any(change.verdict == "slower" for change in changes) else 0


def _instructions(options: argparse.Namespace) -> int:
    try:
        found = instructions.per_module()
    except Unsuited as reason:
        print(f"skipped: {reason}")
        return 0
    for name, count in found.items():
        print(f"{count:8.0f} instructions a module: {name}")
    if options.out is not None:
        results.save(instructions.as_json(found), options.out)
    return 0


def _timeline(options: argparse.Namespace) -> int:
    try:
        measured = results.load(options.source or _measured_timeline(options))
    except Unsuited as reason:
        print(f"skipped: {reason}")
        return 0
    if options.plot is not None:
        pictures.save(pictures.by_time(measured), options.plot)
        print(f"written: {options.plot}")
    if options.trace is not None:
        timeline.write_trace(measured, options.trace)
        print(f"written: {options.trace}")
    complaints = list(timeline.complaints(measured))
    for complaint in complaints:
        print(f"WRONG  {complaint}", file=sys.stderr)
    return 1 if complaints else 0


def _measured_timeline(options: argparse.Namespace) -> Path:
    known = [case.key for case in CASES if options.device in case.devices]
    if options.case not in known:
        raise SystemExit(f"--case {options.case} is not a case. These are: {', '.join(known)}")
    measured = timeline.measure(find(options.case), options.device, options.threads, options.warm_ups)
    results.save(measured, options.out)
    print(f"written: {options.out}")
    return Path(options.out)


def _table(options: argparse.Namespace) -> int:
    text = tables.headline(results.committed(), results.committed_of_gpus())
    tables.README.write_text(tables.put_in_readme(text, tables.README.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
