"""One row of the benchmark as calls: ours, F.conv2d's, and the float64 reference's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import dilconv_ext as dc
from dilconv_ext import ops, reference
from shapes import Shape, Sizes

DTYPES = ("float32", "float64", "bfloat16", "float16")
# tf32 is float32 that the GPU may multiply in TF32.
GPU_DTYPES = ("bfloat16", "tf32", "float32", "float16")
LAYOUTS = ("contiguous", "channels_last")
DIRECTIONS = ("forward", "grad_input", "grad_weight", "step")

# A result is wrong if its L2-relative error is larger. Rounding alone gives far less; the errors
# are printed too, for a finer judgement.
WRONG = {"float64": 1e-11, "float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2, "tf32": 5e-3}


@dataclass(frozen=True)
class Row:
    """What is measured: a layer, in one dtype and memory format, one way, and where.

    A step is the forward and the gradients of input, weight and bias through autograd. ``threads``
    are the CPU's.
    """

    shape: Shape
    dtype: str
    layout: str
    threads: int
    direction: str
    device: str = "cpu"

    def __str__(self) -> str:
        where = f"{self.threads} thr" if self.device == "cpu" else self.device
        return " ".join((self.shape.name, self.dtype, self.layout, where, self.direction))


def torch_dtype(name: str) -> torch.dtype:
    return torch.float32 if name == "tf32" else getattr(torch, name)


@dataclass(frozen=True)
class Data:
    """A layer's input, weight, bias, and the gradient of its output."""

    x: Tensor
    w: Tensor
    b: Tensor
    g: Tensor

    def map(self, f: Callable[[Tensor], Tensor]) -> Data:
        """The same with ``f`` applied to each tensor."""
        return Data(f(self.x), f(self.w), f(self.b), f(self.g))


@lru_cache(maxsize=2)
def data(shape: Shape, dtype: str, device: str, layout: str) -> Data:
    """Normal numbers, the same ones every time and in both layouts."""
    if layout == "channels_last":
        return data(shape, dtype, device, "contiguous").map(_channels_last)
    generator = torch.Generator(device).manual_seed(0)
    sizes = (shape.input_shape, shape.weight_shape, (shape.c_out,), shape.output_shape)
    numbers = (torch.randn(size, generator=generator, device=device) for size in sizes)
    return Data(*(tensor.to(torch_dtype(dtype)) for tensor in numbers))


def data_of(row: Row) -> Data:
    return data(row.shape, row.dtype, row.device, row.layout)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _two(axes: Sizes, height: int) -> Sizes:
    """The numbers of both axes; in 1-D the height's is ``height``."""
    return axes if len(axes) == 2 else (height, *axes)


def op_call(shape: Shape, direction: str, t: Data) -> tuple[str, tuple[Any, ...]]:
    """The operator that computes one direction of a layer, and its arguments.

    A transposed layer is an ordinary convolution's grad_input, and the other way round.
    """
    pads = _two(shape.padding, 0)
    less = _two(shape.output_padding, 0)
    sides = (pads[0], pads[0] - less[0], pads[1], pads[1] - less[1])
    geometry = (_two(shape.stride, 1), sides, _two(shape.dilation, 1), shape.groups)
    if direction == "grad_weight":
        operands = (t.x, t.g) if shape.transposed else (t.g, t.x)
        return "conv2d_grad_weight", (*operands, shape.kernel, *geometry)
    tensor, bias = (t.x, t.b) if direction == "forward" else (t.g, None)
    if (direction == "forward") == shape.transposed:
        return "conv2d_grad_input", (tensor, t.w, shape.image_size, bias, *geometry)
    return "conv2d", (tensor, t.w, bias, *geometry)


@lru_cache(maxsize=3)
def exact(shape: Shape, dtype: str, device: str, direction: str) -> Tensor:
    """The result in float64, from the numbers as ``dtype`` holds them."""
    t = data(shape, dtype, device, "contiguous").map(Tensor.double)
    name, arguments = op_call(shape, direction, t)
    return getattr(reference, name)(*arguments)


def results(row: Row, value: Any) -> dict[str, Tensor]:
    """What a call returned, by direction; a step returns both gradients (and the bias's)."""
    if row.direction == "step":
        return {"grad_input": value[0], "grad_weight": value[1]}
    if isinstance(value, Tensor):
        return {row.direction: value}
    return {row.direction: value[("grad_input", "grad_weight").index(row.direction)]}


def error(row: Row, value: Any) -> float:
    """The L2-relative error of what a call returned: NaN for NaNs, inf for a wrong shape.

    It is absolute where the right result is zero, because all taps lie in the padding.
    """

    def relative(result: Tensor, right: Tensor) -> float:
        if result.shape != right.shape:
            return float("inf")
        difference = torch.linalg.vector_norm(result.double() - right).item()
        norm = torch.linalg.vector_norm(right).item()
        return difference / norm if norm else difference

    found = results(row, value).items()
    kind = (row.shape, row.dtype, row.device)
    errors = [relative(result, exact(*kind, one)) for one, result in found]
    return max(errors) if all(e == e for e in errors) else float("nan")


def is_wrong(row: Row, found: float) -> bool:
    """Whether an error is no rounding error."""
    return not found <= WRONG[row.dtype]


def _layer(shape: Shape) -> tuple[str, tuple[Any, ...]]:
    """The name of a layer's function, here and in torch, and its arguments after the bias."""
    geometry = (shape.stride, shape.padding)
    if shape.transposed:
        last = (shape.output_padding, shape.groups, shape.dilation)
        return "conv_transpose2d", (*geometry, *last)
    return f"conv{shape.rank}d", (*geometry, shape.dilation, shape.groups)


def _step(layer: Callable[..., Tensor], leaves: Sequence[Tensor], rest: Any, g: Tensor) -> Any:
    return torch.autograd.grad(layer(*leaves, *rest), leaves, g)


def _layer_call(row: Row, t: Data, functional: Any) -> Callable[[], Any]:
    """The forward or the step by ``functional``, which is ours or torch's."""
    name, rest = _layer(row.shape)
    layer = getattr(functional, name)
    if row.direction == "forward":
        return partial(layer, t.x, t.w, t.b, *rest)
    leaves = [tensor.detach().requires_grad_() for tensor in (t.x, t.w, t.b)]
    return partial(_step, layer, leaves, rest, t.g)


def ours(row: Row, t: Data | None = None) -> Callable[[], Any]:
    """dilconv_ext's call: the public function, or the operator of one gradient.

    ``t`` takes the place of the row's data.
    """
    t = t or data_of(row)
    if row.direction in ("forward", "step"):
        return _layer_call(row, t, dc.functional)
    name, arguments = op_call(row.shape, row.direction, t)
    return partial(getattr(ops, name), *arguments)


def baseline(row: Row, t: Data | None = None) -> Callable[[], Any]:
    """torch's call: F.conv2d (F.conv1d, …), or what its autograd calls for one gradient."""
    t, s = t or data_of(row), row.shape
    if row.direction in ("forward", "step"):
        return _layer_call(row, t, F)
    mask = [row.direction == "grad_input", row.direction == "grad_weight", False]
    geometry = (s.stride, s.padding, s.dilation, s.transposed, s.output_padding, s.groups)
    backward = torch.ops.aten.convolution_backward.default
    return partial(backward, t.g, t.x, t.w, None, *geometry, mask)


SIDES = {"ours": ours, "baseline": baseline}


def kernels(row: Row) -> list[tuple[str, int]]:
    """Our kernels for the row and their workspace in bytes, as ``dilconv_ext.explain`` says."""
    t, s = data_of(row), row.shape
    _, arguments = op_call(s, "grad_input" if s.transposed else "forward", t)
    image, weight, _, stride, sides, dilation, groups = arguments
    if s.rank == 1:
        stride, sides, dilation = stride[1], sides[2:], dilation[1]
    plan = dc.explain(image, weight, None, stride, sides, dilation, groups)
    forward, grad_input = plan.forward, plan.grad_input
    if s.transposed:
        forward, grad_input = grad_input, forward
    by_direction = {
        "forward": [forward],
        "grad_input": [grad_input],
        "grad_weight": [plan.grad_weight],
        "step": [forward, grad_input, plan.grad_weight],
    }
    return [(c.kernel or "none", c.workspace_bytes) for c in by_direction[row.direction]]


def backend(row: Row) -> str:
    """Which implementation torch selects, as ``torch._C._select_conv_backend`` says."""
    t, s = data_of(row), row.shape
    x = t.x.detach().requires_grad_(row.direction != "forward")
    geometry = (s.stride, s.padding, s.dilation, s.transposed, s.output_padding, s.groups)
    # Python's enumeration of them lacks some, such as oneDNN's transposed convolution.
    return torch._C._select_conv_backend(x, t.w, t.b, *geometry).name.replace("???", "unnamed")


def small(row: Row) -> Row:
    """The same call on next to nothing: it loads code and starts threads, and needs no memory.

    With fewer samples F.conv2d may choose another implementation than for larger layers.
    """
    shape = row.shape
    size = tuple(d * (k - 1) + 1 for k, d in zip(shape.kernel, shape.dilation, strict=True))
    groups = min(shape.groups, 2)
    tiny = {"n": 16, "c_in": groups, "c_out": groups, "groups": groups, "size": size}
    return replace(row, shape=replace(shape, **tiny))
