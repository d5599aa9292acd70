"""Compiles the CUDA kernels with NVRTC and writes a C++ source that holds what came of it.

No GPU, no CUDA toolkit and no CUDA header is needed, only the package nvidia-cuda-nvrtc-cu12. The same sources and the
same NVRTC give the same bytes: NVRTC sees no path and no time.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import re
from pathlib import Path

# At least one for each generation of GPUs; a cubin also runs on the later minor versions of its major one.
ARCHITECTURES = (70, 75, 80, 86, 89, 90, 100, 120)

# GPUs of later generations compile this one when it is loaded. It need not be older than the cubins: what a driver for
# such a GPU accepts, and not how old a GPU is, decides. NVRTC 12.9 writes PTX ISA 8.8, which every driver of CUDA 12.9
# and later reads, and so every driver that knows a GPU newer than the cubins. Targets older than compute_75 are on
# their way out of CUDA.
PTX_ARCHITECTURE = 80

PACKAGE = "nvidia-cuda-nvrtc-cu12"
INSTALL = f'pip install "{PACKAGE}==12.9.*"'

# NVRTC says so of sm_70, which it compiles all the same.
EXPECTED = re.compile(r"nvrtc: warning: Architectures prior to .* are deprecated")


def find_nvrtc() -> Path:
    """The library in the package that this Python sees. 12.8 is the first that knows all the architectures."""
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise SystemExit(f"{PACKAGE} is not installed, with which CUDA kernels are compiled: {INSTALL}") from None
    if package.version.split(".")[:2] not in (["12", "8"], ["12", "9"]):
        raise SystemExit(f"{PACKAGE} {package.version} cannot compile for all architectures: {INSTALL}")
    for file in package.files or ():
        if file.name == "libnvrtc.so.12":
            return Path(str(package.locate_file(file)))
    raise SystemExit(f"{PACKAGE} {package.version} holds no libnvrtc.so.12: {INSTALL}")


class Compiler:
    def __init__(self, kernel: Path, root: Path, warnings_are_errors: bool) -> None:
        self.nvrtc = ctypes.CDLL(str(find_nvrtc()))
        self.nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        self.warnings_are_errors = warnings_are_errors
        self.name = kernel.name
        self.source = kernel.read_bytes()
        self.headers: dict[str, bytes] = {}
        self._add_headers(self.source, root)

    def cubin(self, architecture: int) -> bytes:
        return self._compile(f"sm_{architecture}", "CUBIN")

    def ptx(self, architecture: int) -> bytes:
        return self._compile(f"compute_{architecture}", "PTX")  # ends with a zero byte

    def _add_headers(self, source: bytes, root: Path) -> None:
        for name in re.findall(rb'^#include "(.+)"$', source, re.MULTILINE):
            if name.decode() not in self.headers:
                header = (root / name.decode()).read_bytes()
                self.headers[name.decode()] = header
                self._add_headers(header, root)

    def _call(self, function: str, *arguments: object) -> int:
        return int(getattr(self.nvrtc, function)(*arguments))

    def _check(self, function: str, *arguments: object) -> None:
        if error := self._call(function, *arguments):
            raise SystemExit(f"{function}: {self.nvrtc.nvrtcGetErrorString(error).decode()}")

    def _get(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        data = ctypes.create_string_buffer(size.value)
        self._check(f"nvrtcGet{what}", program, data)
        return data.raw

    def _compile(self, target: str, what: str) -> bytes:
        program = ctypes.c_void_p()
        strings = ctypes.c_char_p * len(self.headers)
        names = strings(*(name.encode() for name in self.headers))
        texts = strings(*self.headers.values())
        self._check(
            "nvrtcCreateProgram",
            ctypes.byref(program),
            self.source,
            self.name.encode(),
            len(self.headers),
            texts,
            names,
        )
        try:
            given = [f"--gpu-architecture={target}", "--std=c++17", "--device-as-default-execution-space"]
            options = (ctypes.c_char_p * len(given))(*(option.encode() for option in given))
            error = self._call("nvrtcCompileProgram", program, len(given), options)
            log = self._get(program, "ProgramLog").rstrip(b"\0").decode()
            said = "\n".join(line for line in log.splitlines() if line.strip() and not EXPECTED.match(line))
            if error or (said and self.warnings_are_errors):
                raise SystemExit(f"{self.name} for {target} did not compile:\n{said}")
            if said:
                print(said)
            return self._get(program, what)
        finally:
            self._check("nvrtcDestroyProgram", ctypes.byref(program))


def array(name: str, data: bytes) -> str:
    data += bytes(-len(data) % 8)
    words = [f"{int.from_bytes(data[i : i + 8], 'little'):#x}u" for i in range(0, len(data), 8)]
    lines = [",".join(words[i : i + 8]) for i in range(0, len(words), 8)]
    return f"alignas(16) const std::uint64_t {name}[] = {{\n" + ",\n".join(lines) + "};\n"


def source_of(cubins: dict[int, bytes], ptx: bytes | None) -> str:
    arrays = [array(f"sm_{architecture}", data) for architecture, data in cubins.items()]
    entries = ", ".join(f"{{{architecture}, sm_{architecture}, {len(data)}}}" for architecture, data in cubins.items())
    if ptx is not None:
        arrays.append(array("ptx_text", ptx))
    text = "nullptr" if ptx is None else "reinterpret_cast<const char*>(ptx_text)"
    return f"""// Written by compile_cubins.py.

#include <cstdint>

#include "device/cuda/kernels/cubins.hpp"

namespace nntap::cuda {{
namespace {{

{"".join(arrays)}
}}  // namespace

const std::vector<Cubin>& cubins() {{
  static const auto* all = new std::vector<Cubin>{{{entries}}};
  return *all;
}}

const char* ptx() {{ return {text}; }}

int ptx_architecture() {{ return {0 if ptx is None else PTX_ARCHITECTURE}; }}

}}  // namespace nntap::cuda
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether NVRTC is there")
    parser.add_argument("--none", action="store_true", help="embed no kernels")
    parser.add_argument("--werror", action="store_true", help="treat NVRTC's warnings as errors")
    parser.add_argument("--kernel", type=Path)
    parser.add_argument("--root", type=Path, help="what #include starts from")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.check:
        find_nvrtc()
    elif given.none:
        given.out.write_text(source_of({}, None))
    else:
        compiler = Compiler(given.kernel, given.root, given.werror)
        cubins = {architecture: compiler.cubin(architecture) for architecture in ARCHITECTURES}
        given.out.write_text(source_of(cubins, compiler.ptx(PTX_ARCHITECTURE)))


if __name__ == "__main__":
    main()
