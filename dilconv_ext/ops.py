"""The three operators, their rules for ``torch.vmap`` and their FLOP counts.

The operators are defined in C++, with their autograd, autocast and shape rules. Their schemas are

    conv2d(input, weight, bias=None, *geometry) -> Tensor
    conv2d_grad_input(grad_output, weight, input_size, bias=None, *geometry) -> Tensor
    conv2d_grad_weight(grad_output, input, kernel_size, *geometry) -> Tensor

where geometry is stride (height, width), padding (top, bottom, left, right), dilation (height,
width) and groups, by default 1, 0, 1 and 1. Negative padding crops. The weight has four dimensions
(O, C / groups, kh, kw), or three in 1-D (O, C / groups, k), and the other tensors have as many, or
one fewer for a single sample without N. In 1-D the heights are 1: stride (1, s), padding
(0, 0, l, r), dilation (1, d).

``LIBRARY`` is the path of the shared library that defines them. It has no Python in it: a C++
program that runs an exported model loads it (``examples/deployment``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ._load import LIBRARY as LIBRARY  # loading it has defined the operators

conv2d = torch.ops.dilconv.conv2d.default
conv2d_grad_input = torch.ops.dilconv.conv2d_grad_input.default
conv2d_grad_weight = torch.ops.dilconv.conv2d_grad_weight.default

Op = Callable[..., Tensor]
Geometry = tuple[Any, ...]  # stride, padding, dilation, groups
InDims = tuple[int | None, ...]  # where each argument has the vmapped dimension, if it has


# vmap. A dimension B that vmap adds is folded into the samples N where the weight lacks it, and
# into channels where the weight has it. Channels are laid out (groups, channels of the group): B
# goes in front where both operands have it (B times as many groups), and between the two where all
# of B share one operand (each group has B times as many channels of the other). Dimensions are
# counted from the end, so that 1-D, 2-D, batched and unbatched samples are alike.


def _fold(tensor: Tensor, batch_dim: int, dim: int, groups: int) -> Tensor:
    """Lay the vmapped dimension inside ``dim`` (negative): (groups, B, size of dim / groups)."""
    tensor = tensor.movedim(batch_dim, 0)
    tensor = tensor.unflatten(dim, (groups, tensor.shape[dim] // groups))
    return tensor.movedim(0, dim - 1).flatten(dim - 2, dim)


def _unfold(tensor: Tensor, batch_size: int, dim: int, groups: int) -> Tensor:
    """Undo ``_fold``: the vmapped dimension comes out in front."""
    size = tensor.shape[dim] // (groups * batch_size)
    tensor = tensor.unflatten(dim, (groups, batch_size, size))
    return tensor.movedim(dim - 1, 0).flatten(dim - 1, dim)


def _vmap_one_weight(
    op: Op, in_dims: InDims, data: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry
) -> Tensor:
    """Apply ``op`` where data or bias has the vmapped dimension, and the weight does not."""
    data_in, _, bias_in = in_dims
    axes = weight.dim() - 2
    if data_in is not None:
        data = data.movedim(data_in, 0)
    sizes = data.shape[: -(axes + 1)]  # of B and N, as far as there are any
    if len(sizes) == 2:
        data = data.flatten(0, 1)
    result = op(data, weight, bias if bias_in is None else None, *geometry)
    if len(sizes) == 2:
        result = result.unflatten(0, sizes)
    if bias is not None and bias_in is not None:
        bias = bias.movedim(bias_in, 0)
        samples = len(sizes) - (data_in is not None)
        result = result + bias.reshape(bias.shape[0], *[1] * samples, -1, *[1] * axes)
    return result


def _vmap_weights(
    op: Op,
    batch_size: int,
    in_dims: InDims,
    data: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    result_dim: int,
) -> Tensor:
    """Apply ``op`` where the weight has the vmapped dimension.

    ``result_dim`` says which of the weight's dimensions becomes the result's channels: 0 is O, 1 is
    C / groups.
    """
    data_in, weight_in, bias_in = in_dims
    assert weight_in is not None
    *window, groups = geometry
    channel = 2 - weight.dim()  # counted from the end: -3, or -2 in 1-D
    if data_in is None:
        inner, outer = groups, groups
        # Only O runs over all groups.
        weight = _fold(
            weight, weight_in, channel - 1 + result_dim, groups if result_dim == 0 else 1
        )
    else:
        inner, outer = groups * batch_size, 1
        data = _fold(data, data_in, channel, 1)
        weight = _fold(weight, weight_in, channel - 1, 1)
    if bias is not None:
        if bias_in is None:
            bias, bias_in = bias.expand(batch_size, -1), 0
        bias = _fold(bias, bias_in, -1, outer)
    result = op(data, weight, bias, *window, inner)
    return _unfold(result, batch_size, channel, outer)


def conv2d_vmap(
    op: Op,
    info: Any,
    in_dims: InDims,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = (1, 1),
    padding: Any = (0, 0, 0, 0),
    dilation: Any = (1, 1),
    groups: int = 1,
) -> tuple[Tensor, int]:
    """Return the vmapped result of ``op``, which computes ``conv2d``, and where B is in it."""
    dims = (*in_dims, None)[:3]
    geometry = (stride, padding, dilation, groups)
    if dims[1] is None:
        return _vmap_one_weight(op, dims, input, weight, bias, geometry), 0
    return _vmap_weights(op, info.batch_size, dims, input, weight, bias, geometry, 0), 0


def conv2d_grad_input_vmap(
    op: Op,
    info: Any,
    in_dims: InDims,
    grad_output: Tensor,
    weight: Tensor,
    input_size: Any,
    bias: Tensor | None = None,
    stride: Any = (1, 1),
    padding: Any = (0, 0, 0, 0),
    dilation: Any = (1, 1),
    groups: int = 1,
) -> tuple[Tensor, int]:
    """Return the vmapped result of ``op``, which computes ``conv2d_grad_input``, and B's place."""

    def sized(grad: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:
        return op(grad, weight, input_size, bias, *geometry)

    grad_in, weight_in, _, bias_in = (*in_dims, None)[:4]
    dims = (grad_in, weight_in, bias_in)
    geometry = (stride, padding, dilation, groups)
    if weight_in is None:
        return _vmap_one_weight(sized, dims, grad_output, weight, bias, geometry), 0
    return _vmap_weights(sized, info.batch_size, dims, grad_output, weight, bias, geometry, 1), 0


def conv2d_grad_weight_vmap(
    op: Op,
    info: Any,
    in_dims: InDims,
    grad_output: Tensor,
    input: Tensor,
    kernel_size: Any,
    stride: Any = (1, 1),
    padding: Any = (0, 0, 0, 0),
    dilation: Any = (1, 1),
    groups: int = 1,
) -> tuple[Tensor, int]:
    """Return the vmapped result of ``op``, which computes ``conv2d_grad_weight``, and B's place."""
    grad_in, input_in = in_dims[:2]
    channel = -(len(kernel_size) + 1)
    inner, outer = groups, 1
    dim = channel - 1  # of the result, where B comes out: O, or C / groups
    if grad_in is None:
        assert input_in is not None
        dim = channel
        input = _fold(input, input_in, channel, groups)
    elif input_in is None:
        outer = groups
        grad_output = _fold(grad_output, grad_in, channel, groups)
    else:
        inner = groups * info.batch_size
        grad_output = _fold(grad_output, grad_in, channel, 1)
        input = _fold(input, input_in, channel, 1)
    result = op(grad_output, input, kernel_size, stride, padding, dilation, inner)
    return _unfold(result, info.batch_size, dim, outer), 0


for _op, _rule in (
    (conv2d, conv2d_vmap),
    (conv2d_grad_input, conv2d_grad_input_vmap),
    (conv2d_grad_weight, conv2d_grad_weight_vmap),
):
    torch.library.register_vmap(_op, partial(_rule, _op))


# FLOPs, by the rule of torch's own formulas: two for every product of a tap with a pixel, those
# with padding included. Each operator has N * H' * W' * (elements of the weight) products. (torch's
# formula for the weight's gradient forgets the groups, and counts so many times as much.)


def _flops(grad_output_shape: Any, weight_shape: Any) -> int:
    spatial = len(weight_shape) - 2
    samples = grad_output_shape[: -(spatial + 1)]
    return 2 * prod(samples) * prod(grad_output_shape[-spatial:]) * prod(weight_shape)


@register_flop_formula(torch.ops.dilconv.conv2d)
def _conv2d_flops(input_shape: Any, weight_shape: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    return _flops(out_shape, weight_shape)


@register_flop_formula(torch.ops.dilconv.conv2d_grad_input)
def _grad_input_flops(grad_output_shape: Any, weight_shape: Any, *_: Any, **__: Any) -> int:
    return _flops(grad_output_shape, weight_shape)


@register_flop_formula(torch.ops.dilconv.conv2d_grad_weight)
def _grad_weight_flops(grad_output_shape: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    return _flops(grad_output_shape, out_shape)
