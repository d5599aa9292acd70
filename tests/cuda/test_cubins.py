"""The compiled kernels that the core holds."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path
from struct import unpack_from

import pytest

import nntap
from helpers import with_kernels
from nntap import _core

ARCHITECTURES = [70, 75, 80, 86, 89, 90, 100, 120]
KERNELS = ["nntap_gather_cast"]
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "csrc" / "device" / "cuda" / "kernels" / "compile_cubins.py"

pytestmark = with_kernels

architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)


class Elf:
    """What is looked at of an ELF image of 64 bits."""

    def __init__(self, image: bytes) -> None:
        self.image = image
        self.magic, self.abi = image[:4], image[8]
        (self.machine,) = unpack_from("<H", image, 18)
        (self.flags,) = unpack_from("<I", image, 48)
        (start,) = unpack_from("<Q", image, 40)
        size, count, names = unpack_from("<HHH", image, 58)
        headers = [unpack_from("<IIQQQQ", image, start + i * size) for i in range(count)]
        text = self._data(headers[names])
        self.sections = {self._string(text, header[0]): self._data(header) for header in headers}

    def _data(self, header: tuple[int, ...]) -> bytes:
        _, _, _, _, offset, size = header
        return self.image[offset : offset + size]

    def _string(self, text: bytes, at: int) -> str:
        return text[at : text.index(b"\0", at)].decode()

    def symbol(self, number: int) -> str:
        (name,) = unpack_from("<I", self.sections[".symtab"], number * 24)
        return self._string(self.sections[".strtab"], name)

    def attributes(self, wanted: int) -> dict[str, int]:
        """Of each function, one attribute of the section .nv.info."""
        found, at, info = {}, 0, self.sections[".nv.info"]
        while at < len(info):
            form, kind, size = unpack_from("<BBH", info, at)
            if (form, kind) == (4, wanted):  # a value of `size` bytes: the number of the function's symbol, and it
                symbol, value = unpack_from("<II", info, at + 4)
                found[self.symbol(symbol)] = value
            at += 4 + (size if form == 4 else 0)
        return found


REGISTERS, STACK_FRAME = 0x2F, 0x11


def test_there_is_machine_code_for_every_architecture() -> None:
    assert sorted(_core.testing.cubins()) == ARCHITECTURES
    assert nntap.build_info()["cuda_architectures"] == [*(f"sm_{number}" for number in ARCHITECTURES), "ptx_80"]


@architectures
def test_a_cubin_is_of_its_architecture_and_has_the_kernels(architecture: int) -> None:
    elf = Elf(_core.testing.cubins()[architecture])
    assert elf.magic == b"\x7fELF"
    assert elf.machine == 190  # EM_CUDA
    flags = elf.flags >> 8 if elf.abi == 8 else elf.flags
    assert flags & 0xFF == architecture
    assert sorted(name for name in elf.sections if name.startswith(".text.")) == [f".text.{name}" for name in KERNELS]


@architectures
def test_the_kernels_keep_everything_in_few_registers(architecture: int) -> None:
    """Nothing is spilled to memory, and a multiprocessor of 65,536 registers has room for 4 blocks of 256 threads."""
    elf = Elf(_core.testing.cubins()[architecture])
    registers, frames = elf.attributes(REGISTERS), elf.attributes(STACK_FRAME)
    assert sorted(registers) == KERNELS
    assert set(KERNELS) <= set(frames)  # which has helpers of the compiler too
    assert max(registers.values()) <= 64
    assert set(frames.values()) == {0}


def test_the_ptx_is_for_gpus_that_come() -> None:
    text = _core.testing.ptx()
    assert "\n.target sm_80\n" in text
    assert all(f".entry {name}(" in text for name in KERNELS)


def test_a_gpu_gets_the_nearest_cubin_that_runs_on_it() -> None:
    """Of its own major version, and no later minor one; a GPU of another generation gets the PTX."""
    nearest = {
        **{(7, 0): 70, (7, 2): 70, (7, 5): 75, (8, 0): 80, (8, 6): 86, (8, 7): 86, (8, 9): 89, (9, 0): 90},
        **{(10, 0): 100, (10, 3): 100, (12, 0): 120, (12, 1): 120, (11, 0): None, (13, 0): None, (6, 1): None},
    }
    assert {version: _core.testing.best_cubin(*version) for version in nearest} == nearest


def test_no_path_of_the_machine_that_built_it_is_in_it() -> None:
    for image in (*_core.testing.cubins().values(), _core.testing.ptx().encode()):
        assert str(ROOT).encode() not in image
        assert b"/tmp" not in image


# ---- compiling ----


def compile_cubins(*arguments: str, isolated: bool = False) -> subprocess.CompletedProcess[str]:
    python = [sys.executable, *(["-I", "-S"] if isolated else [])]
    return subprocess.run([*python, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=300, check=False)


def test_without_nvrtc_it_is_said_how_to_get_it() -> None:
    done = compile_cubins("--check", isolated=True)
    assert done.returncode == 1
    assert done.stderr == (
        "nvidia-cuda-nvrtc-cu12 is not installed, with which CUDA kernels are compiled: "
        'pip install "nvidia-cuda-nvrtc-cu12==12.9.*"\n'
    )


def test_a_build_without_kernels_needs_no_nvrtc(tmp_path: Path) -> None:
    out = tmp_path / "none.cpp"
    done = compile_cubins("--none", "--out", str(out), isolated=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "new std::vector<Cubin>{};" in out.read_text()
    assert "return nullptr;" in out.read_text()


def embedded_images(source: str) -> list[bytes]:
    """The arrays of a written source, as bytes."""
    arrays = re.findall(r"std::uint64_t \w+\[\] = \{(.*?)\}", source, re.DOTALL)
    return [b"".join(int(word, 16).to_bytes(8, "little") for word in re.findall(r"0x\w+?(?=u)", one)) for one in arrays]


def has_nvrtc() -> bool:
    try:
        return importlib.metadata.version("nvidia-cuda-nvrtc-cu12").startswith("12.9.")
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.mark.skipif(not has_nvrtc(), reason="nvidia-cuda-nvrtc-cu12 12.9 is not installed")
def test_compiling_elsewhere_gives_the_same_bytes(tmp_path: Path) -> None:
    elsewhere = tmp_path / "csrc"
    elsewhere.symlink_to(ROOT / "csrc")
    kernel, out = elsewhere / "device" / "cuda" / "kernels" / "gather_cast.cu", tmp_path / "cubins.cpp"
    done = compile_cubins("--kernel", str(kernel), "--root", str(elsewhere), "--out", str(out), "--werror")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    *cubins, ptx = embedded_images(out.read_text())
    embedded = _core.testing.cubins()
    for architecture, image in zip(ARCHITECTURES, cubins, strict=True):
        size = len(embedded[architecture])
        assert image[:size] == embedded[architecture]
    assert ptx.rstrip(b"\0") == _core.testing.ptx().encode()
