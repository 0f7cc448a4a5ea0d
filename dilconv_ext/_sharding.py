"""How DTensor runs the operators: which placements of their tensors need no communication.

The rules are torch.distributed.tensor's, which takes two seconds to import. So they are registered
once something else has imported it: when this package is imported, or at the first call after.
"""

from __future__ import annotations

import sys
from typing import Any

from . import ops

_registered = False


def register_if_used() -> None:
    """Register the rules if torch.distributed.tensor is there and they are not."""
    global _registered
    if not _registered and "torch.distributed.tensor" in sys.modules:
        _registered = True
        _register()


def _register() -> None:
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
    from torch.distributed.tensor._op_schema import RuntimeSchemaInfo
    from torch.distributed.tensor.experimental import register_sharding

    # A rule is ([the result's placement], [those of the tensors in schema order]).
    def replicate(tensors: int) -> tuple[list[Any], list[Any]]:
        return [Replicate()], [Replicate()] * tensors

    def conv2d(
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> list[tuple[list[Any], list[Any]]]:
        """Each rank has its samples, its output channels, or (partial sums) its input channels."""
        batched = input.ndim == weight.ndim
        channel = 1 if batched else 0
        with_bias = bias is not None
        rules = [replicate(2 + with_bias)]
        if batched:
            rules.append(([Shard(0)], [Shard(0), Replicate(), *[Replicate()] * with_bias]))
        if groups == 1:
            rules.append(([Shard(channel)], [Replicate(), Shard(0), *[Shard(0)] * with_bias]))
        if groups == 1 and not with_bias:
            rules.append(([Partial()], [Shard(channel), Shard(1)]))
        return rules

    def grad_input(
        grad_output: Any,
        weight: Any,
        input_size: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> list[tuple[list[Any], list[Any]]]:
        """As conv2d, with the two kinds of channels swapped."""
        batched = grad_output.ndim == weight.ndim
        channel = 1 if batched else 0
        with_bias = bias is not None
        rules = [replicate(2 + with_bias)]
        if batched:
            rules.append(([Shard(0)], [Shard(0), Replicate(), *[Replicate()] * with_bias]))
        if groups == 1:
            rules.append(([Shard(channel)], [Replicate(), Shard(1), *[Shard(0)] * with_bias]))
        if groups == 1 and not with_bias:
            rules.append(([Partial()], [Shard(channel), Shard(0)]))
        return rules

    def grad_weight(
        grad_output: Any,
        input: Any,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> list[tuple[list[Any], list[Any]]]:
        """Sums over samples are partial; either kind of channels may be sharded."""
        batched = input.ndim == len(kernel_size) + 2
        channel = 1 if batched else 0
        rules = [replicate(2)]
        if batched:
            rules.append(([Partial()], [Shard(0), Shard(0)]))
        if groups == 1:
            rules.append(([Shard(0)], [Shard(channel), Replicate()]))
            rules.append(([Shard(1)], [Replicate(), Shard(channel)]))
        return rules

    propagator = DTensor._op_dispatcher.sharding_propagator
    for op, rule in (
        (ops.conv2d, conv2d),
        (ops.conv2d_grad_input, grad_input),
        (ops.conv2d_grad_weight, grad_weight),
    ):
        register_sharding(op)(rule)
        # Results are remembered by the tensors and the arguments from here on. register_sharding
        # takes the first int, groups; but sizes also depend on the lists before it.
        propagator.op_to_schema_info[op] = RuntimeSchemaInfo(2, needs_pytree=True)


register_if_used()
