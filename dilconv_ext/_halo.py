"""Which rows of a spread-out image each rank needs, and how it gets them, forward and backward.

A rank (process) of a group holds consecutive rows, its slab, and computes consecutive outputs. A
window says which rows some outputs read, a plan which of them lie on which other rank, and the
autograd Functions move them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function

Group = dist.ProcessGroup | None
Span = tuple[int, int]  # rows from the first, included, to the last, excluded


def slab_sizes(tensor: Tensor, dim: int, group: Group) -> list[int]:
    """Return how many rows each rank has."""
    mine = torch.tensor([tensor.shape[dim]], device=tensor.device)
    sizes = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(sizes, mine, group=group)
    return [int(size) for size in sizes]


@dataclass(frozen=True)
class Window:
    """A convolution along the split axis."""

    kernel: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def reach(self) -> int:
        """How far the last tap is from the first."""
        return self.dilation * (self.kernel - 1)

    def outputs(self, rows: int) -> int:
        """How many outputs the whole axis has.

        Raises:
            RuntimeError: none.
        """
        padded = rows + self.before + self.after
        if padded <= self.reach:
            raise RuntimeError(
                f"Kernel size {self.reach + 1} can't be greater than actual input size {padded} "
                "along the split axis"
            )
        return (padded - self.reach - 1) // self.stride + 1

    def first_output(self, row: int) -> int:
        """The first output that belongs to the rows from ``row`` on."""
        return -(-row // self.stride)

    def reads(self, outputs: Span) -> Span:
        """The rows that some outputs read, those of the padding included."""
        first, last = outputs[0] * self.stride, (outputs[1] - 1) * self.stride
        return first - self.before, last - self.before + self.reach + 1

    def pads(self, outputs: Span, rows: Span) -> Span:
        """The padding with which ``rows`` alone give ``outputs``; negative crops."""
        first, last = self.reads(outputs)
        return rows[0] - first, last - rows[1]


@dataclass(frozen=True)
class TransposedWindow(Window):
    """A transposed convolution along the split axis, whose full output ``before`` crops."""

    length: int
    """Of the whole output, which says what is cropped at the other end."""

    def outputs(self, rows: int) -> int:
        """How many outputs the whole axis has: not all of them need be reached by a row.

        Raises:
            RuntimeError: none.
        """
        if self.length < 1:
            raise RuntimeError(f"the calculated output size along the split axis is {self.length}")
        return self.length

    def first_output(self, row: int) -> int:
        """The first output that belongs to the rows from ``row`` on."""
        return row * self.stride

    def reads(self, outputs: Span) -> Span:
        """The rows that reach some outputs, and would-be rows beyond the ends."""
        first, last = outputs[0] + self.before, outputs[1] - 1 + self.before
        return -((self.reach - first) // self.stride), last // self.stride + 1

    def pads(self, outputs: Span, rows: Span) -> Span:
        """How much of the full output of ``rows`` alone is cropped to ``outputs``."""
        before = self.before + outputs[0] - rows[0] * self.stride
        full = (rows[1] - rows[0] - 1) * self.stride + self.reach + 1
        return before, full - before - (outputs[1] - outputs[0])


@dataclass(frozen=True)
class Plan:
    """Which rows this rank gets from whom, and gives to whom, in rows of the whole image."""

    dim: int
    group: Group
    own: Span
    outputs: int
    computed: int  # outputs, but at least one
    rows: Span  # what this rank's convolution reads, of the image
    pads: Span  # and how many rows of padding around them; negative crops
    receive: dict[int, Span]
    send: dict[int, Span]

    @staticmethod
    def make(window: Window, sizes: Sequence[int], rank: int, dim: int, group: Group) -> Plan:
        """Return the plan of ``rank`` where the ranks have ``sizes`` rows."""
        ends = list(accumulate(sizes))
        slabs = [(end - size, end) for size, end in zip(sizes, ends, strict=True)]
        total = window.outputs(ends[-1])
        firsts = [min(window.first_output(start), total) for start, _ in slabs]
        owned = list(zip(firsts, [*firsts[1:], total], strict=True))
        computed = [_at_least_one(span, total) for span in owned]
        wanted = [_rows_of(span, window, ends[-1]) for span in computed]
        others = [other for other in range(len(sizes)) if other != rank]
        receive = {other: _common(wanted[rank], slabs[other]) for other in others}
        send = {other: _common(wanted[other], slabs[rank]) for other in others}
        return Plan(
            dim,
            group,
            slabs[rank],
            owned[rank][1] - owned[rank][0],
            computed[rank][1] - computed[rank][0],
            wanted[rank],
            window.pads(computed[rank], wanted[rank]),
            {other: span for other, span in receive.items() if span[0] < span[1]},
            {other: span for other, span in send.items() if span[0] < span[1]},
        )


def _at_least_one(outputs: Span, total: int) -> Span:
    """A rank without outputs computes one and drops it, and so takes part as the others do."""
    if outputs[0] < outputs[1]:
        return outputs
    first = min(outputs[0], total - 1)
    return first, first + 1


def _rows_of(outputs: Span, window: Window, height: int) -> Span:
    """The rows of the image that outputs read: at least one, also where all is padding."""
    first, last = window.reads(outputs)
    first = min(max(first, 0), height - 1)
    return first, max(min(last, height), first + 1)


def _common(a: Span, b: Span) -> Span:
    return max(a[0], b[0]), min(a[1], b[1])


def _rows_like(tensor: Tensor, dim: int, count: int) -> Tensor:
    """An uninitialised tensor as ``tensor``, memory format included, with ``count`` rows."""
    shape = list(tensor.shape)
    shape[dim] = count
    empty = tensor.new_empty(shape)
    last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return empty.contiguous(memory_format=torch.channels_last) if last else empty


def _swap(
    tensor: Tensor, plan: Plan, give: dict[int, Span], take: dict[int, Span], base: int
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


class Exchange(Function):
    """This rank's slab → the rows that its outputs read."""

    @staticmethod
    def forward(ctx: Any, slab: Tensor, plan: Plan) -> Tensor:
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
    """The adjoint of ``Exchange``: rows go back to their owners and are added up there."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, plan: Plan) -> Tensor:
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
        return Exchange.apply(grad, ctx.plan), None


class Copy(Function):
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
        return Copy.apply(grad, ctx.group), None
