"""What is in Linux wheels: a table, and exit code 1 with the reason where a wheel is not fit to be published.

Needs rich and pyelftools (`scripts/wheel_tools.sh` installs them).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from elftools.elf.sections import SymbolTableSection
from rich.console import Console
from rich.table import Table

MIB = 1 << 20
LARGEST = 5 * MIB
NEWEST_GLIBC = (2, 28)
# glibc's own; what else a wheel needs may be missing, or another version, where it is installed.
ALLOWED_LIBRARIES = re.compile(r"(libc|libm|libpthread|libdl|librt)\.so\.\d+|ld-linux-(x86-64|aarch64)\.so\.\d")
EXPORTS = ["PyInit__core"]
ROOT = Path(__file__).parents[1]
LICENCES = ["LICENSE", *sorted(f"licenses/{path.name}" for path in (ROOT / "licenses").glob("*.txt"))]
MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}


@dataclass
class Wheel:
    """What one wheel is; `problems` says why it must not be published."""

    file: str
    tag: str
    bytes: int
    libraries: list[str] = field(default_factory=list)
    symbols: dict[str, str] = field(default_factory=dict)  # the newest version of each kind, such as GLIBC
    exports: list[str] = field(default_factory=list)
    architectures: list[str] | None = (
        None  # None: not asked, the wheel is not for this machine or not for a Python here
    )
    problems: list[str] = field(default_factory=list)


def inspect(path: Path, pythons: list[str]) -> Wheel:
    """Reads a wheel, and asks its `nntap.build_info()` if one of the interpreters can import it."""
    wheel = Wheel(path.name, path.stem.split("-", 2)[2], path.stat().st_size)
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        modules = list(Path(folder).rglob("*.so*"))
        if len(modules) != 1:
            wheel.problems.append(f"{len(modules)} shared objects instead of one")
        for module in modules:
            if module.name != _module_name(wheel.tag):
                wheel.problems.append(f"holds {module.name}, and that Python looks for {_module_name(wheel.tag)}")
            _read_elf(module, wheel)
        licences = next(Path(folder).glob("*.dist-info")) / "licenses"
        if missing := [name for name in LICENCES if not (licences / name).is_file()]:
            wheel.problems.append(f"has no {', '.join(missing)}")
        info = _build_info(Path(folder), wheel.tag, pythons)
    if info is not None:
        wheel.architectures = info.get("cuda_architectures", [])
    _judge(wheel)
    return wheel


def _module_name(tag: str) -> str:
    python, _, platform = tag.split("-")
    machine = re.sub(r"^manylinux_\d+_\d+_", "", platform)
    return f"_core.cpython-{python.removeprefix('cp')}-{machine}-linux-gnu.so"


def _read_elf(module: Path, wheel: Wheel) -> None:
    with module.open("rb") as file:
        elf = ELFFile(file)
        if not wheel.tag.endswith("_" + MACHINES.get(elf["e_machine"], "?")):
            wheel.problems.append(f"is compiled for {elf['e_machine']}")
        for section in elf.iter_sections():
            if isinstance(section, DynamicSection):
                wheel.libraries = [tag.needed for tag in section.iter_tags("DT_NEEDED")]
            elif isinstance(section, GNUVerNeedSection):
                for name, version in _versions(section):
                    newest = max(wheel.symbols.get(name, version), version, key=_numbers)
                    wheel.symbols[name] = newest
            elif isinstance(section, SymbolTableSection) and section.name == ".dynsym":
                defined = [s.name for s in section.iter_symbols() if s["st_shndx"] != "SHN_UNDEF"]
                wheel.exports = sorted(name for name in defined if name)
                if section.get_symbol_by_name("memcpy") is None:
                    # zig's runtime has a slow one, in one object with other things that the linker may want of it.
                    wheel.problems.append("memcpy is not taken from libc")


def _versions(section: GNUVerNeedSection) -> Iterator[tuple[str, str]]:
    for _, needed in section.iter_versions():
        for version in needed:
            name, _, number = version.name.rpartition("_")
            yield name, number


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def _build_info(folder: Path, tag: str, pythons: list[str]) -> dict[str, object] | None:
    script = (
        "import json, platform, sys\n"
        "tag, folder = sys.argv[1:]\n"
        "python = 'cp%d%d-' % sys.version_info[:2]\n"
        "if tag.startswith(python) and tag.endswith('_' + platform.machine()):\n"
        "    sys.path.insert(0, folder)\n"
        "    import nntap\n"
        "    print(json.dumps(nntap.build_info()))\n"
    )
    for python in pythons:
        run = subprocess.run([python, "-c", script, tag, str(folder)], capture_output=True, text=True, check=False)
        if run.returncode != 0:
            raise SystemExit(f"{python} cannot import the module of the wheel {tag}:\n{run.stderr}")
        if run.stdout:
            info: dict[str, object] = json.loads(run.stdout)
            return info
    return None


def _judge(wheel: Wheel) -> None:
    if wheel.bytes > LARGEST:
        wheel.problems.append(f"over {LARGEST // MIB} MiB")
    if not re.search(r"-(manylinux_2_28_(x86_64|aarch64))$", wheel.tag):
        wheel.problems.append("no manylinux_2_28 tag")
    if _numbers(wheel.symbols.get("GLIBC", "0")) > NEWEST_GLIBC:
        wheel.problems.append(f"needs glibc {wheel.symbols['GLIBC']}")
    if odd := [name for name in wheel.libraries if not ALLOWED_LIBRARIES.fullmatch(name)]:
        wheel.problems.append(f"needs {', '.join(odd)}")
    if wheel.exports != EXPORTS:
        wheel.problems.append(f"exports {', '.join(wheel.exports[:5]) or 'nothing'} instead of {EXPORTS[0]}")


def table(wheels: list[Wheel]) -> Table:
    out = Table(title="Wheels")
    for column in ("tag", "size", "architectures", "libraries needed", "newest symbols", "fit"):
        out.add_column(column, justify="right" if column == "size" else "left", overflow="fold")
    for wheel in wheels:
        out.add_row(
            wheel.tag,
            f"{wheel.bytes / MIB:.2f} MiB",
            "not asked" if wheel.architectures is None else ", ".join(wheel.architectures) or "-",
            ", ".join(wheel.libraries),
            ", ".join(f"{name} {version}" for name, version in sorted(wheel.symbols.items())),
            "; ".join(wheel.problems) or "yes",
        )
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL")
    parser.add_argument(
        "--pythons", nargs="*", default=[sys.executable], metavar="PYTHON", help="to ask what is in them"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what was found")
    arguments = parser.parse_args()
    wheels = [inspect(path, arguments.pythons) for path in arguments.wheels]
    Console(width=None if sys.stdout.isatty() else 160).print(table(wheels))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(wheel) for wheel in wheels], indent=2) + "\n")
    return 1 if any(wheel.problems for wheel in wheels) else 0


if __name__ == "__main__":
    sys.exit(main())
