"""Convolution of images that are spread over several processes, each with a slab of rows.

For images too large for one device, and long recordings: every process (rank) of a group holds
consecutive rows (or columns), fetches the rows around its own that its outputs read (the halo: up
to ``dilation * (kernel_size - 1)`` of them, from as many ranks as they lie on), and computes its
slab of the output. Backward returns the halo's gradients to the ranks that own the rows.

Rank r owns the output rows y with ``y * stride`` in its input rows, so that layers follow one
another without moving data; rows beyond go to the last rank. Slabs need not be equal.

Importing this module also registers how DTensor shards the operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.tensor
from torch import Tensor
from torch.autograd import Function

from . import _sharding, ops
from ._arguments import IntOrPair, pair
from .modules import DilatedConv2d
from .padding import Padding, numeric_pads, string_pads

__all__ = ["SpatialConv2d", "conv2d", "gather", "shard"]

_sharding.register_if_used()

Group = dist.ProcessGroup | None
Span = tuple[int, int]  # rows from the first, included, to the last, excluded


def shard(tensor: Tensor, dim: int = -2, group: Group = None) -> Tensor:
    """Return this rank's slab of a tensor that every rank has: a view, as even as may be.

    Args:
        tensor: any.
        dim: the dimension to split. Default: -2, rows.
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
    sizes = _slab_sizes(tensor, dim, group)
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
    rank gets a slab; to rounding. All ranks must call it, with the same arguments but ``input``.
    The gradients of ``weight`` and ``bias`` are summed over the ranks: with a loss that is summed
    over ranks too, every rank has those of one process, and needs no DistributedDataParallel.

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
    if dim not in (-2, -1):
        raise ValueError(f"dim must be -2 (rows) or -1 (columns), but got dim={dim}")
    steps, spread = pair("stride", stride), pair("dilation", dilation)
    sizes = _slab_sizes(input, dim, group) if sizes is None else list(sizes)
    image = [int(n) for n in input.shape[-2:]]
    image[dim] = sum(sizes)
    kernel = [int(n) for n in weight.shape[-2:]]
    if isinstance(padding, str):
        pads = list(string_pads(padding, image, kernel, steps, spread))
    else:
        pads = list(numeric_pads(padding, axes=2))
    axis = dim + 2
    window = _Window(kernel[axis], steps[axis], spread[axis], pads[2 * axis], pads[2 * axis + 1])
    plan = _Plan.make(window, sizes, dist.get_rank(group), dim, group)
    # Every rank takes part in every exchange, backward too: also one that has no outputs.
    weight = _Copy.apply(weight, group)
    bias = None if bias is None else _Copy.apply(bias, group)
    rows = _Exchange.apply(input, plan)
    pads[2 * axis : 2 * axis + 2] = plan.pads
    result = ops.conv2d(rows, weight, bias, steps, tuple(pads), spread, groups)
    return result.narrow(dim, 0, plan.outputs)


class SpatialConv2d(DilatedConv2d):
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

    def __init__(self, *arguments: Any, dim: int = -2, group: Group = None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if self.padding_mode != "zeros":
            raise ValueError(f"padding_mode must be 'zeros', but got {self.padding_mode!r}")
        self.dim = dim
        self.group = group

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return conv2d(
            input,
            weight,
            bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            dim=self.dim,
            group=self.group,
        )


@dataclass(frozen=True)
class _Window:
    """A convolution along the split axis."""

    kernel: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def reach(self) -> int:
        return self.dilation * (self.kernel - 1)

    def outputs(self, rows: int) -> int:
        """How many outputs the whole axis has."""
        return (rows + self.before + self.after - self.reach - 1) // self.stride + 1

    def reads(self, outputs: Span) -> Span:
        """The rows that some outputs read, those of the padding included."""
        first, last = outputs[0] * self.stride, (outputs[1] - 1) * self.stride
        return first - self.before, last - self.before + self.reach + 1


@dataclass(frozen=True)
class _Plan:
    """Which rows this rank gets from whom, and gives to whom, in rows of the whole image."""

    dim: int
    group: Group
    own: Span
    outputs: int
    rows: Span  # what this rank's convolution reads, of the image
    pads: Span  # and how many rows of padding around them; negative crops
    receive: dict[int, Span]
    send: dict[int, Span]

    @staticmethod
    def make(window: _Window, sizes: Sequence[int], rank: int, dim: int, group: Group) -> _Plan:
        ends = list(accumulate(sizes))
        slabs = [(end - size, end) for size, end in zip(sizes, ends, strict=True)]
        total = window.outputs(ends[-1])
        if total < 1:
            raise RuntimeError(
                f"Kernel size {window.reach + 1} can't be greater than actual input size "
                f"{ends[-1] + window.before + window.after} along the split axis"
            )
        firsts = [min(-(-start // window.stride), total) for start, _ in slabs]
        owned = list(zip(firsts, [*firsts[1:], total], strict=True))
        computed = [_at_least_one(span, total) for span in owned]
        wanted = [_rows_of(span, window, ends[-1]) for span in computed]
        mine = wanted[rank]
        first, last = window.reads(computed[rank])
        pads = (mine[0] - first, last - mine[1])
        others = [other for other in range(len(sizes)) if other != rank]
        receive = {other: _common(mine, slabs[other]) for other in others}
        send = {other: _common(wanted[other], slabs[rank]) for other in others}
        return _Plan(
            dim,
            group,
            slabs[rank],
            owned[rank][1] - owned[rank][0],
            mine,
            pads,
            {other: span for other, span in receive.items() if span[0] < span[1]},
            {other: span for other, span in send.items() if span[0] < span[1]},
        )


def _at_least_one(outputs: Span, total: int) -> Span:
    """A rank without outputs computes one and drops it, and so takes part as the others do."""
    if outputs[0] < outputs[1]:
        return outputs
    first = min(outputs[0], total - 1)
    return first, first + 1


def _rows_of(outputs: Span, window: _Window, height: int) -> Span:
    """The rows of the image that outputs read: at least one, also where all is padding."""
    first, last = window.reads(outputs)
    first = min(max(first, 0), height - 1)
    return first, max(min(last, height), first + 1)


def _common(a: Span, b: Span) -> Span:
    return max(a[0], b[0]), min(a[1], b[1])


def _slab_sizes(tensor: Tensor, dim: int, group: Group) -> list[int]:
    mine = torch.tensor([tensor.shape[dim]], device=tensor.device)
    sizes = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(sizes, mine, group=group)
    return [int(size) for size in sizes]


def _rows_like(tensor: Tensor, dim: int, count: int) -> Tensor:
    """An uninitialised tensor as ``tensor``, memory format included, with ``count`` rows."""
    shape = list(tensor.shape)
    shape[dim] = count
    empty = tensor.new_empty(shape)
    last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return empty.contiguous(memory_format=torch.channels_last) if last else empty


def _swap(
    tensor: Tensor, plan: _Plan, give: dict[int, Span], take: dict[int, Span], base: int
) -> dict[int, Tensor]:
    """Send parts of ``tensor``, whose first row is ``base``; return what was received."""
    sent, transfers = [], []
    received: dict[int, Tensor] = {}
    for other, (first, last) in give.items():
        sent.append(tensor.narrow(plan.dim, first - base, last - first).contiguous())
        transfers.append(dist.P2POp(dist.isend, sent[-1], group=plan.group, group_peer=other))
    for other, (first, last) in take.items():
        shape = list(tensor.shape)
        shape[plan.dim] = last - first
        received[other] = tensor.new_empty(shape)
        transfers.append(
            dist.P2POp(dist.irecv, received[other], group=plan.group, group_peer=other)
        )
    for work in dist.batch_isend_irecv(transfers) if transfers else ():
        work.wait()
    return received


class _Exchange(Function):
    """This rank's slab → the rows that its outputs read."""

    @staticmethod
    def forward(ctx: Any, slab: Tensor, plan: _Plan) -> Tensor:
        ctx.plan = plan
        received = _swap(slab, plan, plan.send, plan.receive, plan.own[0])
        first, last = plan.rows
        rows = _rows_like(slab, plan.dim, last - first)
        parts = [(span, received[other]) for other, span in plan.receive.items()]
        kept = _common(plan.rows, plan.own)
        if kept[0] < kept[1]:
            own = slab.narrow(plan.dim, kept[0] - plan.own[0], kept[1] - kept[0])
            parts.append((kept, own))
        for (start, end), part in parts:
            rows.narrow(plan.dim, start - first, end - start).copy_(part)
        return rows

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Return.apply(grad, ctx.plan), None


class _Return(Function):
    """The adjoint of ``_Exchange``: rows go back to their owners and are added up there."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, plan: _Plan) -> Tensor:
        ctx.plan = plan
        received = _swap(rows, plan, plan.receive, plan.send, plan.rows[0])
        slab = _rows_like(rows, plan.dim, plan.own[1] - plan.own[0]).zero_()
        kept = _common(plan.rows, plan.own)
        parts = [(plan.send[other], received[other]) for other in sorted(received)]
        if kept[0] < kept[1]:
            own = rows.narrow(plan.dim, kept[0] - plan.rows[0], kept[1] - kept[0])
            parts.append((kept, own))
        for (start, end), part in parts:
            slab.narrow(plan.dim, start - plan.own[0], end - start).add_(part)
        return slab

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Exchange.apply(grad, ctx.plan), None


class _Copy(Function):
    """The identity of what all ranks have; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Sum.apply(grad, ctx.group), None


class _Sum(Function):
    """The sum of what the ranks have, for all of them; its gradient is one for each term."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Group) -> Tensor:
        ctx.group = group
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Copy.apply(grad, ctx.group), None
