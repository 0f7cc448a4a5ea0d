"""What every test shares: the same random numbers each run, one thread, options as they were.

One thread, because most problems are too small for two, and because test_determinism.py shows that
the number of threads changes no bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import dilconv_ext as dc
from dilconv_ext import _C

# Tests of the CPU's kernels, and of what no device runs. The emulated GPU maps the host's memory:
# tensors of a real one would end the process.
CPU_ONLY = (
    "benchmarks",
    "cuda_emulator",
    "cuda_figures",
    "cuda_mutants",
    "errors",
    "explain",
    "layout",
    "networks",
    "packaging",
    "receptive_field",
    "threads",
    "winograd",
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what is for another device."""
    cuda = config.getoption("--device") == "cuda"
    left_out = CPU_ONLY if cuda else ("cuda",)
    return True if collection_path.stem.removeprefix("test_") in left_out else None


def pytest_report_header(config: pytest.Config) -> str:
    """Say where tensors are."""
    device = config.getoption("--device")
    if device == "cuda":
        return f"device: {torch.cuda.get_device_name()}, without {', '.join(CPU_ONLY)}"
    return "device: cpu; --device cuda tests CUDA tensors"


def pytest_configure(config: pytest.Config) -> None:
    """With --device cuda, tests make their tensors there: all that do not name another device.

    Warnings are errors, except torch's about a padded copy: it is torch that makes one.
    """
    if config.getoption("--device") == "cuda":
        if not torch.cuda.is_available():
            raise pytest.UsageError("--device cuda: torch sees no GPU")
        torch.set_default_device("cuda")
        # torch would use TF32 on both sides; test_cuda.py tests that.
        torch.backends.cudnn.conv.fp32_precision = "ieee"
    config.addinivalue_line("filterwarnings", "ignore:Using padding='same' with even kernel")


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with dc.options(**{name: _C.get_option(name) for name in ("kernel", "isa", "verbose")}):
        yield  # and whatever the test set is undone
    torch.set_num_threads(threads)
