"""How the driver's library is opened: one that is compiled here stands in for it, in a process of its own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from driver_table import entries
from helpers import run_script

# Of the entries that are called before a device is recorded on; the others are there and do nothing.
ANSWERS = """
#include <string.h>
int cuInit(unsigned flags) { return STARTS; }
int cuDriverGetVersion(int* version) { *version = VERSION; return 0; }
int cuDeviceGetCount(int* count) { *count = 2; return 0; }
int cuDeviceGet(int* device, int ordinal) { *device = 70 + ordinal; return 0; }
int cuDeviceGetName(char* name, int length, int device) {
  strncpy(name, device == 70 ? "One" : "Two", length);
  return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  *value = attribute == 75 ? (device == 70 ? 9 : 6) : 1;
  return 0;
}
"""


def cuda_info(folder: Path, *, starts: int = 0, version: int = 12080, without: str = "") -> dict[str, Any]:
    """What `nntap.build_info()` says of CUDA where that library is the driver's."""
    compiler = shutil.which("cc") or pytest.skip("there is no C compiler")
    answered = re.findall(r"^int (\w+)\(", ANSWERS, re.M)
    others = [f"int {name}(void) {{ return 0; }}" for name in entries().values() if name not in answered]
    lines = [line for line in "\n".join([ANSWERS, *others]).splitlines() if not without or f" {without}(" not in line]
    source = folder / "libcuda.c"
    source.write_text("\n".join(lines) + "\n")
    what = [f"-DSTARTS={starts}", f"-DVERSION={version}"]
    subprocess.run([compiler, "-shared", "-fPIC", *what, "-o", folder / "libcuda.so.1", source], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_LIBRARY_PATH", str(folder))
        done = run_script("import json, nntap; print(json.dumps(nntap.build_info()['cuda']))")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_a_driver_that_starts_is_told_with_its_gpus(tmp_path: Path) -> None:
    info = cuda_info(tmp_path)
    assert (info["problem"], info["installed"], info["simulated"], info["driver"]) == (None, True, False, "12.8")
    assert info["devices"] == [
        {"name": "One", "capability": [9, 1], "kernel": "sm_90"},
        {"name": "Two", "capability": [6, 1], "kernel": "none"},
    ]


@pytest.mark.parametrize(
    ("driver", "says"),
    [
        ({"starts": 100}, "finds no GPU"),
        ({"starts": 999}, "does not start (cuInit gave 999)"),
        ({"version": 11080}, "is for CUDA 11.8, and nntap needs one for CUDA 12.0"),
        ({"without": "cuEventQuery"}, "libcuda.so.1 has no cuEventQuery: update the NVIDIA driver"),
    ],
    ids=["no GPU", "broken", "old", "incomplete"],
)
def test_a_driver_that_does_not_serve_says_why(tmp_path: Path, driver: dict[str, Any], says: str) -> None:
    info = cuda_info(tmp_path, **driver)
    assert says in info["problem"]
    assert info["installed"]
