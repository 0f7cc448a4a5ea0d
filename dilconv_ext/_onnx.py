"""What ``torch.onnx.export`` makes of the operators: plain Conv and ConvTranspose nodes.

The rules here stand where a graph's nodes are recorded, and answer only while a model is exported
to ONNX: everywhere else (torch.compile, torch.export) the operators stay whole. Torch's table of
decompositions, from which the exporter takes what it has no translation for, would do for ONNX;
but where the environment has CI set, Inductor raises an error for what stands there.

``conv2d_grad_weight`` has no counterpart in ONNX; only the graph of a training step would hold it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode

Pads = tuple[Any, Any, Any, Any]


def _node(
    kind: str,
    data: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    channels: int,
    size: list[Any],
    attributes: dict[str, Any],
) -> Tensor:
    """Return the result of an ONNX node, whose attributes are given for two axes, or one in 1-D."""
    batched = data.dim() == weight.dim()
    if not batched:
        data = data.unsqueeze(0)
    inputs = (data, weight) if bias is None else (data, weight, bias)
    shape = (data.shape[0], channels, *size)
    result = torch.onnx.ops.symbolic(kind, inputs, attributes, dtype=data.dtype, shape=shape)
    return result if batched else result.squeeze(0)


def _attributes(
    weight: Tensor, stride: Any, pads: Pads, dilation: Any, groups: int
) -> dict[str, Any]:
    axes = weight.dim() - 2
    top, bottom, left, right = map(int, pads)
    return {
        "kernel_shape": list(weight.shape[2:]),
        "strides": list(stride[-axes:]),
        "pads": [top, left, bottom, right] if axes == 2 else [left, right],
        "dilations": list(dilation[-axes:]),
        "group": groups,
    }


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = (1, 1),
    padding: Any = (0, 0, 0, 0),
    dilation: Any = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Return the result of a Conv node; of a Pad node before it where ONNX cannot state the pads.

    These are pads that crop, and those that depend on a size which the exported model leaves open.
    """
    axes = weight.dim() - 2
    top, bottom, left, right = padding
    length = [
        (n + before + after - spread * (k - 1) - 1) // step + 1
        for n, k, step, spread, before, after in zip(
            input.shape[-axes:],
            weight.shape[2:],
            stride[-axes:],
            dilation[-axes:],
            (top, left)[-axes:],
            (bottom, right)[-axes:],
            strict=True,
        )
    ]
    if not all(isinstance(pad, int) and pad >= 0 for pad in padding):
        input = F.pad(input, [left, right, top, bottom][: 2 * axes])
        padding = (0, 0, 0, 0)
    attributes = _attributes(weight, stride, padding, dilation, groups)
    return _node("Conv", input, weight, bias, weight.shape[0], length, attributes)


def _conv2d_grad_input(
    grad_output: Tensor,
    weight: Tensor,
    input_size: Any,
    bias: Tensor | None = None,
    stride: Any = (1, 1),
    padding: Any = (0, 0, 0, 0),
    dilation: Any = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Return the result of a ConvTranspose node.

    What of the result no kernel position reaches, at the bottom and right, is its output_padding.
    """
    axes = weight.dim() - 2
    before, after = list(padding[::2]), list(padding[1::2])
    extra = []
    for axis in range(-axes, 0):
        reached = (
            (grad_output.shape[axis] - 1) * stride[axis]
            + dilation[axis] * (weight.shape[axis] - 1)
            + 1
            - before[axis]
            - after[axis]
        )
        missing = int(input_size[axis] - reached) - min(after[axis], 0)
        after[axis] = max(after[axis], 0)
        extra.append(missing)
    pads = (before[0], after[0], before[1], after[1])
    attributes = _attributes(weight, stride, pads, dilation, groups)
    attributes["output_padding"] = extra
    channels = weight.shape[1] * groups
    return _node("ConvTranspose", grad_output, weight, bias, channels, list(input_size), attributes)


def _register(name: str, rule: Callable[..., Tensor]) -> None:
    def trace(
        mode: ProxyTorchDispatchMode, op: Any, types: Any, arguments: Any, named: Any = None
    ) -> Any:
        if not torch.onnx.is_in_onnx_export():
            return mode.__torch_dispatch__(op, types, arguments, named or {})
        with mode:
            return rule(*arguments, **(named or {}))

    torch.library.register_torch_dispatch(f"dilconv::{name}", ProxyTorchDispatchMode, trace)


_register("conv2d", _conv2d)
_register("conv2d_grad_input", _conv2d_grad_input)
