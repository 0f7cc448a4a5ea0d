"""What is in the GPU code of an object file or library, as cuobjdump tells it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ARCH = re.compile(r"(?:arch = |code for )sm_(\d+)")
FUNCTION = re.compile(r"\s*Function\s*:?\s*([^\s:]+):?\s*$")
RESOURCES = re.compile(r"\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)")
KERNEL_INFORMATION = re.compile(r"\.nv\.info\.(\S+)")
SECTION = re.compile(r"\.[a-z]\S*\s*$")
ATTRIBUTE = re.compile(r"\s*Attribute:\s*(\w+)")
VALUE = re.compile(r"\s*Value:\s*(0x.*)")

# Matrix products: one instruction of a warp (on newer GPUs also of four, or of one thread for all).
# HFMA2.MMA is none.
TENSOR_CORES = re.compile(r"([HDIBQO]|HG|IG|QG|BG|UTC[A-Z]*)MMA\b")
# Registers that did not suffice live in local memory, as does whatever else has no register.
LOCAL_MEMORY = ("LDL", "STL")


@dataclass
class Kernel:
    """A kernel's code for one compute capability."""

    symbol: str
    arch: int
    name: str = ""  # demangled
    registers: int = 0
    stack: int = 0  # bytes of a thread, as are those of `local`
    local: int = 0
    static_shared: int = 0  # bytes
    bound: int | None = None  # __launch_bounds__
    instructions: Counter[str] = field(default_factory=Counter)  # by full name

    def count(self, *names: str) -> int:
        """How many instructions there are whose name, up to the first dot, is one of these."""
        return sum(n for i, n in self.instructions.items() if i.split(".")[0] in names)

    @property
    def tensor_core_instructions(self) -> dict[str, int]:
        return {i: n for i, n in self.instructions.items() if TENSOR_CORES.match(i)}

    @property
    def local_memory(self) -> str:
        """What the kernel keeps in local memory, in words; empty if nothing."""
        found = {
            "bytes of stack": self.stack,
            "bytes of local memory": self.local,
            "loads from local memory": self.count("LDL"),
            "stores to local memory": self.count("STL"),
        }
        return ", ".join(f"{n} {what}" for what, n in found.items() if n)


def read_binaries(paths: Iterable[Path]) -> list[Kernel]:
    """Every kernel in the files, for every compute capability that they have code for."""
    kernels: dict[tuple[str, int], Kernel] = {}

    def kernel(symbol: str, arch: int) -> Kernel:
        return kernels.setdefault((symbol, arch), Kernel(symbol, arch))

    for path in paths:
        read_resources(cuobjdump("--dump-resource-usage", path), kernel)
        read_instructions(cuobjdump("-sass", path), kernel)
        read_bounds(cuobjdump("-elf", path), kernel)
    names = demangle([k.symbol for k in kernels.values()])
    for found, name in zip(kernels.values(), names, strict=True):
        found.name = name
    return sorted(kernels.values(), key=lambda k: (k.name, k.arch))


Lookup = Callable[[str, int], Kernel]


def read_resources(lines: Iterable[str], kernel: Lookup) -> None:
    """From the output of ``cuobjdump --dump-resource-usage``."""
    arch, symbol = 0, ""
    for line in lines:
        if found := ARCH.search(line):
            arch = int(found[1])
        elif found := FUNCTION.match(line):
            symbol = found[1]
        elif found := RESOURCES.match(line):
            k = kernel(symbol, arch)
            k.registers, k.stack, k.static_shared, k.local = map(int, found.groups())
            if arch >= 90:  # counts what the system reserves for each block
                k.static_shared = max(0, k.static_shared - 1024)


def read_instructions(lines: Iterable[str], kernel: Lookup) -> None:
    """From the output of ``cuobjdump -sass``."""
    arch = 0
    counts: Counter[str] = Counter()
    for line in lines:
        if found := INSTRUCTION.match(line):
            counts[found[1]] += 1
        elif found := FUNCTION.match(line):
            counts = kernel(found[1], arch).instructions
        elif found := ARCH.search(line):
            arch = int(found[1])


def read_bounds(lines: Iterable[str], kernel: Lookup) -> None:
    """From the output of ``cuobjdump -elf``."""
    arch, symbol, attribute = 0, "", ""
    for line in lines:
        if line.startswith((" ", "0")):  # the code
            continue
        if found := KERNEL_INFORMATION.match(line):
            symbol = found[1]
        elif SECTION.match(line):
            symbol = ""
        elif found := ARCH.search(line):
            arch = int(found[1])
        elif found := ATTRIBUTE.match(line):
            attribute = found[1]
        elif symbol and attribute == "EIATTR_MAX_THREADS" and (found := VALUE.match(line)):
            x, y, z = (int(n, 16) for n in found[1].split())
            kernel(symbol, arch).bound = x * y * z


def find_tool(name: str) -> str:
    """Where the tool is: on the PATH, or where pip installs NVIDIA's."""
    installed = sorted(Path(sysconfig.get_path("purelib")).glob(f"nvidia/*/bin/{name}"))
    found = shutil.which(name) or (installed and str(installed[-1]))
    if not found:
        sys.exit(f"There is no {name}, neither on the PATH nor from pip: pip install -e '.[cuda]'")
    return found


def cuobjdump(option: str, path: Path) -> Iterator[str]:
    """The lines that it prints. What it says besides is shown if it fails."""
    command = [find_tool("cuobjdump"), option, str(path)]
    with (
        tempfile.TemporaryFile("w+") as messages,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages, text=True) as process,
    ):
        assert process.stdout
        yield from process.stdout
        if process.wait():
            messages.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{messages.read()}")


def demangle(symbols: list[str]) -> list[str]:
    """By binutils' c++filt, which knows the anonymous namespaces of nvcc and of g++."""
    result = subprocess.run(
        ["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True
    )
    return result.stdout.split("\n")[: len(symbols)]
