"""The same bits: run to run, for any number of threads, and for a sample whatever its batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from calls import OPS, PATHS, Call, make_call
from problems import PROBLEMS, Problem, channels_last, make_tensors

DTYPES = (torch.float32, torch.bfloat16)
FORMATS = {"contiguous": lambda t: t, "channels_last": channels_last}
every_path = pytest.mark.parametrize(("kernel", "isa"), PATHS)
# The large problems are for kernels that divide their work; the reference would take minutes.
EVERYWHERE = [
    pytest.param(p, kernel, isa, marks=pytest.mark.slow if p.slow else (), id=f"{p}-{kernel}-{isa}")
    for p in PROBLEMS
    for kernel, isa in PATHS
    if not (p.slow and kernel == "reference")
]
everywhere = pytest.mark.parametrize(("p", "kernel", "isa"), EVERYWHERE)
# Enough work for threads, and quick: these run in every tier.
BUSY = [
    Problem("busy", 3, 12, 24, (20, 21), (3, 3), padding=(2, 2, 2, 2), dilation=(2, 2)),
    Problem("busy_one_sample", 1, 8, 16, (30, 25), (3, 3), padding=(4, 4, 4, 4), dilation=(4, 4)),
    Problem("busy_depthwise", 3, 24, 24, (23, 20), (3, 3), padding=(1, 1, 1, 1), groups=24),
    Problem("busy_1x1", 5, 40, 33, (11, 10), (1, 1)),
    Problem("busy_even_kernel", 2, 1, 23, (35, 20), (5, 4)),
    Problem("busy_1d", 2, 8, 16, (701,), (3,), (1, 1), (0, 0, 8, 8), (1, 8)),
    Problem("busy_strided", 4, 12, 20, (21, 20), (3, 3), stride=(2, 2), padding=(1, 1, 1, 1)),
]


def bits(t: Tensor) -> Tensor:
    """``t`` as integers, so that NaN equals itself and 0 differs from -0."""
    return t.view(torch.int32 if t.element_size() == 4 else torch.int16)


def accepted(call: Call, kernel: str, isa: str) -> bool:
    return call.refusals(isa)[kernel] is None


def check_threads(p: Problem, kernel: str, isa: str) -> None:
    for dtype in DTYPES:
        for to_format in FORMATS.values():
            for op in OPS:
                call = make_call(op, p, make_tensors(p, dtype).map(to_format), bias=True)
                if not accepted(call, kernel, isa):
                    continue
                results = []
                for threads in (1, 2, 3, 5, 2):
                    torch.set_num_threads(threads)
                    results.append(bits(call.forced(kernel, isa)))
                for other in results[1:]:
                    assert torch.equal(other, results[0]), f"{call} {dtype}"


@every_path
@pytest.mark.parametrize("p", BUSY, ids=str)
def test_same_bits_for_any_number_of_threads(p: Problem, kernel: str, isa: str) -> None:
    check_threads(p, kernel, isa)


@pytest.mark.slow
@everywhere
def test_same_bits_for_any_number_of_threads_everywhere(p: Problem, kernel: str, isa: str) -> None:
    check_threads(p, kernel, isa)


def misaligned(t: Tensor) -> Tensor:
    """A copy with the same strides, one element off any alignment."""
    buffer = torch.empty(t.numel() + 1, dtype=t.dtype)
    return torch.as_strided(buffer, t.shape, t.stride(), 1).copy_(t)


def check_batches(p: Problem, kernel: str, isa: str) -> None:
    for dtype in DTYPES:
        for to_format in FORMATS.values():
            t = make_tensors(p, dtype).map(to_format)
            x = t.x if p.n is not None else t.x.unsqueeze(0)
            if not x.size(0):
                continue
            call = Call("conv2d", x, t.w, None, t.bias, p.params)
            if not accepted(call, kernel, isa):
                continue

            def forward(x: Tensor, call: Call = call) -> Tensor:
                return Call("conv2d", x, *call.args[1:2], None, call.bias, call.params).forced(
                    kernel, isa
                )

            whole = forward(x)
            sample = x[-1]
            around = {
                "alone": to_format(sample.unsqueeze(0)),
                "unbatched": to_format(sample.clone()),
                "among 17": to_format(sample.expand(17, *sample.shape).clone()),
                "misaligned": misaligned(to_format(sample.unsqueeze(0).clone())),
            }
            for name, batch in around.items():
                result = forward(batch)
                last = result if batch.dim() < x.dim() else result[-1]
                assert torch.equal(bits(last), bits(whole[-1])), f"{name} {dtype}"


@every_path
@pytest.mark.parametrize("p", BUSY, ids=str)
def test_a_sample_has_the_same_bits_in_any_batch(p: Problem, kernel: str, isa: str) -> None:
    check_batches(p, kernel, isa)


@everywhere
def test_a_sample_has_the_same_bits_in_any_batch_everywhere(
    p: Problem, kernel: str, isa: str
) -> None:
    check_batches(p, kernel, isa)


@pytest.mark.parametrize("op", OPS)
def test_selection_does_not_look_at_the_batch(op: str) -> None:
    """What runs is decided by the sample: one kernel for every N (grad_weight sums over N)."""
    for p in BUSY:
        chosen = set()
        for n in (1, 2, 16, 64):
            shapes = (n, *p.input_shape[1:]), p.weight_shape, (n, *p.output_shape[1:])
            x, w, g = (torch.empty(1).expand(shape) for shape in shapes)
            x, g = x.contiguous(), g.contiguous()
            call = {
                "conv2d": Call(op, x, w.contiguous(), None, None, p.params),
                "conv2d_grad_input": Call(op, g, w.contiguous(), p.size, None, p.params),
                "conv2d_grad_weight": Call(op, g, x, p.kernel, None, p.params),
            }[op]
            chosen.add(next(k for k, reason in call.refusals().items() if reason is None))
        assert len(chosen) == 1, f"{p}: {chosen}"


def test_training_is_reproducible() -> None:
    """Ten steps of a small network end in the same bits, twice and on one thread."""
    import dilconv_ext as dc

    def train(threads: int) -> Tensor:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            dc.DilatedConv2d(1, 16, 3, padding="same", dilation=2),
            torch.nn.Tanh(),
            dc.DilatedConv2d(16, 16, 3, stride=2, groups=4),
            torch.nn.Tanh(),
            dc.DilatedConvTranspose2d(16, 1, 3, stride=2, padding="same_upper"),
        )
        x = torch.linspace(-1, 1, 4 * 29 * 29).view(4, 1, 29, 29)
        optimiser = torch.optim.SGD(net.parameters(), 0.1)
        for _ in range(10):
            optimiser.zero_grad()
            net(x).pow(2).mean().backward()
            optimiser.step()
        return torch.nn.utils.parameters_to_vector(net.parameters()).detach()

    runs = [train(threads) for threads in (2, 2, 1)]
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0], runs[2])
