"""``python -m benchmarks.gpu``: measures every case, writes JSON and prints a table.

Exits 1 on a case that breaks and on an impossible rate.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import nntap
from benchmarks import results
from benchmarks.gpu import probe
from benchmarks.gpu.cases import CASES, Case
from benchmarks.gpu.row import Row
from benchmarks.gpu.setting import FULL, TINY, OutOfTime, Setting, check_time
from benchmarks.machine import facts
from benchmarks.show import size


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="where to write the result")
    parser.add_argument("--device", default="cuda", help="'cpu' only shows that the cases run")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: shows that the cases run")
    parser.add_argument("--only", action="append", metavar="CASE", help="the name of a case; may be given again")
    parser.add_argument("--seconds", type=float, default=math.inf, help="after these no more runs are started")
    parser.add_argument("--note", action="append", default=[], help="a line for the result; may be given again")
    options = parser.parse_args(arguments)
    end = monotonic() + options.seconds
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("not run: torch finds no GPU here")
        return 0
    chosen = [case for case in CASES if not options.only or case.__name__ in options.only]
    setting = Setting.of(device, TINY if options.tiny else FULL, end)
    result = measure(setting, chosen, options.note, partial(results.save, path=options.out))
    show(result)
    print(f"written: {options.out}")
    return 1 if result["broken"] or any(row["impossible"] for row in result["rows"]) else 0


def measure(
    setting: Setting, cases: Sequence[Case], notes: Sequence[str], save: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    """What all cases gave. It is printed and saved row by row: the process may be ended at any moment.

    A case that raises is listed under ``broken``, one that finds no time left under ``not_run``; the others go on.
    """
    device = setting.device
    result: dict[str, Any] = {
        "machine": facts(device.type),
        "build": nntap.build_info(),
        "link_gb_per_s": setting.link / 1e9,
        "link_gb_per_s_at_the_end": None,
        "notes": list(notes),
        "probe": {},
        "rows": [],
        "broken": {},
        "not_run": {},
    }
    save(result)

    def attempt(name: str, measure_it: Callable[[], object]) -> None:
        try:
            check_time(setting.end)
            free_memory(device)
            measure_it()
        except OutOfTime:
            result["not_run"][name] = "no time left"
        except Exception:
            result["broken"][name] = traceback.format_exc()
        save(result)

    def rows_of(case: Case) -> None:
        for row in case(setting):
            result["rows"].append({**row.as_dict(setting.link), "pool": nntap.pool_stats()})
            print(brief(row), flush=True)
            save(result)

    for case in cases:
        attempt(case.__name__, partial(rows_of, case))
    attempt("link_at_the_end", lambda: result.update(link_gb_per_s_at_the_end=setting.link_now() / 1e9))
    attempt("probe", lambda: result.update(probe=probe.probe(device)))
    return result


def brief(row: Row) -> str:
    """The row while the others are measured; the table comes when all are."""
    moved = "" if row.nbytes is None else f", {size(row.nbytes)}"
    figure = "" if row.figure is None else f", {row.figure.median:.3f} ({row.target})"
    return f"({row.case}) {row.what}: {row.seconds * 1e3:.3f} ms in {len(row.samples)} runs{moved}{figure}"


def free_memory(device: torch.device) -> None:
    gc.collect()
    nntap.trim()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def show(result: dict[str, Any]) -> None:
    end = result["link_gb_per_s_at_the_end"]
    at_the_end = "" if end is None else f", {end:.1f} at the end"
    title = f"the link: {result['link_gb_per_s']:.1f} GB/s{at_the_end} (raw copy of one tensor into pinned memory)"
    table = Table(title=title)
    for heading in ("", "what", "ms", "MiB", "GB/s", "of link", "figure", "target", ""):
        table.add_column(heading)
    for row in result["rows"]:
        table.add_row(*_cells(row))
    for name, why in result["not_run"].items():
        table.add_row("", f"{name}, or what it has not given above", *[""] * 6, f"not run: {why}")
    console = Console(width=None if sys.stdout.isatty() else 170)
    console.print(table)
    for note in result["notes"]:
        console.print(note, markup=False)
    for name, text in result["broken"].items():
        console.print(f"[bold]{name} broke[/bold]")
        console.print(text, markup=False)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    verdict = {None: "", True: "met", False: "MISSED"}[row["met"]] + (" IMPOSSIBLE" if row["impossible"] else "")
    moved = ("", "") if row["nbytes"] is None else (f"{row['nbytes'] / 2**20:.1f}", f"{row['gb_per_s']:.2f}")
    of_link = "" if row["of_link"] is None else f"{row['of_link']:.3f}"
    figure = "" if row["figure"] is None else "{median:.3f} ({low:.3f} to {high:.3f})".format(**row["figure"])
    return row["case"], row["what"], f"{row['seconds'] * 1e3:.3f}", *moved, of_link, figure, row["target"], verdict


if __name__ == "__main__":
    sys.exit(main())
