"""Every kernel, on every instruction set, on every problem it accepts, in every dtype."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from accuracy import assert_accurate, assert_matches, bound_of, solve_problem
from calls import DTYPES, FLOATS, OPS, PATHS, all_calls, make_call
from problems import (
    PROBLEMS,
    Problem,
    channels_last,
    make_tensors,
    misaligned,
    problem,
    sliced,
    transposed,
)

FORMATS = {"contiguous": lambda t: t, "channels_last": channels_last}

# The fast tier runs the best instruction set in these dtypes and the others in float32; the slow
# tier runs the rest.
FAST_DTYPES = (*FLOATS, torch.complex64, torch.int8, torch.int64)
BEST_ISA = PATHS[0][1]


def _sweep() -> list[Any]:
    rows = []
    for p in PROBLEMS:
        for kernel, isa in PATHS:
            for dtype in DTYPES:
                fast = dtype in (FAST_DTYPES if isa == BEST_ISA else (torch.float32,))
                marks = () if fast and not p.slow else (pytest.mark.slow,)
                name = f"{p}-{kernel}-{isa}-{str(dtype).removeprefix('torch.')}"
                rows.append(pytest.param(p, kernel, isa, dtype, id=name, marks=marks))
    return rows


@pytest.mark.parametrize(("p", "kernel", "isa", "dtype"), _sweep())
def test_kernel_on_problem(p: Problem, kernel: str, isa: str, dtype: torch.dtype) -> None:
    for call in all_calls(p, dtype):
        exact, limit = solve_problem(p, dtype, call.op, call.bias is not None)
        for name, to_format in FORMATS.items():
            formatted = call.map(to_format)
            reason = formatted.refusals(isa)[kernel]
            if reason is None:
                what = f"{call} {name}"
                allowed = bound_of(kernel, dtype, limit)
                assert_matches(formatted.forced(kernel, isa), exact, allowed, dtype, what)
            else:
                with pytest.raises(RuntimeError, match=re.escape(reason)):
                    formatted.forced(kernel, isa)


@pytest.mark.parametrize("p", [p for p in PROBLEMS if not p.slow], ids=str)
@pytest.mark.parametrize("op", OPS)
def test_default_selection(op: str, p: Problem) -> None:
    """What a user gets, with nothing forced, is what the chosen kernel gives when forced."""
    call = make_call(op, p, make_tensors(p, torch.float32))
    chosen = call.selected()
    assert torch.equal(call.forced("", ""), call.forced(chosen, ""))


def test_the_reference_accepts_everything() -> None:
    for p in PROBLEMS:
        for dtype in DTYPES:
            for call in all_calls(p, dtype):
                assert call.refusals()["reference"] is None, f"{p} {dtype} {call}"


@pytest.mark.parametrize("op", OPS)
def test_any_strides(op: str) -> None:
    """Transposed, sliced, reversed-by-index, expanded and misaligned tensors are read in place."""
    call = make_call(
        op, problem("dilated_per_axis"), make_tensors(problem("dilated_per_axis"), torch.float32)
    )

    def expanded(t: Tensor) -> Tensor:
        return t[:1].expand(t.shape)

    for view in (transposed, sliced, misaligned, expanded):
        viewed = call.map(view)
        assert_accurate(viewed, viewed.run(), f"{op} {view.__name__}")


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_lazy_conjugates(op: str, dtype: torch.dtype) -> None:
    """A conjugate view (the conj bit, no data moved) and a negative view are values, not flags."""
    p = problem("plain_3x3")
    t = make_tensors(p, dtype)
    for f in (torch.conj, lambda v: v.conj().imag.neg() + 0j):
        call = make_call(op, p, t.map(f))
        assert_accurate(call.map(lambda v: v.resolve_conj().clone()), call.run(), op)
    real = make_call(op, p, t.map(lambda v: v.conj().imag))  # carries the negative bit
    assert real.a.is_neg()
    assert_accurate(real.map(lambda v: v.resolve_neg().clone()), real.run(), op)


@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (1, 1, 1, 1)])
def test_zero_input_channels(padding: tuple[int, ...]) -> None:
    """As torch: a convolution over no channels has no output channels either."""
    x, w = torch.ones(2, 0, 5, 6), torch.ones(4, 0, 3, 3)
    expected = F.conv2d(x, w, torch.ones(4), padding=padding[0])
    actual = torch.ops.dilconv.conv2d(x, w, torch.ones(4), padding=padding)
    assert actual.shape == expected.shape


def test_infinities_stay_in_their_window() -> None:
    """inf times a padded zero is not computed: only windows that see the inf become non-finite."""
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 4] = float("inf")
    w = torch.ones(1, 1, 3, 3)
    y = torch.ops.dilconv.conv2d(x, w, None, (1, 1), (2, 2, 2, 2), (2, 2))
    seen = torch.zeros(9, 9, dtype=torch.bool)
    seen[2:7:2, 2:7:2] = True
    assert torch.equal(torch.isinf(y[0, 0]), seen)


@pytest.mark.parametrize("channels", [32, 45])
def test_infinities_stay_in_their_channel(channels: int) -> None:
    """Depthwise kernels sum neighbouring channels side by side, and bfloat16 ones pairs of taps."""
    x = torch.zeros(1, channels, 9, 9, dtype=torch.bfloat16)
    x[0, channels - 3, 4, 4] = float("inf")
    x = x.to(memory_format=torch.channels_last)
    w = torch.ones(channels, 1, 3, 3, dtype=x.dtype)
    y = torch.ops.dilconv.conv2d(x, w, None, (1, 1), (1, 1, 1, 1), (1, 1), channels)
    seen = torch.zeros(channels, 9, 9, dtype=torch.bool)
    seen[channels - 3, 3:6, 3:6] = True
    assert torch.equal(torch.isinf(y[0]), seen)
    assert not y[0][~seen].any()


OPCHECK_PROBLEMS = [
    "dilated_per_axis",
    "pad_negative_strided",
    *(pytest.param(n, marks=pytest.mark.slow) for n in ("groups_2", "unbatched", "1d", "batch_0")),
]


@pytest.mark.parametrize("name", OPCHECK_PROBLEMS)
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    "check",
    ["test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic"],
)
def test_opcheck(check: str, op: str, name: str) -> None:
    p = problem(name)
    for to_format in FORMATS.values():
        t = make_tensors(p, torch.float64).map(to_format)
        call = make_call(op, p, t, bias=True).map(lambda v: v.detach().requires_grad_())
        overload = getattr(torch.ops.dilconv, op).default
        torch.library.opcheck(overload, call.args, test_utils=check)


def test_fake_outputs_have_the_real_strides() -> None:
    """Inductor keeps a custom op's strides: the fake kernel must predict them."""
    from torch._subclasses import FakeTensorMode

    mode = FakeTensorMode()
    for p in PROBLEMS:
        if p.slow:
            continue
        for to_format in FORMATS.values():
            t = make_tensors(p, torch.float32).map(to_format)
            for op in OPS:
                call = make_call(op, p, t)
                real, fake = call.run(), call.map(mode.from_tensor).run()
                assert fake.shape == real.shape, f"{p} {op}"
                assert fake.dtype == real.dtype, f"{p} {op}"
                assert fake.stride() == real.stride(), f"{p} {op}"
