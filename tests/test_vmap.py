"""torch.vmap of the three ops, over every combination of batched arguments, against a loop."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from accuracy import assert_agrees
from calls import OPS, Call, make_call
from problems import Problem, make_tensors

B = 3
VMAP_PROBLEMS = [
    Problem("plain", 2, 3, 4, (6, 7), (3, 2), (2, 1), (1, 2, 0, 1), (1, 2)),
    Problem("groups", 2, 4, 6, (5, 6), (3, 3), padding=(1, 1, 1, 1), groups=2),
    Problem("depthwise", 1, 3, 6, (5, 6), (3, 3), padding=(2, 2, 2, 2), dilation=(2, 2), groups=3),
    Problem("unbatched", None, 3, 4, (6, 5), (3, 3)),
    Problem("1d", 2, 4, 6, (9,), (3,), (1, 2), (0, 0, 2, 1), (1, 2), groups=2),
    Problem("1d_unbatched", None, 2, 3, (9,), (3,)),
    Problem("batch_0", 0, 2, 3, (4, 4), (3, 3)),
]


def stack(t: Tensor | None, dim: int | None) -> Tensor | None:
    """``t`` itself, or B different multiples of it along a new axis ``dim``."""
    if t is None or dim is None:
        return t
    return torch.stack([t * (i + 1) for i in range(B)], dim)


def check(call: Call, in_dims: tuple[int | None, ...], out_dim: int = 0) -> None:
    """vmap of ``call`` over its tensors equals the loop, by a batching rule and not a fallback."""
    tensors = (call.a, call.b, call.bias)
    batched = [stack(t, d) for t, d in zip(tensors, in_dims, strict=True)]

    def f(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
        return Call(call.op, a, b, call.size, bias, call.params).run()

    def at(i: int) -> list[Any]:
        pairs = zip(batched, in_dims, strict=True)
        return [t if t is None or d is None else t.select(d, i) for t, d in pairs]

    dims = tuple(None if t is None else d for t, d in zip(tensors, in_dims, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "there is a performance drop" is the fallback's warning
        actual = torch.vmap(f, in_dims=dims, out_dims=out_dim)(*batched)
    expected = torch.stack([f(*at(i)) for i in range(B)], out_dim)
    assert_agrees(actual, expected, f"{call} in_dims={in_dims}")


@pytest.mark.parametrize("p", VMAP_PROBLEMS, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_every_combination_of_in_dims(op: str, p: Problem) -> None:
    t = make_tensors(p, torch.float64)
    for bias in (False, True):
        call = make_call(op, p, t, bias)
        for in_dims in itertools.product((0, 1, -1, None), (0, 2, None), (0, -1, None)):
            if any(d is not None for d in in_dims[:2]) or (
                call.bias is not None and in_dims[2] is not None
            ):
                check(call, in_dims)


@pytest.mark.parametrize("op", OPS)
def test_out_dims_and_nesting(op: str) -> None:
    p = VMAP_PROBLEMS[1]
    call = make_call(op, p, make_tensors(p, torch.float64))
    check(call, (0, None, None), out_dim=-1)

    def f(a: Tensor, b: Tensor) -> Tensor:
        return Call(op, a, b, call.size, None, call.params).run()

    a = torch.stack([call.a, 2 * call.a])
    b = torch.stack([call.b, 3 * call.b, call.b.sin()])
    actual = torch.vmap(torch.vmap(f, in_dims=(None, 0)), in_dims=(0, None))(a, b)
    expected = torch.stack([torch.stack([f(u, v) for v in b]) for u in a])
    assert_agrees(actual, expected)


@pytest.mark.parametrize("op", OPS)
def test_an_empty_or_single_batch(op: str) -> None:
    p = VMAP_PROBLEMS[0]
    call = make_call(op, p, make_tensors(p, torch.float64))

    def f(a: Tensor) -> Tensor:
        return Call(op, a, call.b, call.size, None, call.params).run()

    assert_agrees(torch.vmap(f)(call.a.unsqueeze(0)), f(call.a).unsqueeze(0))


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.int32, torch.complex64], ids=str
)
@pytest.mark.parametrize("op", OPS)
def test_dtypes(op: str, dtype: torch.dtype) -> None:
    p = VMAP_PROBLEMS[1]
    call = make_call(op, p, make_tensors(p, dtype), bias=True)
    for in_dims in ((0, None, None), (None, 0, None), (0, 0, 0)):
        check(call, in_dims)
