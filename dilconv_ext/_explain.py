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
    *,
    isa: str | None = None,
) -> Explanation:
    """Tell which kernels a convolution and its gradients would run, and why not each earlier one.

    Nothing is computed. The answer is for the tensors' device (the CPU for those without data), and
    depends on the options in force.

    Args:
        input: (N, C, H, W) or (C, H, W); or (N, C, L) or (C, L).
        weight: (O, C / groups, kh, kw); or (O, C / groups, k), which makes the call a 1-D one.
        bias: (O,). Default: None.
        stride: as in ``dilconv_ext.functional.conv2d`` or ``conv1d``, and so the next. Default: 1.
        padding: Default: 0.
        dilation: Default: 1.
        groups: Default: 1.
        isa: answer for this instruction set instead, on the device that has it: 'avx2', or 'sm_90'
            for a GPU, which need not be there. Default: None, the one that the call would use.

    Returns:
        An ``Explanation``.

    Raises:
        RuntimeError, TypeError: as the call itself would.
        ValueError: an unknown ``isa``; the message lists the known ones.
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
    target = _target(input, isa)
    tensors = [t for t in (input, weight, bias) if t is not None]
    if len({t.device for t in tensors}) > 1:
        ops.conv2d(input, weight, bias, *geometry)  # which says what is wrong
    # Sizes and strides are all that matters; the output's come from the shape rule.
    meta = [_empty_like(t) for t in tensors]
    output = ops.conv2d(*meta, *[None] * (3 - len(meta)), *geometry)
    x, w = meta[:2]
    with torch.cuda.device_of(input):  # of several GPUs, the kernels look at the current one
        return Explanation(
            _choice(target, "conv2d", x, w, bias is not None, (), geometry),
            _choice(target, "conv2d_grad_input", output, w, False, x.shape[-axes:], geometry),
            _choice(target, "conv2d_grad_weight", output, x, False, w.shape[2:], geometry),
        )


def _target(input: Tensor, isa: str | None) -> tuple[str, str]:
    """Return the device and instruction set to ask about; '' is the one that a call would use."""
    if isa is None:
        return "cpu" if input.is_meta else input.device.type, ""
    known = {name: device for device in ("cuda", "cpu") for name in _C.isas(device)}
    if isa not in known:
        raise ValueError(f"isa must be one of {', '.join(known)}, but got {isa!r}")
    return known[isa], isa


def _empty_like(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _choice(
    target: tuple[str, str],
    op: str,
    first: Tensor,
    second: Tensor,
    bias: bool,
    size: Any,
    geometry: tuple[Any, ...],
) -> Choice:
    fields = torch.ops.dilconv._problem(op, first, second, bias, list(size), *geometry)
    verdicts = _C.explain(fields, torch.get_num_threads(), *target)
    forced = _C.get_option("kernel")
    refused: list[tuple[str, str]] = []
    for kernel, refusal, slower, workspace in verdicts:
        if forced not in ("", kernel):
            reason: str | None = f"the option kernel='{forced}' is set"
        else:
            reason = refusal if forced else refusal or slower
        if reason is None:
            return Choice(op, kernel, workspace, tuple(refused))
        refused.append((kernel, reason))
    return Choice(op, None, 0, tuple(refused))
