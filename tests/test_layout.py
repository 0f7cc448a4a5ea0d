"""The include law: torch → {cpu, cuda} → core, and pybind11 only in csrc/python."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

CSRC = Path(__file__).resolve().parent.parent / "csrc"

# What each folder of csrc may include, besides the C++ standard library and itself.
MAY_INCLUDE = {
    "core": set(),
    "cpu": {"core"},
    "cuda": {"core"},
    "torch": {"core", "cpu", "cuda"},
    "torch/python": {"core", "torch"},
    "python": {"core"},
}
# The headers from outside that only these folders may include.
OUTSIDE = {
    "cpu": re.compile(r"\w*intrin\.h|cpuid\.h|arm_\w+\.h|asm/hwcap\.h|sys/\w+\.h|unistd\.h"),
    # Where a host compiler finds what device.h gives the device.
    "cuda": re.compile(r"cuda\w*(\.h|\.hpp)?|cuda_emulator/device\.h"),
    # The ops library has no Python symbols: C++ programs load it too.
    "torch": re.compile(r"(?!.*(python|pybind|extension|Exceptions))(torch|ATen|c10)/.+"),
    "torch/python": re.compile(r"(torch|ATen|c10)/.+|Python\.h"),
    "python": re.compile(r"pybind11/.+|dlfcn\.h"),
}
# The C++17 library's headers have no suffix; C's that are used have one.
STANDARD = re.compile(r"[a-z_]+|(assert|math|stddef|stdint|stdio|stdlib|string)\.h")
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)
DEVICE_NAMES = re.compile(r"\b(_mm\d*_\w+|__m\d+\w*|__AVX\w*|__ARM_\w+|__CUDA\w*|cuda[A-Z]\w*)\b")
SOURCES = sorted(path for path in CSRC.rglob("*") if path.is_file())


def layer(path: Path) -> str:
    """Return the folder whose law holds for ``path``: the deepest one that has a law."""
    parents = [str(parent) for parent in path.relative_to(CSRC).parents]
    return next(parent for parent in parents if parent in MAY_INCLUDE)


def violations(path: Path, text: str) -> list[str]:
    """Return every include in ``text``, the file at ``path`` in csrc, that breaks the law."""
    folder = layer(path)
    found = []
    for own, outside in INCLUDE.findall(text):
        if own:
            target = (path.parent / own).resolve()
            inside = target.is_file() and target.is_relative_to(CSRC)
            if not inside or layer(target) not in MAY_INCLUDE[folder] | {folder}:
                found.append(own)
        elif not STANDARD.fullmatch(outside):
            allowed = OUTSIDE.get(folder)
            if allowed is None or not allowed.fullmatch(outside):
                found.append(outside)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CSRC)))
def test_includes_go_down_only(path):
    assert violations(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", sorted((CSRC / "core").iterdir()), ids=lambda path: path.name)
def test_core_knows_no_device(path):
    assert DEVICE_NAMES.findall(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("core/new.h", "#include <torch/library.h>"),
        ("core/new.h", "#include <immintrin.h>"),
        ("core/new.h", "# include <cuda_runtime.h>"),
        ("core/new.h", '#include "../cpu/isa.h"'),
        ("core/new.h", '#include "no_such_file.h"'),
        ("cpu/new.cpp", "#include <ATen/Parallel.h>"),
        ("cpu/new.cpp", "#include <cuda_runtime.h>"),
        ("cpu/deep/new.cpp", "#include <Python.h>"),
        ("cuda/new.cu", '#include "../cpu/isa.h"'),
        ("cuda/deep/new.cu", "#include <torch/library.h>"),
        ("cuda/deep/new.cu", "#include <c10/cuda/CUDAStream.h>"),
        ("cuda/new.h", '#include "../torch/shapes.h"'),
        ("torch/new.cpp", "#include <pybind11/pybind11.h>"),
        ("torch/new.cpp", "  #include <Python.h>"),
        ("torch/new.cpp", "#include <torch/extension.h>"),
        ("torch/new.cpp", "#include <torch/csrc/autograd/python_variable.h>"),
        ("torch/new.cpp", '#include "python/fast.cpp"'),
        ("python/new.cpp", "#include <torch/extension.h>"),
    ],
)
def test_the_law_is_enforced(path, line):
    assert violations(CSRC / path, f"#pragma once\n{line}\n") != []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("core/new.h", "#include <type_traits>"),
        ("core/new.h", '#include "dilconv.h"'),
        ("cpu/new.cpp", "#include <immintrin.h>"),
        ("cpu/new.cpp", '#include "../core/dilconv.h"'),
        ("cuda/new.cu", "#include <cuda_runtime.h>"),
        ("cuda/deep/new.cu", '#include "../../core/kernel.h"'),
        ("torch/new.cpp", "#include <ATen/Parallel.h>"),
        ("torch/new.cpp", '#include "../core/dilconv.h"'),
        ("torch/new.cpp", "#include <torch/csrc/autograd/function.h>"),
        ("torch/python/new.cpp", "#include <torch/csrc/autograd/python_variable.h>"),
        ("python/new.cpp", "#include <pybind11/stl.h>"),
    ],
)
def test_the_law_permits_what_is_needed(path, line):
    assert violations(CSRC / path, line) == []


EMULATOR_TESTS = [
    path
    for path in sorted(Path(__file__).parent.glob("test_*.py"))
    if re.search(r"^import emulated_gpu|build/emulator", path.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize("path", EMULATOR_TESTS, ids=lambda path: path.stem)
def test_a_real_gpu_is_not_given_to_the_emulated_one(path, pytestconfig):
    """The emulated GPU reads tensors from the host, where those of a real one are not."""
    conftest = pytestconfig.pluginmanager.get_plugin(str(path.with_name("conftest.py")))
    with_device = SimpleNamespace(getoption={"--device": "cuda"}.get)
    assert conftest.pytest_ignore_collect(path, with_device)
