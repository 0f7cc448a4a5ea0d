"""What every test shares: the same random numbers each run, one thread, options as they were.

One thread, because most problems are too small for two, and because test_determinism.py shows that
the number of threads changes no bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import dilconv_ext as dc
from dilconv_ext import _C


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
