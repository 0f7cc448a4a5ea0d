"""Random problems over all the corners at once, against the reference and against each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from accuracy import FLOAT32_FLOOR, assert_accurate
from calls import DTYPES, OPS, PATHS, Call, make_call
from problems import Problem, Tensors, channels_last, random_tensor


@st.composite
def problems(draw: Any) -> Problem:
    """Any convolution with a positive output size, of up to a few thousand products."""
    rank = draw(st.sampled_from([1, 2, 2]))
    groups = draw(st.sampled_from([1, 1, 2, 3, 5]))
    per_group_in = draw(st.sampled_from([1, 1, 2, 3, 9]))
    per_group_out = draw(st.sampled_from([1, 1, 2, 4, 17]))
    size, kernel, stride, dilation, pads = [], [], [], [], []
    for _ in range(rank):
        i = draw(st.integers(1, 19))
        k = draw(st.integers(1, 5))
        d = draw(st.integers(1, 7))
        before, after = draw(st.integers(-2, 9)), draw(st.integers(-2, 9))
        reach = d * (k - 1) + 1
        after += max(0, reach - (i + before + after))  # at least one output
        size.append(i)
        kernel.append(k)
        dilation.append(d)
        stride.append(draw(st.integers(1, 4)))
        pads += [before, after]
    flat = [1] * (2 - rank)
    return Problem(
        "random",
        draw(st.sampled_from([None, 0, 1, 1, 2, 3])),
        groups * per_group_in,
        groups * per_group_out,
        tuple(size),
        tuple(kernel),
        (*flat, *stride),
        (*[0] * (4 - 2 * rank), *pads),
        (*flat, *dilation),
        groups,
    )


# Ways to hold the same values in memory; the NaN (or 99) around a slice must never be read.
def _sliced(t: Tensor) -> Tensor:
    filler = float("nan") if t.dtype.is_floating_point or t.dtype.is_complex else 99
    wide = t.new_full([2 * s + 1 for s in t.shape], filler)
    part = wide[tuple(slice(1, None, 2) for _ in t.shape)]
    return part.copy_(t)


VIEWS = {
    "contiguous": lambda t: t.contiguous(),
    "channels_last": channels_last,
    "sliced": _sliced,
    "transposed": lambda t: t.transpose(-1, 0).contiguous().transpose(-1, 0),
    "expanded": lambda t: t[..., :1].expand(t.shape),
    "expanded_rows": lambda t: t[:1].expand(t.shape) if t.size(0) else t,
    "flipped": lambda t: t.flip(-1),
}
views = st.sampled_from(sorted(VIEWS))


def random_tensors(p: Problem, dtype: torch.dtype, seed: int) -> Tensors:
    generator = torch.Generator("cpu").manual_seed(seed)
    shapes = (p.input_shape, p.weight_shape, p.output_shape, (p.c_out,), (p.c_in,))
    return Tensors(*(random_tensor(shape, dtype, generator) for shape in shapes))


def _settings(examples: int) -> settings:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=examples, deadline=None, derandomize=True, suppress_health_check=checks
    )


seeds = st.integers(0, 2**31)


def check_values(
    op: str,
    path: tuple[str, str],
    dtype: torch.dtype,
    p: Problem,
    how: tuple[str, str],
    bias: bool,
    seed: int,
) -> None:
    t = random_tensors(p, dtype, seed)
    plain = make_call(op, p, t, bias)
    call = Call(
        op, VIEWS[how[0]](plain.a), VIEWS[how[1]](plain.b), plain.size, plain.bias, p.params
    )
    kernel, isa = path
    if call.refusals(isa)[kernel] is None:
        assert_accurate(call, call.forced(kernel, isa))


every_op = pytest.mark.parametrize("op", OPS)
arguments = {
    "path": st.sampled_from(PATHS),
    "dtype": st.sampled_from(DTYPES),
    "p": problems(),
    "how": st.tuples(views, views),
    "bias": st.booleans(),
    "seed": seeds,
}


@every_op
@_settings(150)
@given(**arguments)
def test_values(op: str, **drawn: Any) -> None:
    check_values(op, **drawn)


@pytest.mark.slow
@every_op
@_settings(2500)
@given(**arguments)
def test_values_at_length(op: str, **drawn: Any) -> None:
    check_values(op, **drawn)


def check_trilinear(
    p: Problem, how: tuple[str, str, str], path: tuple[str, str], seed: int
) -> None:
    """<g, conv(x, w)> = <grad_input(g, w), x> = <grad_weight(g, x), w>."""
    t = random_tensors(p, torch.float64, seed)
    x, w, g = (VIEWS[h](v) for h, v in zip(how, (t.x, t.w, t.g), strict=True))
    data = Tensors(x, w, g, t.bias, t.bias_in)
    others = {"conv2d": g, "conv2d_grad_input": x, "conv2d_grad_weight": w}
    forms, scale = [], 0.0
    for op, other in others.items():
        call = make_call(op, p, data)
        if call.refusals(path[1])[path[0]] is not None:
            continue
        result = call.forced(*path)
        forms.append((result * other).sum().item())
        # The sum may cancel: errors are relative to the size of its terms.
        scale = max(scale, (result.norm() * other.norm()).item())
    assert max(forms, default=0) - min(forms, default=0) <= 1e-12 * scale


@_settings(150)
@given(problems(), st.tuples(views, views, views), st.sampled_from(PATHS), seeds)
def test_trilinear_form(p: Problem, how: Any, path: Any, seed: int) -> None:
    check_trilinear(p, how, path, seed)


@pytest.mark.slow
@_settings(2500)
@given(problems(), st.tuples(views, views, views), st.sampled_from(PATHS), seeds)
def test_trilinear_form_at_length(p: Problem, how: Any, path: Any, seed: int) -> None:
    check_trilinear(p, how, path, seed)


@every_op
@_settings(60)
@given(p=problems(), seed=seeds)
def test_linear_in_each_argument(op: str, p: Problem, seed: int) -> None:
    """op(a + a', b) = op(a, b) + op(a', b), and the same for b; op of zeros is zero."""
    first, second = (make_call(op, p, random_tensors(p, torch.float64, seed + i)) for i in (0, 1))

    def run(a: Tensor, b: Tensor) -> Tensor:
        return Call(op, a, b, first.size, None, p.params).run()

    whole = run(first.a + second.a, first.b)
    parts = run(first.a, first.b) + run(second.a, first.b)
    torch.testing.assert_close(whole, parts, rtol=1e-11, atol=1e-11)
    whole = run(first.a, first.b + second.b)
    parts = run(first.a, first.b) + run(first.a, second.b)
    torch.testing.assert_close(whole, parts, rtol=1e-11, atol=1e-11)
    assert not run(torch.zeros_like(first.a), first.b).any()


@_settings(60)
@given(p=problems(), seed=seeds)
def test_groups_are_independent_convolutions(p: Problem, seed: int) -> None:
    t = random_tensors(p, torch.float32, seed)
    channel = -1 - p.rank
    whole = make_call("conv2d", p, t, bias=True).run()
    parts = [
        torch.ops.dilconv.conv2d(x, w, b, *p.params[:3], 1)
        for x, w, b in zip(
            t.x.chunk(p.groups, channel), t.w.chunk(p.groups), t.bias.chunk(p.groups), strict=True
        )
    ]
    joined = torch.cat(parts, channel)
    error = (whole - joined).norm() / joined.norm().clamp_min(1e-30)
    assert whole.shape == joined.shape
    assert error <= 4 * FLOAT32_FLOOR
