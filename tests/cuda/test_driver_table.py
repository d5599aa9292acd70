"""The driver table, which is declared by hand, against CUDA's own header."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from driver_table import DRIVER, entries

ROOT = Path(__file__).parents[2]
CONSTANTS = {
    "kSuccess": "CUDA_SUCCESS",
    "kInvalidValue": "CUDA_ERROR_INVALID_VALUE",
    "kOutOfMemory": "CUDA_ERROR_OUT_OF_MEMORY",
    "kNotInitialized": "CUDA_ERROR_NOT_INITIALIZED",
    "kDeinitialized": "CUDA_ERROR_DEINITIALIZED",
    "kNoDevice": "CUDA_ERROR_NO_DEVICE",
    "kInvalidContext": "CUDA_ERROR_INVALID_CONTEXT",
    "kNoBinaryForGpu": "CUDA_ERROR_NO_BINARY_FOR_GPU",
    "kInvalidPtx": "CUDA_ERROR_INVALID_PTX",
    "kJitCompilerNotFound": "CUDA_ERROR_JIT_COMPILER_NOT_FOUND",
    "kUnsupportedPtxVersion": "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
    "kJitCompilationDisabled": "CUDA_ERROR_JIT_COMPILATION_DISABLED",
    "kOperatingSystem": "CUDA_ERROR_OPERATING_SYSTEM",
    "kNotFound": "CUDA_ERROR_NOT_FOUND",
    "kNotReady": "CUDA_ERROR_NOT_READY",
    "kIllegalAddress": "CUDA_ERROR_ILLEGAL_ADDRESS",
    "kHostMemoryAlreadyRegistered": "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED",
    "kLaunchFailed": "CUDA_ERROR_LAUNCH_FAILED",
    "kNotPermitted": "CUDA_ERROR_NOT_PERMITTED",
    "kNotSupported": "CUDA_ERROR_NOT_SUPPORTED",
    "kCaptureImplicit": "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
    "kUnknown": "CUDA_ERROR_UNKNOWN",
    "kStreamNonBlocking": "CU_STREAM_NON_BLOCKING",
    "kEventBlockingSync": "CU_EVENT_BLOCKING_SYNC",
    "kEventDisableTiming": "CU_EVENT_DISABLE_TIMING",
    "kHostRegisterPortable": "CU_MEMHOSTREGISTER_PORTABLE",
    "kStreamNotCapturing": "CU_STREAM_CAPTURE_STATUS_NONE",
    "kCaptureModeGlobal": "CU_STREAM_CAPTURE_MODE_GLOBAL",
    "kCaptureModeRelaxed": "CU_STREAM_CAPTURE_MODE_RELAXED",
    "kAttributeMajor": "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR",
    "kAttributeMinor": "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR",
}

COMPARES = """
#include <cuda.h>
#include <type_traits>
#include "device/cuda/driver.hpp"
using namespace nntap::cuda;

// Parameters agree when both are pointers or neither is, and they have the same size.
template <typename A, typename B>
constexpr bool agree = std::is_pointer_v<A> == std::is_pointer_v<B> && sizeof(A) == sizeof(B);
template <typename Ours, typename Theirs>
struct Same : std::false_type {};
template <typename... A, typename... B>
struct Same<Result (*)(A...), CUresult (*)(B...)> {
  static constexpr bool all() {
    if constexpr (sizeof...(A) == sizeof...(B)) return (agree<A, B> && ...);
    return false;
  }
  static constexpr bool value = all();
};
static_assert(sizeof(Result) == sizeof(CUresult));
"""


def header_folders() -> list[Path]:
    """Where cuda.h and dlpack.h are, from the packages that the `dev` extra installs."""
    folders = []
    for package, header in (("nvidia.cuda_runtime", "include/cuda.h"), ("tvm_ffi", "include/dlpack/dlpack.h")):
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            spec = None
        places = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or []]
        found = [place / "include" for place in places if (place / header).exists()]
        folders += found or pytest.skip(f"{package} is not installed")
    return folders


def compiles(source: str, folder: Path) -> str:
    """What the compiler complains about."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or pytest.skip("there is no C++ compiler")
    (folder / "table.cpp").write_text(source)
    includes = [f"-I{place}" for place in (ROOT / "csrc", *header_folders())]
    command = [compiler, "-std=c++17", "-fsyntax-only", *includes, str(folder / "table.cpp")]
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stderr


def test_the_table_has_the_header_s_signatures_and_values(tmp_path: Path) -> None:
    checks = [
        f'static_assert(Same<decltype(Driver::{entry}), decltype(&{symbol})>::value, "{entry}");'
        for entry, symbol in entries().items()
    ]
    checks += [f'static_assert({ours} == {theirs}, "{ours}");' for ours, theirs in CONSTANTS.items()]
    assert len(checks) > 50
    assert compiles(COMPARES + "\n".join(checks), tmp_path) == ""


def test_another_signature_is_noticed(tmp_path: Path) -> None:
    wrong = 'static_assert(Same<decltype(Driver::event_record), decltype(&cuEventQuery)>::value, "wrong");'
    assert "wrong" in compiles(COMPARES + wrong, tmp_path)


def test_every_constant_is_compared() -> None:
    declared = re.findall(r"\b(k[A-Z]\w+) = \d+", DRIVER.read_text())
    assert sorted(declared) == sorted(CONSTANTS)
