"""The three ops by torch itself: F.conv1d/F.conv2d after F.pad, and autograd for the other two.

Same signatures as the ops, so that ``Call.run`` can be pointed at this module. It is the yardstick
for float32 accuracy and for behaviour; it is not the truth, which is ``dilconv_ext.reference``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """F.conv2d (F.conv1d for a 3-D weight) with four pads, negative ones included."""
    top, bottom, left, right = padding
    pads = (left, right) if weight.dim() == 3 else (left, right, top, bottom)
    # First what grows, then what crops: a crop may be larger than the image alone.
    padded = F.pad(F.pad(input, [max(p, 0) for p in pads]), [min(p, 0) for p in pads])
    if weight.dim() == 3:
        return F.conv1d(padded, weight, bias, stride[1], 0, dilation[1], groups)
    return F.conv2d(padded, weight, bias, stride, 0, dilation, groups)


def conv2d_grad_input(
    grad_output: Tensor,
    weight: Tensor,
    input_size: Sequence[int],
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """The gradient of ``conv2d`` for its input (without autograd's conjugation), plus bias."""
    batch = grad_output.shape[: grad_output.dim() - (weight.dim() - 1)]
    shape = (*batch, weight.size(1) * groups, *input_size)
    with torch.enable_grad():
        x = torch.zeros(shape, dtype=weight.dtype, device=weight.device, requires_grad=True)
        y = conv2d(x, weight.detach().conj(), None, stride, padding, dilation, groups)
        (dx,) = torch.autograd.grad(y, x, grad_output.detach())
    return dx if bias is None else dx + bias.reshape(-1, *[1] * (weight.dim() - 2))


def conv2d_grad_weight(
    grad_output: Tensor,
    input: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """The gradient of ``conv2d`` for its weight (without the conjugation autograd adds)."""
    channel = -1 - len(kernel_size)
    shape = (grad_output.size(channel), input.size(channel) // groups, *kernel_size)
    with torch.enable_grad():
        w = torch.zeros(shape, dtype=input.dtype, device=input.device, requires_grad=True)
        y = conv2d(input.detach().conj(), w, None, stride, padding, dilation, groups)
        (dw,) = torch.autograd.grad(y, w, grad_output.detach())
    return dw
