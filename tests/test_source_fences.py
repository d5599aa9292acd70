"""Which part of csrc/ may know what: read from the source text alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[1] / "csrc"
SOURCES = sorted(path for path in CSRC.rglob("*") if path.suffix in {".cpp", ".hpp", ".cu", ".cuh", ".c", ".h"})
TEXTS = {path.relative_to(CSRC).as_posix(): path.read_text() for path in SOURCES}

PYTHON = r"Python\.h|structmember\.h|patchlevel\.h"
PYBIND11 = r"pybind11/.*"
LIBTORCH = r"(torch|ATen|c10|caffe2)/.*"
CUDA = r"(cuda|nv|cub|thrust|cooperative|mma|vector_types|device_launch|driver_types|sm_)[\w/]*(\.h|\.hpp|\.cuh)?"
EXCHANGE_API = r"DLPackExchangeAPI|dlpack_c?_?exchange_api|py_object_no_sync"

# What the files of a folder may include of this project's own.
BORDERS = {
    "support/": r"support/.*",
    "copy/": r"(support|copy)/.*",
    "python/": r"(support|python)/.*",
    "device/": r"(support|copy|device)/.*",
    "device/cpu/": r"(support|copy)/.*|device/(cpu/)?\w+\.hpp",
    "capture/": r"(support|copy|python|capture)/.*|device/\w+\.hpp",
    "nnsight/": r"(support|python|nnsight)/.*",
}

Breach = tuple[str, str]  # a file, and what it should not have


def includes(text: str) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', text, re.M)


def including(pattern: str, texts: dict[str, str], but: tuple[str, ...] = ()) -> list[Breach]:
    """Where a header that the pattern matches is included, but for the folders and files named."""
    found = [(file, header) for file, text in texts.items() for header in includes(text)]
    return [(file, header) for file, header in found if re.fullmatch(pattern, header) and not file.startswith(but)]


def mentioning(pattern: str, texts: dict[str, str], but: tuple[str, ...]) -> list[Breach]:
    found = [(file, word) for file, text in texts.items() for word in re.findall(pattern, text)]
    return [(file, word) for file, word in found if not file.startswith(but)]


def beyond(folder: str, allowed: str, texts: dict[str, str]) -> Iterator[Breach]:
    for file, text in texts.items():
        own = [header for header in includes(text) if (CSRC / header).exists()]
        yield from ((file, header) for header in own if file.startswith(folder) and not re.fullmatch(allowed, header))


def breaches(texts: dict[str, str]) -> Iterator[Breach]:
    """Every place where the source goes over a border."""
    yield from including(PYTHON, texts, but=("python/", "module/"))
    yield from including(PYBIND11, texts, but=("module/",))
    yield from including(LIBTORCH, texts)
    yield from including(CUDA, texts, but=("device/cuda/",))
    yield from including(r"dlpack/.*", texts, but=("copy/", "device/", "module/"))
    yield from mentioning(EXCHANGE_API, texts, but=("capture/torch_seam.",))
    for folder, allowed in BORDERS.items():
        yield from beyond(folder, allowed, texts)


def test_no_source_goes_over_a_border() -> None:
    assert list(breaches(TEXTS)) == []


def test_every_header_of_the_project_is_included_by_its_path_from_csrc() -> None:
    quoted = {(file, name) for file, text in TEXTS.items() for name in re.findall(r'#\s*include\s*"([^"]+)"', text)}
    assert [(file, name) for file, name in sorted(quoted) if not (CSRC / name).exists()] == []


def test_the_borders_speak_of_folders_that_exist() -> None:
    folders = {f"{path.parent.name}/" for path in CSRC.glob("*/*")}
    assert {folder for folder in BORDERS if folder.count("/") == 1} | {"module/"} == folders
    contributing = (CSRC.parent / "CONTRIBUTING.md").read_text()
    assert [folder for folder in sorted(folders) if f"| `csrc/{folder[:-1]}` |" not in contributing] == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("copy/snapshot.cpp", "#include <Python.h>"),
        ("device/cpu/cast.cpp", "#include <structmember.h>"),
        ("capture/nest.cpp", "#include <pybind11/pybind11.h>"),
        ("capture/torch_seam.cpp", "#include <torch/extension.h>"),
        ("capture/torch_seam.cpp", "#include <ATen/Tensor.h>"),
        ("copy/host_pool.cpp", "#include <cuda.h>"),
        ("device/registry.cpp", "#include <cuda_runtime.h>"),
        ("device/cpu/cast.cpp", "#  include <cuda_fp16.h>"),
        ("support/error.hpp", "#include <dlpack/dlpack.h>"),
        ("nnsight/handle.cpp", "#include <dlpack/dlpack.h>"),
        ("capture/ticket.cpp", "api->managed_tensor_to_py_object_no_sync(managed, &tensor);"),
        ("copy/record.hpp", "const DLPackExchangeAPI* api;"),
        ("module/module.cpp", 'getattr("__dlpack_c_exchange_api__")'),
        ("copy/snapshot.hpp", '#include "capture/ticket.hpp"'),
        ("copy/snapshot.hpp", '#include "module/bind.hpp"'),
        ("copy/snapshot.cpp", '#include "device/cpu/cast.hpp"'),
        ("device/cpu/cpu_device.cpp", '#include "capture/stall.hpp"'),
        ("support/error.hpp", '#include "copy/record.hpp"'),
        ("capture/recorder.cpp", '#include "device/cpu/cast.hpp"'),
        ("capture/recorder.cpp", '#include "nnsight/handle.hpp"'),
        ("nnsight/handle.cpp", '#include "capture/recorder.hpp"'),
    ],
)
def test_a_line_that_goes_over_a_border_is_noticed(file: str, line: str) -> None:
    assert {where for where, _ in breaches({**TEXTS, file: f"{TEXTS[file]}\n{line}\n"})} == {file}
