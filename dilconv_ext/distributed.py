"""Convolution of images and recordings that are spread over several processes.

For what is too large for one device: every process (rank) of a group holds consecutive rows (or
columns, or samples), its slab; it fetches the rows around its own that its outputs read (the halo:
up to ``dilation * (kernel_size - 1)`` of them, from as many ranks as they lie on), and computes its
slab of the output. Backward returns the halo's gradients to the ranks that own the rows.

Rank r owns the output rows y with ``y * stride`` in its input rows, and of a transposed convolution
those from ``stride`` times its first input row on, so that layers follow one another without moving
data; rows beyond go to the last rank. Slabs need not be equal.

In all functions: all ranks must call them, with the same arguments but ``input``. The gradients of
``weight`` and ``bias`` are summed over the ranks: with a loss that is summed over ranks too, every
rank has those of one process, and needs no DistributedDataParallel.

Importing this module also registers how DTensor shards the operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.tensor
from torch import Tensor, nn

from . import _sharding
from ._arguments import IntOrPair
from ._halo import Group, slab_sizes
from ._spread import spread_conv, spread_conv_transpose, whole_size
from .modules import (
    DilatedConv1d,
    DilatedConv2d,
    DilatedConvTranspose1d,
    DilatedConvTranspose2d,
)
from .padding import Padding

__all__ = [
    "SpatialConv1d",
    "SpatialConv2d",
    "SpatialConvTranspose1d",
    "SpatialConvTranspose2d",
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "gather",
    "shard",
]

_sharding.register_if_used()


def shard(tensor: Tensor, dim: int = -2, group: Group = None) -> Tensor:
    """Return this rank's slab of a tensor that every rank has: a view, as even as may be.

    Args:
        tensor: any.
        dim: the dimension to split. Default: -2, rows; -1 for columns, or samples in 1-D.
        group: the ranks. Default: None, all.
    """
    return tensor.tensor_split(dist.get_world_size(group), dim)[dist.get_rank(group)]


def gather(tensor: Tensor, dim: int = -2, group: Group = None) -> Tensor:
    """Return the whole tensor of which every rank has a slab, on every rank, without gradients.

    Args:
        tensor: this rank's slab. Slabs may differ in size along ``dim`` only.
        dim: the dimension along which they are joined. Default: -2, rows.
        group: the ranks. Default: None, all.
    """
    sizes = slab_sizes(tensor, dim, group)
    parts = []
    for rank, size in enumerate(sizes):
        shape = list(tensor.shape)
        shape[dim] = size
        part = tensor.detach().contiguous() if rank == dist.get_rank(group) else None
        buffer = tensor.new_empty(shape) if part is None else part
        dist.broadcast(buffer, group=group, group_src=rank)
        parts.append(buffer)
    return torch.cat(parts, dim)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    dim: int = -2,
    group: Group = None,
    sizes: Sequence[int] | None = None,
) -> Tensor:
    """Dilated 2-D cross-correlation of an image of which each rank has a slab.

    Equivalent to: ``dilconv_ext.functional.conv2d`` of the whole image on one device, of which each
    rank gets a slab; to rounding.

    Args:
        input: this rank's slab, (N, C, h, W) or (C, h, W); h may be 0 on some ranks.
        weight: (O, C / groups, kh, kw), the same on all ranks.
        bias: (O,), the same on all ranks. Default: None.
        stride: int or (height, width), positive. Default: 1.
        padding: as for ``dilconv_ext.functional.conv2d``; it is that of the whole image. Default:
            0.
        dilation: int or (height, width), positive. Default: 1.
        groups: C and O are split into so many parts that do not meet. Default: 1.
        dim: -2 if ranks have rows, -1 if they have columns. Default: -2.
        group: the ranks. Default: None, all.
        sizes: every rank's h. Default: None: they are asked of all ranks first.

    Returns:
        This rank's slab of the output, (N, O, h', W') or (O, h', W').

    Raises:
        ValueError: ``dim`` is neither -2 nor -1.
        RuntimeError: as ``dilconv_ext.functional.conv2d``.
    """
    _check_dim(dim)
    arguments = (input, weight, bias, stride, padding, dilation, groups)
    return spread_conv(2, *arguments, dim, group, sizes)


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    group: Group = None,
    sizes: Sequence[int] | None = None,
) -> Tensor:
    """Dilated 1-D cross-correlation of a recording of which each rank has a part.

    Equivalent to: ``dilconv_ext.functional.conv1d`` of the whole recording on one device, of which
    each rank gets a part; to rounding.

    Args:
        input: this rank's part, (N, C, l) or (C, l); l may be 0 on some ranks.
        weight: (O, C / groups, k), the same on all ranks.
        bias: (O,), the same on all ranks. Default: None.
        stride: int or (int,), positive. Default: 1.
        padding: as for ``dilconv_ext.functional.conv1d``, of the whole recording. Default: 0.
        dilation: int or (int,), positive. Default: 1.
        groups: C and O are split into so many parts that do not meet. Default: 1.
        group: the ranks. Default: None, all.
        sizes: every rank's l. Default: None: they are asked of all ranks first.

    Returns:
        This rank's part of the output, (N, O, l') or (O, l').

    Raises:
        RuntimeError: as ``dilconv_ext.functional.conv1d``.
    """
    arguments = (input, weight, bias, stride, padding, dilation, groups)
    return spread_conv(1, *arguments, -1, group, sizes)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    output_padding: IntOrPair = 0,
    groups: int = 1,
    dilation: IntOrPair = 1,
    *,
    dim: int = -2,
    group: Group = None,
    sizes: Sequence[int] | None = None,
) -> Tensor:
    """Transposed dilated 2-D convolution of an image of which each rank has a slab.

    Equivalent to: ``dilconv_ext.functional.conv_transpose2d`` of the whole image on one device, of
    which each rank gets a slab; to rounding.

    Args:
        input: this rank's slab, (N, C, h, W) or (C, h, W); h may be 0 on some ranks.
        weight: (C, O / groups, kh, kw), the same on all ranks.
        bias: (O,), the same on all ranks. Default: None.
        stride: int or (height, width), positive. Default: 1.
        padding: as for ``dilconv_ext.functional.conv_transpose2d``, of the whole image. Default: 0.
        output_padding: int or (height, width), added after the last row and column. Default: 0.
        groups: C and O are split into so many parts that do not meet. Default: 1.
        dilation: int or (height, width), positive. Default: 1.
        dim: -2 if ranks have rows, -1 if they have columns. Default: -2.
        group: the ranks. Default: None, all.
        sizes: every rank's h. Default: None: they are asked of all ranks first.

    Returns:
        This rank's slab of the output, (N, O, h', W') or (O, h', W').

    Raises:
        ValueError: ``dim`` is neither -2 nor -1.
        RuntimeError: as ``dilconv_ext.functional.conv_transpose2d``.
    """
    _check_dim(dim)
    arguments = (input, weight, bias, stride, padding, output_padding, groups, dilation)
    return spread_conv_transpose(2, *arguments, dim, group, sizes)


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    output_padding: IntOrPair = 0,
    groups: int = 1,
    dilation: IntOrPair = 1,
    *,
    group: Group = None,
    sizes: Sequence[int] | None = None,
) -> Tensor:
    """Transposed dilated 1-D convolution of a recording of which each rank has a part.

    Equivalent to: ``dilconv_ext.functional.conv_transpose1d`` of the whole recording on one device,
    of which each rank gets a part; to rounding.

    Args:
        input: this rank's part, (N, C, l) or (C, l); l may be 0 on some ranks.
        weight: (C, O / groups, k), the same on all ranks.
        bias: (O,), the same on all ranks. Default: None.
        stride: int or (int,), positive. Default: 1.
        padding: as for ``dilconv_ext.functional.conv_transpose1d``, of the whole recording.
            Default: 0.
        output_padding: int or (int,), added after the last sample. Default: 0.
        groups: C and O are split into so many parts that do not meet. Default: 1.
        dilation: int or (int,), positive. Default: 1.
        group: the ranks. Default: None, all.
        sizes: every rank's l. Default: None: they are asked of all ranks first.

    Returns:
        This rank's part of the output, (N, O, l') or (O, l').

    Raises:
        RuntimeError: as ``dilconv_ext.functional.conv_transpose1d``.
    """
    arguments = (input, weight, bias, stride, padding, output_padding, groups, dilation)
    return spread_conv_transpose(1, *arguments, -1, group, sizes)


def _check_dim(dim: int) -> None:
    if dim not in (-2, -1):
        raise ValueError(f"dim must be -2 (rows) or -1 (columns), but got dim={dim}")


class _Spatial(nn.Module):
    """What the layers here share; the layer for one device comes after it in their bases."""

    padding_mode: Any
    kernel_size: tuple[int, ...]
    dim = -1

    def __init__(self, *arguments: Any, group: Group = None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if self.padding_mode != "zeros":
            raise ValueError(f"padding_mode must be 'zeros', but got {self.padding_mode!r}")
        self.group = group

    def _input_size(self, input: Tensor) -> Sequence[int]:
        sizes = slab_sizes(input, self.dim, self.group)
        return whole_size(len(self.kernel_size), input, self.dim, sizes)


class _SpatialPlane(_Spatial):
    """The same in 2-D, where rows or columns may be split."""

    def __init__(self, *arguments: Any, dim: int = -2, group: Group = None, **named: Any) -> None:
        super().__init__(*arguments, group=group, **named)
        self.dim = dim


class SpatialConv2d(_SpatialPlane, DilatedConv2d):
    """``DilatedConv2d`` of images of which each rank has a slab.

    Equivalent to: ``DilatedConv2d`` on the whole image, with the same arguments and ``state_dict``.
    Every rank must hold the same parameters: seed alike, or broadcast them.

    Args:
        *arguments: those of ``DilatedConv2d``, also by name. ``padding_mode`` must be 'zeros'.
        dim: -2 if ranks have rows, -1 if they have columns. Default: -2.
        group: the ranks. Default: None, all.
        **named: those of ``DilatedConv2d``.

    Shape:
        As ``dilconv_ext.distributed.conv2d``.

    Raises:
        ValueError: another ``padding_mode``.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        geometry: Any = (self.stride, self.padding, self.dilation, self.groups)
        return conv2d(input, weight, bias, *geometry, dim=self.dim, group=self.group)


class SpatialConv1d(_Spatial, DilatedConv1d):
    """``DilatedConv1d`` of recordings of which each rank has a part.

    Equivalent to: ``DilatedConv1d`` on the whole recording, as ``SpatialConv2d`` in 2-D.

    Args:
        *arguments: those of ``DilatedConv1d``, also by name. ``padding_mode`` must be 'zeros'.
        group: the ranks. Default: None, all.
        **named: those of ``DilatedConv1d``.

    Shape:
        As ``dilconv_ext.distributed.conv1d``.

    Raises:
        ValueError: another ``padding_mode``.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        geometry: Any = (self.stride, self.padding, self.dilation, self.groups)
        return conv1d(input, weight, bias, *geometry, group=self.group)


class SpatialConvTranspose2d(_SpatialPlane, DilatedConvTranspose2d):
    """``DilatedConvTranspose2d`` of images of which each rank has a slab.

    Equivalent to: ``DilatedConvTranspose2d`` on the whole image, as ``SpatialConv2d``. The layer's
    ``output_size`` is that of the whole image too.

    Args:
        *arguments: those of ``DilatedConvTranspose2d``, also by name.
        dim: -2 if ranks have rows, -1 if they have columns. Default: -2.
        group: the ranks. Default: None, all.
        **named: those of ``DilatedConvTranspose2d``.

    Shape:
        As ``dilconv_ext.distributed.conv_transpose2d``.
    """

    def _transpose(self, input: Tensor, output_padding: tuple[int, ...]) -> Tensor:
        geometry: Any = (self.stride, self.padding, output_padding, self.groups, self.dilation)
        where: Any = {"dim": self.dim, "group": self.group}
        return conv_transpose2d(input, self.weight, self.bias, *geometry, **where)


class SpatialConvTranspose1d(_Spatial, DilatedConvTranspose1d):
    """``DilatedConvTranspose1d`` of recordings of which each rank has a part.

    Equivalent to: ``DilatedConvTranspose1d`` on the whole recording, as ``SpatialConvTranspose2d``
    in 2-D.

    Args:
        *arguments: those of ``DilatedConvTranspose1d``, also by name.
        group: the ranks. Default: None, all.
        **named: those of ``DilatedConvTranspose1d``.

    Shape:
        As ``dilconv_ext.distributed.conv_transpose1d``.
    """

    def _transpose(self, input: Tensor, output_padding: tuple[int, ...]) -> Tensor:
        geometry: Any = (self.stride, self.padding, output_padding, self.groups, self.dilation)
        return conv_transpose1d(input, self.weight, self.bias, *geometry, group=self.group)
