"""The three operators as ``torch.autograd.Function`` classes, for those who compose their own.

Convolution is a trilinear form in the input, the weight and the output's gradient. The three
operators are its three contractions, so the derivative of each is one of the other two, to any
order, in reverse and forward mode. The operators themselves have the same rules built in; nothing
in this package calls these.

``.apply`` takes the arguments in the order of the operator's schema, by position; those from
``bias`` (or ``stride``) on may be left out. ``stride`` and ``dilation`` are an int or (height,
width), ``padding`` an int or (top, bottom, left, right), which may be negative and then crops.
``torch.compile`` breaks the graph at a Function with a ``jvp``; it does not at the operators.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from . import ops

__all__ = ["DilatedConv2dFunction", "GradInputFunction", "GradWeightFunction"]

Grads = tuple[Tensor | None, ...]


def _geometry(
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> tuple[Any, ...]:
    """Return the operator's last four arguments, with ints spelt out."""
    return (
        stride if isinstance(stride, (tuple, list)) else (stride,) * 2,
        padding if isinstance(padding, (tuple, list)) else (padding,) * 4,
        dilation if isinstance(dilation, (tuple, list)) else (dilation,) * 2,
        groups,
    )


def _grads(ctx: Any, *grads: Tensor | None) -> Grads:
    """Fill up the gradients with one None for each further argument that ``.apply`` was given."""
    count = len(ctx.needs_input_grad)
    return (*grads, *[None] * count)[:count]


def _save(ctx: Any, first: Tensor, second: Tensor) -> None:
    """Save each operand where the derivative by the other one will need it."""
    first_needed, second_needed = ctx.needs_input_grad[:2]
    ctx.save_for_backward(first if second_needed else None, second if first_needed else None)
    ctx.save_for_forward(first, second)
    ctx.set_materialize_grads(False)


def _sum_to_bias(grad: Tensor, spatial: int) -> Tensor:
    channel = grad.dim() - spatial - 1
    dims = [dim for dim in range(grad.dim()) if dim != channel]
    if grad.dtype == torch.complex32:  # torch has no sum for it
        return torch.view_as_complex(torch.view_as_real(grad).sum(dims))
    return grad.sum(dims)


def _add(terms: list[Tensor]) -> Tensor:
    return terms[0] if len(terms) == 1 else terms[0] + terms[1]


class DilatedConv2dFunction(Function):
    """``y = conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1)``.

    Equivalent to: ``torch.ops.dilconv.conv2d``. Input (N, C, H, W) or (C, H, W), weight
    (O, C / groups, kh, kw), bias (O,); in 1-D one dimension fewer.
    """

    @staticmethod
    def forward(input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any) -> Tensor:
        """Return the cross-correlation."""
        return ops.conv2d(input, weight, bias, *_geometry(*rest))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the derivatives need."""
        input, weight = inputs[:2]
        _save(ctx, input, weight)
        ctx.geometry = _geometry(*inputs[3:])
        ctx.weight_shape = tuple(weight.shape)
        ctx.kernel_size = ctx.weight_shape[2:]
        ctx.input_size = tuple(input.shape[-len(ctx.kernel_size) :])
        ctx.output_shape = tuple(output.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Grads:
        """Return the gradients of input, weight and bias."""
        if grad is None:
            return _grads(ctx)
        input, weight = ctx.saved_tensors
        by_input = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            by_input = GradInputFunction.apply(
                grad, weight.conj(), ctx.input_size, None, *ctx.geometry
            )
        # Without input channels the output has none either, and nothing reaches weight and bias.
        empty = ctx.weight_shape[1] == 0
        if ctx.needs_input_grad[1]:
            by_weight = (
                grad.new_zeros(ctx.weight_shape)
                if empty
                else GradWeightFunction.apply(grad, input.conj(), ctx.kernel_size, *ctx.geometry)
            )
        if any(ctx.needs_input_grad[2:3]):
            by_bias = (
                grad.new_zeros(ctx.weight_shape[0])
                if empty
                else _sum_to_bias(grad, len(ctx.kernel_size))
            )
        return _grads(ctx, by_input, by_weight, by_bias)

    @staticmethod
    def jvp(
        ctx: Any,
        input_t: Tensor | None,
        weight_t: Tensor | None,
        bias_t: Tensor | None = None,
        *_: Any,
    ) -> Tensor:
        """Return the tangent of the output."""
        input, weight = ctx.saved_tensors
        apply, terms = DilatedConv2dFunction.apply, []
        if input_t is not None:
            terms.append(apply(input_t, weight, bias_t, *ctx.geometry))
        if weight_t is not None:
            bias_term = bias_t if input_t is None else None
            terms.append(apply(input, weight_t, bias_term, *ctx.geometry))
        return _add(terms or [_spread_bias(bias_t, ctx)])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
        """Return the result of a vmapped call, and where the vmapped dimension is in it."""
        return ops.conv2d_vmap(DilatedConv2dFunction.apply, info, in_dims, *arguments)


class GradInputFunction(Function):
    """``dx = conv2d_grad_input(grad_output, weight, input_size, bias=None, stride=1, …)``.

    Equivalent to: ``torch.ops.dilconv.conv2d_grad_input``: the gradient of ``conv2d`` with respect
    to its input, also known as the transposed convolution. ``input_size`` is (H, W), or (L,) in
    1-D; ``bias`` (C,) is added to the result's channels.
    """

    @staticmethod
    def forward(
        grad_output: Tensor,
        weight: Tensor,
        input_size: Any,
        bias: Tensor | None = None,
        *rest: Any,
    ) -> Tensor:
        """Return the gradient with respect to the input."""
        return ops.conv2d_grad_input(grad_output, weight, input_size, bias, *_geometry(*rest))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the derivatives need."""
        grad_output, weight, input_size = inputs[:3]
        _save(ctx, grad_output, weight)
        ctx.geometry = _geometry(*inputs[4:])
        ctx.kernel_size = tuple(weight.shape[2:])
        ctx.input_size = tuple(input_size)
        ctx.output_shape = tuple(output.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Grads:
        """Return the gradients of grad_output, weight and bias."""
        if grad is None:
            return _grads(ctx)
        grad_output, weight = ctx.saved_tensors
        by_grad = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            by_grad = DilatedConv2dFunction.apply(grad, weight.conj(), None, *ctx.geometry)
        if ctx.needs_input_grad[1]:
            by_weight = GradWeightFunction.apply(
                grad_output.conj(), grad, ctx.kernel_size, *ctx.geometry
            )
        if any(ctx.needs_input_grad[3:4]):
            by_bias = _sum_to_bias(grad, len(ctx.kernel_size))
        return _grads(ctx, by_grad, by_weight, None, by_bias)

    @staticmethod
    def jvp(
        ctx: Any,
        grad_t: Tensor | None,
        weight_t: Tensor | None,
        _size_t: None,
        bias_t: Tensor | None = None,
        *_: Any,
    ) -> Tensor:
        """Return the tangent of the result."""
        grad_output, weight = ctx.saved_tensors
        apply, size, terms = GradInputFunction.apply, ctx.input_size, []
        if grad_t is not None:
            terms.append(apply(grad_t, weight, size, bias_t, *ctx.geometry))
        if weight_t is not None:
            bias_term = bias_t if grad_t is None else None
            terms.append(apply(grad_output, weight_t, size, bias_term, *ctx.geometry))
        return _add(terms or [_spread_bias(bias_t, ctx)])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
        """Return the result of a vmapped call, and where the vmapped dimension is in it."""
        return ops.conv2d_grad_input_vmap(GradInputFunction.apply, info, in_dims, *arguments)


class GradWeightFunction(Function):
    """``dw = conv2d_grad_weight(grad_output, input, kernel_size, stride=1, padding=0, …)``.

    Equivalent to: ``torch.ops.dilconv.conv2d_grad_weight``: the gradient of ``conv2d`` with respect
    to its weight. ``kernel_size`` is (kh, kw), or (k,) in 1-D.
    """

    @staticmethod
    def forward(grad_output: Tensor, input: Tensor, kernel_size: Any, *rest: Any) -> Tensor:
        """Return the gradient with respect to the weight."""
        return ops.conv2d_grad_weight(grad_output, input, kernel_size, *_geometry(*rest))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the derivatives need."""
        grad_output, input, kernel_size = inputs[:3]
        _save(ctx, grad_output, input)
        ctx.geometry = _geometry(*inputs[3:])
        ctx.kernel_size = tuple(kernel_size)
        ctx.input_size = tuple(input.shape[-len(ctx.kernel_size) :])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Grads:
        """Return the gradients of grad_output and input."""
        if grad is None:
            return _grads(ctx)
        grad_output, input = ctx.saved_tensors
        by_grad = by_input = None
        if ctx.needs_input_grad[0]:
            by_grad = DilatedConv2dFunction.apply(input.conj(), grad, None, *ctx.geometry)
        if ctx.needs_input_grad[1]:
            by_input = GradInputFunction.apply(
                grad_output.conj(), grad, ctx.input_size, None, *ctx.geometry
            )
        return _grads(ctx, by_grad, by_input)

    @staticmethod
    def jvp(ctx: Any, grad_t: Tensor | None, input_t: Tensor | None, *_: Any) -> Tensor:
        """Return the tangent of the result."""
        grad_output, input = ctx.saved_tensors
        apply, terms = GradWeightFunction.apply, []
        if grad_t is not None:
            terms.append(apply(grad_t, input, ctx.kernel_size, *ctx.geometry))
        if input_t is not None:
            terms.append(apply(grad_output, input_t, ctx.kernel_size, *ctx.geometry))
        return _add(terms)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
        """Return the result of a vmapped call, and where the vmapped dimension is in it."""
        return ops.conv2d_grad_weight_vmap(GradWeightFunction.apply, info, in_dims, *arguments)


def _spread_bias(bias_t: Tensor | None, ctx: Any) -> Tensor:
    """Return the tangent where only the bias has one."""
    assert bias_t is not None
    spatial = len(ctx.kernel_size)
    return bias_t.reshape(-1, *[1] * spatial).expand(ctx.output_shape).clone()
