"""Convolutions of which every rank computes its part: what ``dilconv_ext.distributed`` calls."""

from __future__ import annotations

from collections.abc import Sequence

import torch.distributed as dist
from torch import Tensor

from . import ops
from ._arguments import IntOrPair, per_axis
from ._halo import Copy, Exchange, Group, Plan, TransposedWindow, Window, slab_sizes
from ._transposed import transposed_geometry
from .padding import Padding, numeric_pads, string_pads


def spread_conv(
    axes: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: IntOrPair,
    padding: Padding,
    dilation: IntOrPair,
    groups: int,
    dim: int,
    group: Group,
    sizes: Sequence[int] | None,
) -> Tensor:
    """Return this rank's part of a convolution over ``axes``; see ``distributed.conv2d``."""
    steps, spread = per_axis("stride", stride, axes), per_axis("dilation", dilation, axes)
    sizes = slab_sizes(input, dim, group) if sizes is None else sizes
    whole, kernel = whole_size(axes, input, dim, sizes), weight.shape[-axes:]
    if isinstance(padding, str):
        pads = string_pads(padding, whole, kernel, steps, spread)
    else:
        pads = numeric_pads(padding, axes)
    window = Window(kernel[dim], steps[dim], spread[dim], *_sides(pads, dim))
    plan = Plan.make(window, sizes, dist.get_rank(group), dim, group)
    rows, weight, bias = _spread_out(input, weight, bias, plan)
    geometry = ((1, *steps)[-2:], _with_sides(pads, plan), (1, *spread)[-2:], groups)
    return ops.conv2d(rows, weight, bias, *geometry).narrow(dim, 0, plan.outputs)


def spread_conv_transpose(
    axes: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: IntOrPair,
    padding: Padding,
    output_padding: IntOrPair,
    groups: int,
    dilation: IntOrPair,
    dim: int,
    group: Group,
    sizes: Sequence[int] | None,
) -> Tensor:
    """Return this rank's part of a transposed one; see ``distributed.conv_transpose2d``."""
    sizes = slab_sizes(input, dim, group) if sizes is None else sizes
    whole, kernel = whole_size(axes, input, dim, sizes), weight.shape[-axes:]
    size, steps, pads, spread = transposed_geometry(
        whole, kernel, stride, padding, output_padding, dilation
    )
    sides = _sides(pads, dim)
    window = TransposedWindow(kernel[dim], steps[dim], spread[dim], *sides, length=size[dim])
    plan = Plan.make(window, sizes, dist.get_rank(group), dim, group)
    rows, weight, bias = _spread_out(input, weight, bias, plan)
    mine = list(size)
    mine[dim] = plan.computed
    geometry = (steps, _with_sides(pads, plan), spread, groups)
    result = ops.conv2d_grad_input(rows, weight, mine, bias, *geometry)
    return result.narrow(dim, 0, plan.outputs)


def whole_size(axes: int, input: Tensor, dim: int, sizes: Sequence[int]) -> list[int]:
    """Return the whole image's (H, W) or (L,)."""
    whole = list(input.shape[-axes:])
    whole[dim] = sum(sizes)
    return whole


def _sides(pads: Sequence[int], dim: int) -> tuple[int, int]:
    """What ``pads`` has before and after the split axis."""
    return pads[2 * dim + 4], pads[2 * dim + 5]


def _with_sides(pads: Sequence[int], plan: Plan) -> tuple[int, ...]:
    """``pads`` with the plan's before and after the split axis."""
    return (*plan.pads, *pads[2:]) if plan.dim == -2 else (*pads[:2], *plan.pads)


def _spread_out(
    input: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the rows to convolve, and the parameters with gradients that ranks add up.

    Every rank takes part in every exchange, backward too: also one that has no outputs.
    """
    weight = Copy.apply(weight, plan.group)
    bias = None if bias is None else Copy.apply(bias, plan.group)
    return Exchange.apply(input, plan), weight, bias
