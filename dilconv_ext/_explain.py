"""Tell which kernel a call would run, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import _C, ops
from ._arguments import IntOrPair, pair, raise_for_arguments, raise_for_rank, single
from .padding import Padding, pads_1d, pads_2d


@dataclass(frozen=True)
class Choice:
    """The selection for one operator.

    Attributes:
        op: 'conv2d', 'conv2d_grad_input' or 'conv2d_grad_weight'.
        kernel: the kernel that would run; None if all refuse (then the call raises RuntimeError).
        workspace_bytes: the scratch memory that it would ask for.
        refused: (kernel, reason) of every kernel that stands before it in the list: it cannot run
            the call, or a later one is expected to be faster.
    """

    op: str
    kernel: str | None
    workspace_bytes: int
    refused: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        line = f"{self.op}: {self.kernel or 'no kernel'}, workspace {self.workspace_bytes} bytes"
        return "\n".join([line, *(f"  not {name}: {reason}" for name, reason in self.refused)])


@dataclass(frozen=True)
class Explanation:
    """The selection for a convolution and both of its gradients. ``print`` it.

    Attributes:
        forward, grad_input, grad_weight: a ``Choice`` each.
    """

    forward: Choice
    grad_input: Choice
    grad_weight: Choice

    def __str__(self) -> str:
        return "\n".join(map(str, (self.forward, self.grad_input, self.grad_weight)))


def explain(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
) -> Explanation:
    """Tell which kernels a convolution and its gradients would run, and why not each earlier one.

    Nothing is computed. The answer depends on the options in force and on this machine.

    Args:
        input: (N, C, H, W) or (C, H, W); or (N, C, L) or (C, L).
        weight: (O, C / groups, kh, kw); or (O, C / groups, k), which makes the call a 1-D one.
        bias: (O,). Default: None.
        stride: as in ``dilconv_ext.functional.conv2d`` or ``conv1d``, and so the next. Default: 1.
        padding: Default: 0.
        dilation: Default: 1.
        groups: Default: 1.

    Returns:
        An ``Explanation``.

    Raises:
        RuntimeError, TypeError: as the call itself would.
    """
    numbers = {"stride": stride, "padding": padding, "dilation": dilation}
    raise_for_arguments("explain", input, weight, bias, groups, **numbers)
    axes = weight.dim() - 2
    if axes not in (1, 2) or not axes < input.dim() <= axes + 2:
        raise_for_rank("explain", input, weight, axes=1 if axes == 1 else 2)
    if axes == 2:
        steps, spread = pair("stride", stride), pair("dilation", dilation)
        pads = pads_2d(padding, input, weight, steps, spread)
    else:
        step, gap = single("stride", stride), single("dilation", dilation)
        pads = pads_1d(padding, input, weight, step, gap)
        steps, spread = (1, step), (1, gap)
    geometry = (steps, pads, spread, groups)
    if input.is_meta:  # the same question about tensors without data
        input, weight = _empty_like(input, "cpu"), _empty_like(weight, "cpu")
    # The output's shape and strides come from the shape rule; its memory is never touched.
    meta = [None if t is None else _empty_like(t, "meta") for t in (input, weight, bias)]
    output = _empty_like(ops.conv2d(*meta, *geometry), input.device)
    has_bias = bias is not None
    return Explanation(
        _choice("conv2d", input, weight, has_bias, (), geometry),
        _choice("conv2d_grad_input", output, weight, False, input.shape[-axes:], geometry),
        _choice("conv2d_grad_weight", output, input, False, weight.shape[2:], geometry),
    )


def _empty_like(tensor: Tensor, device: Any) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)


def _choice(
    op: str, first: Tensor, second: Tensor, bias: bool, size: Any, geometry: tuple[Any, ...]
) -> Choice:
    fields = torch.ops.dilconv._problem(op, first, second, bias, list(size), *geometry)
    forced = _C.get_option("kernel")
    refused: list[tuple[str, str]] = []
    for kernel, refusal, slower, workspace in _C.explain(fields, torch.get_num_threads()):
        if forced not in ("", kernel):
            reason: str | None = f"the option kernel='{forced}' is set"
        else:
            reason = refusal if forced else refusal or slower
        if reason is None:
            return Choice(op, kernel, workspace, tuple(refused))
        refused.append((kernel, reason))
    return Choice(op, None, 0, tuple(refused))
