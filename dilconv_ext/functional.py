"""The public functions: dilated cross-correlation in one and two dimensions.

``conv1d``, ``conv2d``, ``conv_transpose1d`` and ``conv_transpose2d`` take the arguments of their
namesakes in ``torch.nn.functional`` and return the same numbers. All functions are differentiable
to any order, in reverse and forward mode, work under ``torch.func`` and ``torch.compile``, and
follow autocast.

Dtypes: float64, float32, float16, bfloat16, complex128, complex64, complex32, and int8, uint8,
int16, int32, int64 (integers in, integers of the same type out, with wrap-around; no gradients).
``input``, ``weight`` and ``bias`` share one dtype and one device. Wherever a batch (N, …) is taken,
one sample without N is too.
"""

from __future__ import annotations

from torch import Tensor
from torch.compiler import is_compiling
from torch.overrides import handle_torch_function, has_torch_function_variadic

from . import _fast, ops
from ._arguments import IntOrPair, pair, raise_for_arguments, raise_for_rank, single
from ._sharding import register_if_used
from ._transposed import conv_transpose1d, conv_transpose2d
from .padding import Padding, pads_1d, pads_2d

__all__ = [
    "conv1d",
    "conv1x1",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "corr2d",
    "corr2d_multi_in",
    "corr2d_multi_in_out",
    "corr2d_multi_in_out_1x1",
]


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
) -> Tensor:
    """Dilated 2-D cross-correlation.

    Equivalent to: ``F.conv2d(input, weight, bias, stride, padding, dilation, groups)``.

    ``out[n, o, y, x] = bias[o] + sum over c, i, j of weight[o, c, i, j] *
    input[n, c, y * stride + i * dilation - top, x * stride + j * dilation - left]``, where the
    input is zero outside its borders and c runs over the channels of o's group.

    Args:
        input: (N, C, H, W) or (C, H, W).
        weight: (O, C / groups, kh, kw).
        bias: (O,). Default: None.
        stride: int or (height, width), positive. Default: 1.
        padding: int, (height, width), (top, bottom, left, right), 'valid', 'same', 'same_upper' or
            'same_lower', in pixels; see ``dilconv_ext.padding``. Default: 0.
        dilation: int or (height, width), positive. Default: 1.
        groups: C and O are split into so many parts that do not meet. Default: 1.

    Returns:
        (N, O, H', W') or (O, H', W') with
        ``H' = (H + top + bottom - dilation * (kh - 1) - 1) // stride + 1``, W' likewise; in the
        memory format that ``F.conv2d`` would choose. Without input channels (C = 0) the output has
        none either, as ``F.conv2d``'s.

    Raises:
        RuntimeError: shapes, dtypes, devices, channels or numbers that do not fit.
        TypeError: an argument of the wrong type.
    """
    if not is_compiling():
        output = _fast.conv2d(input, weight, bias, stride, padding, dilation, groups)
        if output is not NotImplemented:
            return output
        register_if_used()
    if has_torch_function_variadic(input, weight, bias):
        arguments = (input, weight, bias, stride, padding, dilation, groups)
        return handle_torch_function(conv2d, arguments[:3], *arguments)
    steps = pair("stride", stride)
    spread = pair("dilation", dilation)
    try:
        if weight.dim() != 4 or not 3 <= input.dim() <= 4:
            raise_for_rank("conv2d", input, weight, axes=2)
        pads = pads_2d(padding, input, weight, steps, spread)
        return ops.conv2d(input, weight, bias, steps, pads, spread, groups)
    except (RuntimeError, AttributeError):
        numbers = {"stride": stride, "padding": padding, "dilation": dilation}
        raise_for_arguments("conv2d", input, weight, bias, groups, **numbers)
        raise


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
) -> Tensor:
    """Dilated 1-D cross-correlation.

    Equivalent to: ``F.conv1d(input, weight, bias, stride, padding, dilation, groups)``.

    ``out[n, o, x] = bias[o] + sum over c, j of
    weight[o, c, j] * input[n, c, x * stride + j * dilation - left]``, zero outside the input.

    Args:
        input: (N, C, L) or (C, L).
        weight: (O, C / groups, k).
        bias: (O,). Default: None.
        stride: int or (int,), positive. Default: 1.
        padding: int, (int,), (left, right), 'valid', 'same', 'same_upper' or 'same_lower'; see
            ``dilconv_ext.padding``. ``(dilation * (k - 1), 0)`` is causal. Default: 0.
        dilation: int or (int,), positive. Default: 1.
        groups: C and O are split into so many parts that do not meet. Default: 1.

    Returns:
        (N, O, L') or (O, L') with
        ``L' = (L + left + right - dilation * (k - 1) - 1) // stride + 1``.

    Raises:
        RuntimeError: shapes, dtypes, devices, channels or numbers that do not fit.
        TypeError: an argument of the wrong type.
    """
    if not is_compiling():
        output = _fast.conv1d(input, weight, bias, stride, padding, dilation, groups)
        if output is not NotImplemented:
            return output
        register_if_used()
    if has_torch_function_variadic(input, weight, bias):
        arguments = (input, weight, bias, stride, padding, dilation, groups)
        return handle_torch_function(conv1d, arguments[:3], *arguments)
    step = single("stride", stride)
    spread = single("dilation", dilation)
    try:
        if weight.dim() != 3 or not 2 <= input.dim() <= 3:
            raise_for_rank("conv1d", input, weight, axes=1)
        pads = pads_1d(padding, input, weight, step, spread)
        return ops.conv2d(input, weight, bias, (1, step), pads, (1, spread), groups)
    except (RuntimeError, AttributeError):
        numbers = {"stride": stride, "padding": padding, "dilation": dilation}
        raise_for_arguments("conv1d", input, weight, bias, groups, **numbers)
        raise


def conv1x1(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """1×1 convolution: a matrix product over the channels, at every pixel.

    Equivalent to: ``F.conv2d(input, weight.reshape(O, C, 1, 1), bias)``.

    ``out[n, o, y, x] = bias[o] + sum over c of weight[o, c] * input[n, c, y, x]``.

    Args:
        input: (N, C, H, W) or (C, H, W).
        weight: (O, C) or (O, C, 1, 1).
        bias: (O,). Default: None.

    Returns:
        (N, O, H, W) or (O, H, W).

    Raises:
        RuntimeError: shapes, dtypes, devices or channels that do not fit.
        TypeError: an argument of the wrong type.
    """
    if has_torch_function_variadic(input, weight, bias):
        arguments = (input, weight, bias)
        return handle_torch_function(conv1x1, arguments, *arguments)
    if isinstance(weight, Tensor):  # conv2d says so if it is not
        if weight.dim() == 2:
            weight = weight[:, :, None, None]
        elif weight.dim() != 4 or weight.shape[2:] != (1, 1):
            raise RuntimeError(
                "conv1x1() expects a weight of size (out, in) or (out, in, 1, 1), but got weight "
                f"of size {list(weight.shape)}"
            )
    return conv2d(input, weight, bias)


def corr2d(X: Tensor, K: Tensor, dilation: IntOrPair = 1) -> Tensor:
    """2-D cross-correlation of one plane with one kernel.

    ``out[y, x] = sum over i, j of K[i, j] * X[y + i * dilation, x + j * dilation]``.

    Equivalent to: ``F.conv2d(X[None, None], K[None, None], dilation=dilation)[0, 0]``.

    Args:
        X: (H, W).
        K: (kh, kw), of the same dtype.
        dilation: int or (height, width), positive. Default: 1.

    Returns:
        (H - dilation * (kh - 1), W - dilation * (kw - 1)); integers if X and K are.

    Raises:
        RuntimeError: shapes or dtypes that do not fit, or a kernel, dilated, larger than X.

    Examples:
        >>> import torch
        >>> corr2d(torch.arange(9).reshape(3, 3), torch.arange(4).reshape(2, 2))
        tensor([[19, 25],
                [37, 43]])
    """
    _check_ranks("corr2d", X, 2, K, 2)
    return conv2d(X[None], K[None, None], dilation=dilation)[0]


def corr2d_multi_in(X: Tensor, K: Tensor, dilation: IntOrPair = 1) -> Tensor:
    """2-D cross-correlation with several input channels: the sum of one ``corr2d`` per channel.

    ``out[y, x] = sum over c, i, j of K[c, i, j] * X[c, y + i * dilation, x + j * dilation]``.

    Equivalent to: ``F.conv2d(X, K[None], dilation=dilation)[0]``.

    Args:
        X: (C, H, W).
        K: (C, kh, kw), of the same dtype.
        dilation: int or (height, width), positive. Default: 1.

    Returns:
        (H - dilation * (kh - 1), W - dilation * (kw - 1)); integers if X and K are.

    Raises:
        RuntimeError: shapes or dtypes that do not fit, or a kernel, dilated, larger than X.

    Examples:
        >>> import torch
        >>> X = torch.tensor([[[0, 1, 2], [3, 4, 5], [6, 7, 8]], [[1, 2, 3], [4, 5, 6], [7, 8, 9]]])
        >>> K = torch.tensor([[[0, 1], [2, 3]], [[1, 2], [3, 4]]])
        >>> corr2d_multi_in(X, K)
        tensor([[ 56,  72],
                [104, 120]])
    """
    _check_ranks("corr2d_multi_in", X, 3, K, 3)
    return conv2d(X, K[None], dilation=dilation)[0]


def corr2d_multi_in_out(X: Tensor, K: Tensor, dilation: IntOrPair = 1) -> Tensor:
    """2-D cross-correlation with several input and output channels.

    It is one ``corr2d_multi_in`` per output channel.

    ``out[o, y, x] = sum over c, i, j of K[o, c, i, j] * X[c, y + i * dilation, x + j * dilation]``.

    Equivalent to: ``F.conv2d(X, K, dilation=dilation)``.

    Args:
        X: (C, H, W).
        K: (O, C, kh, kw), of the same dtype.
        dilation: int or (height, width), positive. Default: 1.

    Returns:
        (O, H - dilation * (kh - 1), W - dilation * (kw - 1)); integers if X and K are.

    Raises:
        RuntimeError: shapes or dtypes that do not fit, or a kernel, dilated, larger than X.

    Examples:
        >>> import torch
        >>> X = torch.tensor([[[0, 1, 2], [3, 4, 5], [6, 7, 8]], [[1, 2, 3], [4, 5, 6], [7, 8, 9]]])
        >>> K = torch.tensor([[[0, 1], [2, 3]], [[1, 2], [3, 4]]])
        >>> corr2d_multi_in_out(X, torch.stack((K, K + 1, K + 2)))
        tensor([[[ 56,  72],
                 [104, 120]],
        <BLANKLINE>
                [[ 76, 100],
                 [148, 172]],
        <BLANKLINE>
                [[ 96, 128],
                 [192, 224]]])
    """
    _check_ranks("corr2d_multi_in_out", X, 3, K, 4)
    return conv2d(X, K, dilation=dilation)


def corr2d_multi_in_out_1x1(X: Tensor, K: Tensor) -> Tensor:
    """1×1 cross-correlation with several input and output channels.

    ``out[o, y, x] = sum over c of K[o, c, 0, 0] * X[c, y, x]``: a matrix product over the channels.

    Equivalent to: ``F.conv2d(X, K)`` and to ``(K[:, :, 0, 0] @ X.flatten(1)).reshape(O, H, W)``.

    Args:
        X: (C, H, W).
        K: (O, C, 1, 1), of the same dtype.

    Returns:
        (O, H, W); integers if X and K are.

    Raises:
        RuntimeError: shapes or dtypes that do not fit.

    Examples:
        >>> import torch
        >>> X = torch.tensor([[[0, 1, 2], [3, 4, 5], [6, 7, 8]], [[1, 2, 3], [4, 5, 6], [7, 8, 9]]])
        >>> K = torch.tensor([[1, 0], [1, -1]]).reshape(2, 2, 1, 1)
        >>> corr2d_multi_in_out_1x1(X, K)
        tensor([[[ 0,  1,  2],
                 [ 3,  4,  5],
                 [ 6,  7,  8]],
        <BLANKLINE>
                [[-1, -1, -1],
                 [-1, -1, -1],
                 [-1, -1, -1]]])
    """
    _check_ranks("corr2d_multi_in_out_1x1", X, 3, K, 4)
    return conv1x1(X, K)


def _check_ranks(function: str, X: Tensor, x_dims: int, K: Tensor, k_dims: int) -> None:
    for name, tensor, dims in (("X", X, x_dims), ("K", K, k_dims)):
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{function}(): argument '{name}' must be Tensor, but got {name}={tensor!r} "
                f"({type(tensor).__name__})"
            )
        if tensor.dim() != dims:
            raise RuntimeError(
                f"{function}() expects {name} to have {dims} dimensions, but got {name} of size "
                f"{list(tensor.shape)}"
            )
