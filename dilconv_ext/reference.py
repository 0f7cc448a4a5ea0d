"""The three operators in the most obvious way: slow, and right.

Each loops over the taps of the kernel, takes the strided slice of the padded input that a tap
touches, and contracts channels with ``einsum``. Nothing is shared with the kernels, nor with
torch's convolutions, nor with autograd; this is what the tests compare everything with.

The arguments are the operators' own (see ``dilconv_ext.ops``); ints are spelt out to all sides or
axes. The results are float64, complex128 for complex and int64 for integer inputs (whose arithmetic
wraps).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IntOrTuple = int | tuple[int, ...]


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrTuple = 1,
    padding: IntOrTuple = 0,
    dilation: IntOrTuple = 1,
    groups: int = 1,
) -> Tensor:
    """Return the cross-correlation of ``input`` with ``weight``.

    Args:
        input: (N, C, H, W) or (C, H, W); (N, C, L) or (C, L) in 1-D.
        weight: (O, C / groups, kh, kw); (O, C / groups, k) in 1-D.
        bias: (O,). Default: None.
        stride: int or (height, width). Default: 1.
        padding: int or (top, bottom, left, right); negative numbers crop. Default: 0.
        dilation: int or (height, width). Default: 1.
        groups: number of groups. Default: 1.

    Returns:
        (N, O, H', W'), with the dimensions that ``input`` lacks left out.

    Equivalent to: ``F.conv2d`` of the padded input, in float64.
    """
    dims, batched = weight.dim() - 2, input.dim() == weight.dim()
    x = _pad(_to_4d(input, dims, batched), _sides(padding))
    w = _by_group(_to_4d(weight, dims, True), groups)
    taps = _Taps(w.shape[-2:], _pair(stride), _pair(dilation))
    y = x.new_zeros(x.shape[0], groups, w.shape[1], *taps.output_size(x.shape[-2:]))
    for i, j in taps:
        slices = taps.slices(i, j, y.shape[-2:])
        pixels = x[:, :, slices[0], slices[1]].unflatten(1, (groups, -1))
        y += torch.einsum("ngchw,goc->ngohw", pixels, w[..., i, j])
    return _from_4d(_add_bias(y.flatten(1, 2), bias), dims, batched)


def conv2d_grad_input(
    grad_output: Tensor,
    weight: Tensor,
    input_size: tuple[int, ...],
    bias: Tensor | None = None,
    stride: IntOrTuple = 1,
    padding: IntOrTuple = 0,
    dilation: IntOrTuple = 1,
    groups: int = 1,
) -> Tensor:
    """Return the gradient of ``conv2d`` by its input, also known as the transposed convolution.

    Args:
        grad_output: (N, O, H', W') or (O, H', W'); (N, O, L') or (O, L') in 1-D.
        weight: (O, C / groups, kh, kw); (O, C / groups, k) in 1-D.
        input_size: (H, W); (L,) in 1-D.
        bias: (C,), added to the result. Default: None.
        stride: as in ``conv2d``.
        padding: as in ``conv2d``.
        dilation: as in ``conv2d``.
        groups: as in ``conv2d``.

    Returns:
        (N, C, H, W), with the dimensions that ``grad_output`` lacks left out.

    Equivalent to: ``F.conv_transpose2d`` whose output is cropped to ``input_size``, in float64.
    """
    dims, batched = weight.dim() - 2, grad_output.dim() == weight.dim()
    y = _to_4d(grad_output, dims, batched).unflatten(1, (groups, -1))
    w = _by_group(_to_4d(weight, dims, True), groups)
    top, bottom, left, right = _sides(padding)
    height, width = (1, *input_size)[-2:]
    taps = _Taps(w.shape[-2:], _pair(stride), _pair(dilation))
    padded = (height + top + bottom, width + left + right)
    x = y.new_zeros(y.shape[0], groups * w.shape[2], *padded)
    for i, j in taps:
        slices = taps.slices(i, j, y.shape[-2:])
        products = torch.einsum("ngohw,goc->ngchw", y, w[..., i, j])
        x[:, :, slices[0], slices[1]] += products.flatten(1, 2)
    x = _pad(x, (-top, -bottom, -left, -right))
    return _from_4d(_add_bias(x, bias), dims, batched)


def conv2d_grad_weight(
    grad_output: Tensor,
    input: Tensor,
    kernel_size: tuple[int, ...],
    stride: IntOrTuple = 1,
    padding: IntOrTuple = 0,
    dilation: IntOrTuple = 1,
    groups: int = 1,
) -> Tensor:
    """Return the gradient of ``conv2d`` by its weight.

    Args:
        grad_output: (N, O, H', W') or (O, H', W'); (N, O, L') or (O, L') in 1-D.
        input: (N, C, H, W) or (C, H, W); (N, C, L) or (C, L) in 1-D.
        kernel_size: (kh, kw); (k,) in 1-D.
        stride: as in ``conv2d``.
        padding: as in ``conv2d``.
        dilation: as in ``conv2d``.
        groups: as in ``conv2d``.

    Returns:
        (O, C / groups, kh, kw); (O, C / groups, k) in 1-D.

    Equivalent to: ``torch.nn.grad.conv2d_weight`` of the padded input, in float64.
    """
    dims = len(kernel_size)
    batched = input.dim() == dims + 2
    y = _to_4d(grad_output, dims, batched).unflatten(1, (groups, -1))
    x = _pad(_to_4d(input, dims, batched), _sides(padding)).unflatten(1, (groups, -1))
    kernel = (1, *kernel_size)[-2:]
    taps = _Taps(kernel, _pair(stride), _pair(dilation))
    w = y.new_zeros(groups, y.shape[2], x.shape[2], *kernel)
    for i, j in taps:
        slices = taps.slices(i, j, y.shape[-2:])
        w[..., i, j] = torch.einsum("ngohw,ngchw->goc", y, x[..., slices[0], slices[1]])
    return _from_4d(w.flatten(0, 1), dims, True)


class _Taps:
    """The taps (i, j) of a kernel, and which pixels of the padded input each one touches."""

    def __init__(self, kernel: Any, stride: tuple[int, ...], dilation: tuple[int, ...]) -> None:
        self.kernel, self.stride, self.dilation = tuple(kernel), stride, dilation

    def __iter__(self) -> Any:
        return ((i, j) for i in range(self.kernel[0]) for j in range(self.kernel[1]))

    def output_size(self, padded: Any) -> tuple[int, ...]:
        axes = zip(padded, self.kernel, self.stride, self.dilation, strict=True)
        return tuple((size - d * (k - 1) - 1) // s + 1 for size, k, s, d in axes)

    def slices(self, i: int, j: int, output_size: Any) -> tuple[slice, ...]:
        axes = zip((i, j), output_size, self.stride, self.dilation, strict=True)
        return tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, n, s, d in axes)


def _wide(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return tensor.to(torch.float64 if tensor.is_floating_point() else torch.int64)


def _to_4d(tensor: Tensor, dims: int, batched: bool) -> Tensor:
    tensor = _wide(tensor)
    tensor = tensor if batched else tensor.unsqueeze(0)
    return tensor if dims == 2 else tensor.unsqueeze(-2)


def _from_4d(tensor: Tensor, dims: int, batched: bool) -> Tensor:
    tensor = tensor if dims == 2 else tensor.squeeze(-2)
    return tensor if batched else tensor.squeeze(0)


def _by_group(weight: Tensor, groups: int) -> Tensor:
    return weight.unflatten(0, (groups, weight.shape[0] // groups))


def _add_bias(tensor: Tensor, bias: Tensor | None) -> Tensor:
    return tensor if bias is None else tensor + _wide(bias)[:, None, None]


def _pad(tensor: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Pad, then crop by the negative sides: a crop may reach into the other side's padding."""
    top, bottom, left, right = sides
    padded = F.pad(tensor, [max(side, 0) for side in (left, right, top, bottom)])
    return F.pad(padded, [min(side, 0) for side in (left, right, top, bottom)])


def _pair(value: IntOrTuple) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _sides(value: IntOrTuple) -> tuple[int, ...]:
    return (value,) * 4 if isinstance(value, int) else tuple(value)
