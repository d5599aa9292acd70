"""``python -m benchmarks.gpu``: measures every case, writes JSON and prints a table. Exits 1 on an impossible rate."""

from __future__ import annotations

import argparse
import gc
import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import nntap
from benchmarks.gpu.cases import CASES
from benchmarks.gpu.setting import FULL, TINY, Setting
from benchmarks.machine import facts


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="where to write the result")
    parser.add_argument("--device", default="cuda", help="'cpu' only shows that the cases run")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: shows that the cases run")
    parser.add_argument("--only", action="append", metavar="CASE", help="the name of a case; may be given again")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("not run: torch finds no GPU here")
        return 0
    chosen = [case for case in CASES if not options.only or case.__name__ in options.only]
    result = measure(device, TINY if options.tiny else FULL, chosen)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    show(result)
    print(f"written: {options.out}")
    return 1 if result["broken"] or any(row["impossible"] for row in result["rows"]) else 0


def measure(device: torch.device, sizes: Any, cases: Sequence[Any]) -> dict[str, Any]:
    """What all cases gave; a case that raises is listed under ``broken``, and the others go on."""
    setting = Setting.of(device, sizes)
    rows: list[dict[str, Any]] = []
    broken: dict[str, str] = {}
    for case in cases:
        try:
            rows += [row.as_dict(setting.link) for row in case(setting)]
        except Exception:
            broken[case.__name__] = traceback.format_exc()
        gc.collect()
        nntap.trim()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return {
        "machine": facts(device.type),
        "build": nntap.build_info(),
        "link_gb_per_s": setting.link / 1e9,
        "rows": rows,
        "broken": broken,
    }


def show(result: dict[str, Any]) -> None:
    table = Table(title=f"the link: {result['link_gb_per_s']:.1f} GB/s (raw copy of one pinned tensor)")
    for heading in ("", "what", "ms", "MiB", "GB/s", "of link", "figure", "target", ""):
        table.add_column(heading)
    for row in result["rows"]:
        of_link = "" if row["of_link"] is None else f"{row['of_link']:.3f}"
        figure = "" if row["figure"] is None else f"{row['figure']:.3f}"
        verdict = {None: "", True: "met", False: "MISSED"}[row["met"]] + (" IMPOSSIBLE" if row["impossible"] else "")
        cells = (row["case"], row["what"], f"{row['seconds'] * 1e3:.3f}", f"{row['nbytes'] / 2**20:.1f}")
        table.add_row(*cells, f"{row['gb_per_s']:.2f}", of_link, figure, row["target"], verdict)
    console = Console(width=None if sys.stdout.isatty() else 170)
    console.print(table)
    for name, text in result["broken"].items():
        console.print(f"[bold]{name} broke[/bold]\n{text}", markup=True)


if __name__ == "__main__":
    sys.exit(main())
