"""The GPU's kernels on the emulated GPU: problems, dtypes and derivatives of the ordinary tests.

The emulator checks each launch too: bounds, alignment, races, barriers (tests/cuda_emulator).
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import emulated_gpu
from accuracy import assert_matches, relative_error, solve_problem
from calls import FLOATS, INTEGERS, OPS, Call, all_calls, make_call
from dilconv_ext import reference
from emulated_gpu import CAPABILITIES, SCHEDULES, Gpu
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
from test_autograd import TINY

if not emulated_gpu.LIBRARY.exists():
    pytest.skip(
        "the emulated GPU was not built: `make emulator` (needs libboost-context-dev)",
        allow_module_level=True,
    )

FORMATS = {"contiguous": lambda t: t, "channels_last": channels_last}
TF32_BOUND = 2.0**-10  # each factor is rounded to 11 bits


def allowed(p: Problem, dtype: torch.dtype, op: str, limit: float) -> float:
    """The relative error a kernel may have where torch's, on the CPU, allows it ``limit``.

    Tensor cores and threads of a GPU add products one after the other, torch on the CPU in several
    sums. K roundings of partial sums, of relative size 2**-24 at most, add up to about
    0.4 * sqrt(K) * 2**-24 of the result.
    """
    if dtype == torch.float64 or not dtype.is_floating_point:
        return limit
    terms = {
        "conv2d": math.prod(p.weight_shape[1:]),
        "conv2d_grad_input": p.c_out // p.groups * math.prod(p.kernel),
        "conv2d_grad_weight": (1 if p.n is None else p.n) * math.prod(p.output_size),
    }[op]
    summing = 2.0**-24 * math.sqrt(terms)
    return max(limit, summing) if dtype == torch.float32 else limit + 2 * summing


def _sweep() -> list[Any]:
    return [
        pytest.param(
            p,
            kernel,
            dtype,
            id=f"{p}-{kernel}-{str(dtype).removeprefix('torch.')}",
            marks=pytest.mark.slow(sample=200),
        )
        for p in PROBLEMS
        for kernel in emulated_gpu.kernels()
        for dtype in FLOATS + INTEGERS
        if not p.slow
    ]


@pytest.mark.parametrize(("p", "kernel", "dtype"), _sweep())
def test_kernel_on_problem(p: Problem, kernel: str, dtype: torch.dtype) -> None:
    """Every capability, format and schedule; all schedules give the same bits."""
    for call in all_calls(p, dtype):
        exact, limit = solve_problem(p, dtype, call.op, call.bias is not None)
        limit = allowed(p, dtype, call.op, limit)
        for name, to_format in FORMATS.items():
            formatted = call.map(to_format)
            for capability in CAPABILITIES:
                if Gpu(kernel, capability).refusal(formatted):
                    continue
                results = [
                    formatted.run(Gpu(kernel, capability, schedule)) for schedule in SCHEDULES
                ]
                what = f"{call} {name} sm_{capability}"
                assert_matches(results[0], exact, limit, dtype, what)
                for schedule, result in zip(SCHEDULES, results, strict=True):
                    assert torch.equal(result, results[0]), f"{what} {schedule}"


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    "p", [p for p in PROBLEMS if re.search("(pad|crop)_(tiles|phases)", p.name)], ids=str
)
def test_tiles_in_the_padding(p: Problem, op: str) -> None:
    """A depthwise tile without a tap inside the image reads nothing, from shared memory neither."""
    call = make_call(op, p, make_tensors(p, torch.float32))
    exact, limit = solve_problem(p, torch.float32, op, False)
    limit = allowed(p, torch.float32, op, limit)
    assert_matches(call.run(Gpu("depthwise")), exact, limit, torch.float32, f"{op} {p}")


@pytest.mark.slow
@pytest.mark.parametrize("p", [p for p in PROBLEMS if not p.slow], ids=str)
@pytest.mark.parametrize("op", OPS)
def test_default_selection(op: str, p: Problem) -> None:
    """What runs when no kernel is named: it is right, and it is the emulated GPU that runs it."""
    call = make_call(op, p, make_tensors(p, torch.float32))
    before = emulated_gpu.threads_run()
    exact, limit = solve_problem(p, torch.float32, op, False)
    limit = allowed(p, torch.float32, op, limit)
    assert_matches(call.run(Gpu()), exact, limit, torch.float32, call)
    assert exact.numel() == 0 or emulated_gpu.threads_run() > before


@pytest.mark.slow
@pytest.mark.parametrize("p", [p for p in PROBLEMS if not p.slow], ids=str)
@pytest.mark.parametrize("op", OPS)
def test_tf32(op: str, p: Problem) -> None:
    """Where TF32 is allowed, the result errs by no more than its rounding."""
    call = make_call(op, p, make_tensors(p, torch.float32))
    exact, _ = solve_problem(p, torch.float32, op, False)
    assert relative_error(call.run(Gpu(allow_tf32=True)), exact) <= TF32_BOUND


# Sums in parts: a batch that takes wider tiles than a sample, and more samples than are launched at
# once; small images that share tiles.
BATCHES = [
    pytest.param(
        Problem("split_launches", 9, 64, 128, (8, 16), (2, 2), (1, 1), (5, 0, 9, 0), (5, 9)),
        marks=pytest.mark.slow(sample=2),
        id="split_launches",
    ),
    pytest.param(Problem("split_shared", 7, 72, 40, (4, 5), (2, 2), padding=(0, 1, 1, 0))),
]


@pytest.mark.parametrize("kernel", ["tensor_cores", "simt"])
@pytest.mark.parametrize("p", BATCHES)
def test_a_sample_has_the_same_bits_in_any_batch(p: Problem, kernel: str) -> None:
    t = make_tensors(p, torch.float16).map(channels_last)
    call = make_call("conv2d", p, t, bias=True)
    exact, limit = solve_problem(p, torch.float16, "conv2d", True)
    whole = call.run(Gpu(kernel))
    assert_matches(whole, exact, allowed(p, torch.float16, "conv2d", limit), torch.float16, call)
    for sample in (0, len(whole) - 1):
        alone = replace(call, a=t.x[sample : sample + 1])
        assert torch.equal(alone.run(Gpu(kernel))[0], whole[sample])


@pytest.mark.parametrize("kernel", emulated_gpu.kernels())
@pytest.mark.parametrize("op", OPS)
def test_any_strides(op: str, kernel: str) -> None:
    """Transposed, sliced, misaligned and expanded tensors are read in place, or refused."""
    p = problem("channels_16_to_48")
    call = make_call(op, p, make_tensors(p, torch.float32))

    gpu = Gpu(kernel)
    for view in (transposed, sliced, misaligned):
        viewed = call.map(view)
        exact, limit = solve_problem(p, torch.float32, op, False)
        limit = allowed(p, torch.float32, op, limit)
        if gpu.refusal(viewed):
            continue
        assert_matches(viewed.run(gpu), exact, limit, torch.float32, f"{op} {view.__name__}")


# Windows that end before the image does, taps in the padding, sums that end within a slice or a
# chunk, and each form and tile of the depthwise kernel.
WINDOWS = (
    "plain_3x3",
    "channels_3_to_20",
    "channels_24_to_112",
    "channels_33_to_65",
    "channels_130_to_40",
    "kernel_1x1_padded",
    "kernel_5x5_dilated",
    "stride_over_kernel",
    "stride_3_dilated_2",
    "pad_asymmetric",
    "pad_negative",
    "aspp_12",
    "groups_3_strided",
    "depthwise_20",
    "depthwise_strided",
    "depthwise_pairs",
    "depthwise_7x7",
    "depthwise_pad_tiles",
    "depthwise_uneven_pad",
    "channel_multiplier_3",
)


@pytest.mark.slow(sample=8)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("kernel", emulated_gpu.kernels())
@pytest.mark.parametrize("name", WINDOWS)
def test_infinities_stay_in_their_windows(name: str, kernel: str, dtype: torch.dtype) -> None:
    """No zero that stands for padding, or fills up a sum, is multiplied with an infinite pixel.

    In grad_weight the padding of x meets y: there x has the infinities.
    """
    p = problem(name)
    t = make_tensors(p, dtype)
    for image in (t.x, t.g):
        image[0, 0, 0, 0] = math.inf
        image[-1, -1, -1, -1] = -math.inf
    for op in OPS:
        finite = make_tensors(p, dtype)
        call = make_call(op, p, replace(t, g=finite.g) if op == "conv2d_grad_weight" else t)
        exact = call.map(Tensor.double).run(reference)
        for layout, to_format in FORMATS.items():
            formatted = call.map(to_format)
            for capability in CAPABILITIES:
                gpu = Gpu(kernel, capability, allow_tf32=True)
                if gpu.refusal(formatted):
                    continue
                result = formatted.run(gpu).double()
                for mark in (Tensor.isnan, Tensor.isposinf, Tensor.isneginf):
                    assert torch.equal(mark(result), mark(exact)), f"{op} {layout} {capability}"


def refusal_of_depthwise(op: str, shape: tuple[int, ...], to_format: Any) -> str | None:
    """Of a 1×1 convolution of tensors so large that they have no data."""
    x = to_format(torch.empty(shape, device="meta"))
    w = torch.empty(shape[1], 1, 1, 1, device="meta")
    a, b = {"conv2d": (x, w), "conv2d_grad_input": (x, w), "conv2d_grad_weight": (x, x)}[op]
    size = {"conv2d": None, "conv2d_grad_input": shape[2:], "conv2d_grad_weight": (1, 1)}[op]
    params = ((1, 1), (0, 0, 0, 0), (1, 1), shape[1])
    return Gpu("depthwise").refusal(Call(op, a, b, size, None, params))


@pytest.mark.parametrize("op", OPS)
def test_depthwise_counts_planes_with_a_step_to_spare(op: str) -> None:
    """The loop over planes goes a step past the last, which must not overflow."""
    assert refusal_of_depthwise(op, (1 << 30, 1, 1, 1), channels_last) is None
    refusal = refusal_of_depthwise(op, ((1 << 31) - 2, 1, 1, 1), channels_last)
    assert "counts planes" in str(refusal)


@pytest.mark.parametrize("op", OPS)
def test_only_planes_are_limited_to_32_bit_offsets(op: str) -> None:
    shape = (1, 64, 8192, 8192)
    assert refusal_of_depthwise(op, shape, channels_last) is None
    narrow = refusal_of_depthwise(
        op, shape, lambda t: t.as_strided(t.shape, (1, 1 << 30, 8, 1 << 18))
    )
    assert "offsets within an image's plane" in str(narrow)


@pytest.mark.parametrize("kernel", emulated_gpu.kernels())
def test_a_gpu_without_code_is_named(kernel: str) -> None:
    """And the error is not left for torch's next check to report as its own."""
    dtype = torch.float16 if kernel == "tensor_cores" else torch.float32
    p = problem("depthwise")
    call = make_call("conv2d", p, make_tensors(p, dtype))
    gpu = Gpu(kernel, 110, allow_tf32=True)
    with pytest.raises(RuntimeError, match=r"no kernels for compute capability 11\.0"):
        call.run(gpu)
    assert emulated_gpu.last_error() == 0
    assert "no kernels for compute capability 11.0" in str(gpu.refusal(call))


class _Op(torch.autograd.Function):
    """One of the three ops on the GPU; its derivatives are the two others, on the GPU."""

    @staticmethod
    def forward(
        ctx: Any, gpu: Gpu, op: str, a: Tensor, b: Tensor, size: Any, params: Any
    ) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.call = gpu, op, params
        return Call(op, a, b, size, None, params).run(gpu)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        a, b = ctx.saved_tensors
        gpu, op, params = ctx.call
        # T(x, w, y) is linear in each: the derivative by one is the op that writes it.
        x, w, y = {"conv2d": (a, b, g), "conv2d_grad_input": (g, b, a)}.get(op, (b, g, a))
        axes = w.dim() - 2

        def write(name: str) -> Tensor:
            if name == "x":
                return _Op.apply(gpu, "conv2d_grad_input", y, w, tuple(x.shape[-axes:]), params)
            if name == "w":
                return _Op.apply(gpu, "conv2d_grad_weight", y, x, tuple(w.shape[2:]), params)
            return _Op.apply(gpu, "conv2d", x, w, None, params)

        first, second, _ = emulated_gpu.PLACES[op]
        return None, None, write(first), write(second), None, None


def _gradient_rows() -> list[Any]:
    """Each tiny problem by default selection, and by every kernel that takes all its ops."""
    rows = []
    for p in TINY:
        calls = [make_call(op, p, make_tensors(p, torch.float64)) for op in OPS]
        for kernel in (None, *emulated_gpu.kernels()):
            if kernel is None or not any(map(Gpu(kernel).refusal, calls)):
                rows.append(pytest.param(p, kernel, id=f"{p}-{kernel}"))
    return rows


@pytest.mark.slow
@pytest.mark.parametrize(("p", "kernel"), _gradient_rows())
@pytest.mark.parametrize("op", OPS)
def test_gradients(op: str, p: Problem, kernel: str | None) -> None:
    """First and second derivatives in float64."""
    call = make_call(op, p, make_tensors(p, torch.float64))
    gpu = Gpu(kernel)

    def f(a: Tensor, b: Tensor) -> Tensor:
        return _Op.apply(gpu, op, a, b, call.size, call.params)

    tensors = (call.a.clone().requires_grad_(), call.b.clone().requires_grad_())
    gradcheck(f, tensors)
    gradgradcheck(f, tensors)
