"""How close is close enough, stated once.

Everything is compared by the L2-relative error against ``dilconv_ext.reference`` in float64
(complex128, int64). The bounds:

- float64, complex128: 1e-12. A sum of K products errs by about sqrt(K) * 1.1e-16, K < 1e5 here.
- float32: twice the error of torch's own convolution of the same data, which is the promise users
  care about; but never less than FLOAT32_FLOOR, to which a GPU may add ``chain_error``.
- complex64: the same. It is made of three real convolutions, (a + b)(c + d) - ac - bd being the
  imaginary part, so the floor is sqrt(2) higher: (1 + 1) + (4 + 1 + 1) error terms, not 4.
- float16, bfloat16: a kernel must accumulate in float32 and round once, at the end. If d is the
  error before that rounding, rounding moves the result by at most |round(exact) - exact| + 2 d: the
  bound is the first term, computed, plus twice the float32 bound. Rounding twice breaks it.
- integers: exact, modulo 2**bits.

The kernel winograd trades accuracy for speed; in float32 its bound is WINOGRAD_FLOAT32.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

import torch_peer
from calls import Call, make_call
from dilconv_ext import reference
from problems import Problem, make_tensors

FLOAT64_BOUND = 1e-12
# Two units in the last place. Below it, on the small problems that F.conv2d hands to a matrix
# library, a comparison of relative errors compares luck.
FLOAT32_FLOOR = 2.0**-22

WINOGRAD_FLOAT32 = 5e-6

# Pixels that a GPU adds one by one in grad_weight, unless partial sums would take too much:
# kMostPixels of csrc/cuda/gemm/planner_weight.cpp.
MOST_PIXELS = 8192

# For two results of the same dtype of which neither is exact (ours and torch's): twice the error
# one of them may have.
AGREEMENT = {
    torch.float64: 2e-12,
    torch.complex128: 2e-12,
    torch.float32: 2e-6,
    torch.complex64: 2e-6,
    torch.float16: 2.0**-10,
    torch.complex32: 2.0**-10,
    torch.bfloat16: 2.0**-7,
}


def widest(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which ``reference`` computes: float64, complex128 or int64."""
    if dtype.is_complex:
        return torch.complex128
    return torch.float64 if dtype.is_floating_point else torch.int64


def relative_error(actual: Tensor, exact: Tensor) -> float:
    """||actual - exact|| / ||exact||; 0 for two zeros (or nothing), inf if only exact is zero."""
    assert actual.shape == exact.shape, f"shape {tuple(actual.shape)}, not {tuple(exact.shape)}"
    wide = widest(exact.dtype)
    actual, exact = actual.to("cpu", wide), exact.to("cpu", wide)
    difference = torch.linalg.vector_norm(actual - exact).item()
    norm = torch.linalg.vector_norm(exact).item()
    if difference == 0:
        return 0.0
    return difference / norm if norm else float("inf")


def chain_error(call: Call) -> float:
    """The relative error to expect of a float32 convolution that adds its K products one by one.

    GPUs' kernels do; of grad_weight, whose products are one for each pixel, in parts of at most
    MOST_PIXELS. A step rounds the partial sum by 2**-24 of it at most, a third of the square of
    that on average, and the partial sums' squares grow evenly: sqrt(K / 2) * 2**-24 / sqrt(3).
    """
    products: int
    if call.op == "conv2d_grad_weight":
        axes = len(call.size or ())
        pixels = call.a.numel() // max(1, call.a.size(-axes - 1))
        products = min(pixels, MOST_PIXELS)
    else:
        out_channels, in_channels = call.b.shape[:2]
        channels = in_channels if call.op == "conv2d" else out_channels // call.params[-1]
        products = channels * call.b[0, 0].numel() if call.b.numel() else 0
    return (products / 6) ** 0.5 * 2.0**-24


def bound(call: Call, exact: Tensor) -> float:
    """The relative error a kernel may have on ``call``, whose exact result is ``exact``."""
    dtype = call.a.dtype
    if dtype in (torch.float64, torch.complex128):
        return FLOAT64_BOUND
    if dtype in (torch.float32, torch.complex64):
        floor = FLOAT32_FLOOR + (chain_error(call) if call.a.is_cuda else 0.0)
        floor *= 2**0.5 if dtype.is_complex else 1
        return max(2 * relative_error(call.run(torch_peer), exact), floor)
    in_float32 = bound(call.map(lambda t: t.to(torch.float32)), exact)
    return relative_error(exact.to(dtype), exact) + 2 * in_float32


def bound_of(kernel: str, dtype: torch.dtype, limit: float) -> float:
    """The relative error that ``kernel`` may have where ``limit`` is that of an exact summation."""
    if kernel != "winograd" or dtype in (torch.float64, torch.complex128):
        return limit
    if dtype == torch.float32:
        return max(limit, WINOGRAD_FLOAT32)
    return limit + 2 * WINOGRAD_FLOAT32


def assert_within(actual: Tensor, exact: Tensor, limit: float, what: object = "") -> None:
    """``actual`` is finite and its relative error against ``exact`` is at most ``limit``."""
    assert torch.isfinite(actual).all(), f"{what}: not finite"
    error = relative_error(actual, exact)
    assert error <= limit, f"{what}: relative error {error:.3g} > {limit:.3g}"


def assert_accurate(call: Call, actual: Tensor, what: object = "") -> None:
    """``actual`` is the result of ``call``, within the bound of its dtype."""
    assert_matches(actual, *solve(call), call.a.dtype, what or call)


def assert_matches(
    actual: Tensor, exact: Tensor, limit: float, dtype: torch.dtype, what: object
) -> None:
    """As ``assert_accurate``, with the exact result and the bound at hand."""
    assert actual.dtype == dtype, f"{what}: dtype {actual.dtype}, not {dtype}"
    if exact.dtype == torch.int64:
        # int64 arithmetic wraps modulo 2**64, and so does the conversion to a narrower integer.
        assert torch.equal(actual.cpu(), exact.to(dtype)), f"{what}: integers differ"
    else:
        assert_within(actual, exact, limit, what)


def assert_agrees(actual: Tensor, expected: Tensor, what: object = "") -> None:
    """``actual`` agrees with torch's ``expected``: dtype, shape, and values within AGREEMENT."""
    assert actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype}, not {expected.dtype}"
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    if actual.dtype in AGREEMENT:
        assert_within(actual, expected, AGREEMENT[actual.dtype], what)
    else:
        assert torch.equal(actual, expected), f"{what}: integers differ"


def solve(call: Call) -> tuple[Tensor, float]:
    """The exact result of ``call`` and the bound for its dtype (0 for integers)."""
    dtype = call.a.dtype
    exact = call.map(lambda t: t.to("cpu", widest(dtype))).run(reference)
    return exact, bound(call, exact) if exact.dtype != torch.int64 else 0.0


@cache
def solve_problem(
    problem: Problem, dtype: torch.dtype, op: str, bias: bool
) -> tuple[Tensor, float]:
    """``solve`` for a named problem, remembered: every kernel is held against the same result."""
    return solve(make_call(op, problem, make_tensors(problem, dtype), bias))
