"""Many Python threads at once, and processes that fork."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import dilconv_ext as dc
from calls import OPS, make_call
from dilconv_ext import _C
from problems import PROBLEMS, make_tensors

SMALL = [p for p in PROBLEMS if not p.slow]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in Linux's /proc")
def test_a_call_uses_torchs_threads() -> None:
    """A large call wakes torch's own pool: in a fresh process it starts the second thread."""
    script = """
import os, torch, dilconv_ext as dc
torch.set_num_threads(2)
x, w = torch.empty(2, 32, 40, 40), torch.empty(32, 32, 3, 3)  # filling them would start it
before = len(os.listdir("/proc/self/task"))
dc.functional.conv2d(x, w)
print(len(os.listdir("/proc/self/task")) - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(dc.__file__).parents[1],
    )
    assert int(done.stdout) == 1


def test_many_threads_compute_what_one_does() -> None:
    """Every op on every problem from eight threads: the bits of the serial run."""
    calls = [make_call(op, p, make_tensors(p, torch.float32)) for p in SMALL for op in OPS]
    expected = [call.run() for call in calls]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            for actual, serial in zip(pool.map(lambda c: c.run(), calls), expected, strict=True):
                assert torch.equal(actual, serial)


def test_backward_from_many_threads() -> None:
    """One shared module, a forward and a backward in each thread (Hogwild without the updates)."""
    net = torch.nn.Sequential(
        dc.DilatedConv2d(3, 8, 3, padding=2, dilation=2), torch.nn.ReLU(), dc.DilatedConv2d(8, 4, 3)
    )
    inputs = [torch.randn(2, 3, 12 + i, 13) for i in range(16)]

    def gradients(x: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(net(x).square().sum(), tuple(net.parameters()))

    expected = [gradients(x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        for actual, serial in zip(pool.map(gradients, inputs), expected, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(actual, serial, strict=True))


def test_options_changed_while_others_run() -> None:
    """Options are process-wide: changing them during calls is safe, each call uses some kernel."""
    p = SMALL[0]
    call = make_call("conv2d", p, make_tensors(p, torch.float64))
    expected = call.run()
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(lambda: [call.run() for _ in range(200)]) for _ in range(3)]
        for i in range(200):
            with dc.options(
                kernel=_C.kernels()[i % len(_C.kernels())], isa=_C.isas()[i % len(_C.isas())]
            ):
                pass
        for future in futures:
            for actual in future.result():
                torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


class Convolved(torch.utils.data.Dataset):
    """A data set that convolves in its workers, as an augmentation would."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Tensor:
        return dc.functional.conv2d(torch.full((3, 16, 16), float(index)), torch.ones(2, 3, 3, 3))


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_data_loader_workers(context: str) -> None:
    Convolved()[0]  # the parent's thread pool exists before the fork
    loader: Any = torch.utils.data.DataLoader(
        Convolved(), batch_size=2, num_workers=2, multiprocessing_context=context, timeout=100
    )
    batches = torch.cat(list(loader))
    assert torch.equal(batches[:, 0, 0, 0], 27.0 * torch.arange(6))
