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


Rules = list[tuple[list[Any], list[Any]]]


def _register() -> None:
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
    from torch.distributed.tensor._op_schema import RuntimeSchemaInfo
    from torch.distributed.tensor.experimental import register_sharding

    # A rule is ([the result's placement], [those of the tensors in schema order]).
    def groups_of(stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> int:
        return groups

    def reach_all(channels: int, mesh: Any) -> bool:
        """Whether every rank would get some: from no channels the operators make none.

        DTensor gives ranks equal shares, rounded up, as long as there are any.
        """
        shares = ((ranks, -(-channels // ranks)) for ranks in mesh.shape)
        return all(channels > (ranks - 1) * share for ranks, share in shares)

    def activation(
        data: Any, weight: Any, bias: Any, groups: int, written: int, read: int
    ) -> Rules:
        """Each rank has its samples, its channels of the result, or sums over those it reads.

        ``written`` and ``read`` are the weight's dimensions of the two kinds of channels.
        """
        batched = data.ndim == weight.ndim
        channel = 1 if batched else 0
        biases = 0 if bias is None else 1
        rules: Rules = [([Replicate()], [Replicate()] * (2 + biases))]
        if batched:
            rules.append(([Shard(0)], [Shard(0), Replicate(), *[Replicate()] * biases]))
        if groups == 1 and reach_all(weight.shape[written], weight.mesh):
            rules.append(([Shard(channel)], [Replicate(), Shard(written), *[Shard(0)] * biases]))
        if groups == 1 and bias is None and reach_all(weight.shape[read], weight.mesh):
            rules.append(([Partial()], [Shard(channel), Shard(read)]))
        return rules

    def conv2d(input: Any, weight: Any, bias: Any = None, *geometry: Any) -> Rules:
        return activation(input, weight, bias, groups_of(*geometry), written=0, read=1)

    def grad_input(
        grad_output: Any, weight: Any, input_size: Any, bias: Any = None, *geometry: Any
    ) -> Rules:
        return activation(grad_output, weight, bias, groups_of(*geometry), written=1, read=0)

    def grad_weight(grad_output: Any, input: Any, kernel_size: Any, *geometry: Any) -> Rules:
        """Sums over samples are partial; either kind of channels may be sharded."""
        batched = input.ndim == len(kernel_size) + 2
        channel = 1 if batched else 0
        rules: Rules = [([Replicate()], [Replicate()] * 2)]
        if batched:
            rules.append(([Partial()], [Shard(0), Shard(0)]))
        if groups_of(*geometry) == 1:
            if reach_all(grad_output.shape[channel], input.mesh):
                rules.append(([Shard(0)], [Shard(channel), Replicate()]))
            if reach_all(input.shape[channel], input.mesh):
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
