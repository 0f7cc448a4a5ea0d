"""The emulated GPU finds the faults of cuda_mutants.py in kernels that are else found right.

Each fault is compiled anew and run by build/emulator/check, with a library of its own. That is
slow: `make test`, and so CI, finds one fault in four, --slow=all finds all of them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from cuda_mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build/emulator"
SOURCES = ROOT / "csrc"
# The objects of the emulator itself; those of csrc are found by their folder.
EMULATOR = [f"{name}.o" for name in ["block", "counters", "memory", "oracle", "runtime", "symbols"]]

if not (BUILD / "check").exists():
    pytest.skip(
        "the emulated GPU was not built: `make check-cuda` (needs libboost-context-dev)",
        allow_module_level=True,
    )


def check(mutant: Mutant, library: Path = BUILD) -> subprocess.CompletedProcess[str]:
    """Runs the mutant's kernel on its problem, as found in the folder's library."""
    case = ["--kernel", mutant.kernel, "--problem", mutant.problem, "--op", mutant.op]
    return subprocess.run(
        [BUILD / "check", *case, "--until-failure"],
        env={**os.environ, "LD_LIBRARY_PATH": str(library)},
        capture_output=True,
        text=True,
    )


@cache
def passes_unmutated(kernel: str, problem: str, op: str) -> bool:
    mutant = next(m for m in MUTANTS if (m.kernel, m.problem, m.op) == (kernel, problem, op))
    return check(mutant).returncode == 0


def mutate(mutant: Mutant, folder: Path) -> Path:
    """Copies csrc with the fault in it; returns the file to compile."""
    shutil.copytree(SOURCES, folder / "csrc")
    file = folder / "csrc/cuda" / mutant.file
    text = file.read_text()
    assert text.count(mutant.old) == mutant.times, f"{mutant.file} has changed: {mutant.old!r}"
    file.write_text(text.replace(mutant.old, mutant.new))
    return folder / "csrc/cuda" / mutant.unit


def build(mutant: Mutant, folder: Path) -> None:
    """Makes the library with the fault: one file is compiled, the other objects are reused."""
    source = mutate(mutant, folder)
    compiler = shutil.which("g++") or "c++"
    flags = ["-std=c++17", "-O1", "-w", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"]
    include = f"-I{ROOT}/tests/cuda_emulator/include"
    mutated = folder / "mutated.o"
    subprocess.run(
        [compiler, *flags, include, "-x", "c++", "-c", source, "-o", mutated], check=True
    )
    replaced = (BUILD / "csrc/cuda" / mutant.unit).with_suffix(".o")
    objects = [*(BUILD / "csrc").rglob("*.o"), *map(BUILD.joinpath, EMULATOR)]
    library = folder / "libdilconv_cuda_host.so"
    others = [o for o in objects if o != replaced]
    assert len(others) == len(objects) - 1
    subprocess.run(
        [compiler, "-shared", "-o", library, mutated, *others, "-lboost_context", "-ldl"],
        check=True,
    )


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_every_fault_can_be_planted(mutant: Mutant, tmp_path: Path) -> None:
    assert mutate(mutant, tmp_path).exists()


@pytest.mark.slow(sample=4)
@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_fault_is_found(mutant: Mutant, tmp_path: Path) -> None:
    assert passes_unmutated(mutant.kernel, mutant.problem, mutant.op), "the kernel fails as it is"
    build(mutant, tmp_path)
    result = check(mutant, tmp_path)
    assert result.returncode == 1, result.stdout
    assert re.search(mutant.finds, result.stdout), result.stdout
