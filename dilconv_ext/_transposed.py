"""The transposed convolutions of ``dilconv_ext.functional``, in one and two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.compiler import is_compiling
from torch.overrides import handle_torch_function, has_torch_function_variadic

from . import ops
from ._arguments import IntOrPair, per_axis, raise_for_arguments, raise_for_rank
from ._sharding import register_if_used
from .padding import Padding, Pads, check_output_padding, transposed_pads

Geometry = tuple[tuple[int, ...], tuple[int, ...], Pads, tuple[int, ...]]


def transposed_geometry(
    input_size: Sequence[int],
    kernel: Sequence[int],
    stride: IntOrPair,
    padding: Padding,
    output_padding: IntOrPair,
    dilation: IntOrPair,
) -> Geometry:
    """Return the output's size, stride, padding and dilation as the operator takes them.

    The operator is ``ops.conv2d_grad_input``. Its padding is what is cropped of the full output,
    less the output_padding. Sizes are spatial, (H, W) or (L,). Raises what the public functions
    raise.
    """
    axes = len(kernel)
    steps = per_axis("stride", stride, axes)
    spread = per_axis("dilation", dilation, axes)
    extra = per_axis("output_padding", output_padding, axes)
    top, bottom, left, right = transposed_pads(padding, kernel, steps, spread)
    if any(extra):
        check_output_padding(extra, padding, steps, spread)
        bottom -= extra[0] if axes == 2 else 0
        right -= extra[-1]
    crops = (top + bottom, left + right)[-axes:]
    lines = zip(input_size, kernel, steps, spread, crops, strict=True)
    size = tuple((n - 1) * step + gap * (k - 1) + 1 - crop for n, k, step, gap, crop in lines)
    pads = (top, bottom, left, right)
    return size, (1, *steps)[-2:], pads, (1, *spread)[-2:]


def _conv_transpose(
    axes: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: IntOrPair,
    padding: Padding,
    output_padding: IntOrPair,
    groups: int,
    dilation: IntOrPair,
) -> Tensor:
    function = f"conv_transpose{axes}d"
    if not is_compiling():
        register_if_used()
    size = None
    try:
        if weight.dim() != axes + 2 or not axes + 1 <= input.dim() <= axes + 2:
            raise_for_rank(function, input, weight, axes)
        sizes = (input.shape[-axes:], weight.shape[2:])
        size, *window = transposed_geometry(*sizes, stride, padding, output_padding, dilation)
        return ops.conv2d_grad_input(input, weight, size, bias, *window, groups)
    except (RuntimeError, AttributeError) as error:
        numbers: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
        numbers["output_padding"] = output_padding
        raise_for_arguments(function, input, weight, bias, groups, **numbers)
        if size is not None and not all(0 < length < 2**63 for length in size):
            raise RuntimeError(
                f"Given input of size {list(input.shape)}, weight of size {list(weight.shape)}, "
                f"stride={stride}, padding={padding}, dilation={dilation} and "
                f"output_padding={output_padding}, the calculated output size is {size}: it is "
                "too small or too large"
            ) from None
        if type(error) is RuntimeError and "grad_output" in str(error):
            # The operator calls grad_output what is the input here.
            raise RuntimeError(str(error).replace("grad_output", "input")) from None
        raise


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    output_padding: IntOrPair = 0,
    groups: int = 1,
    dilation: IntOrPair = 1,
) -> Tensor:
    """Transposed dilated 1-D convolution: the gradient of ``conv1d`` with respect to its input.

    Equivalent to:
    ``F.conv_transpose1d(input, weight, bias, stride, padding, output_padding, groups, dilation)``.

    Every input sample adds ``input[n, c, x] * weight[c, o, j]`` to
    ``out[n, o, x * stride + j * dilation - left]``, which starts as ``bias[o]``; what falls outside
    is dropped.

    Args:
        input: (N, C, L) or (C, L).
        weight: (C, O / groups, k).
        bias: (O,). Default: None.
        stride: int or (int,), positive. Default: 1.
        padding: how much of the full output is cropped: int, (int,) or (left, right); or
            'same_upper' or 'same_lower', with which the output is stride * input in length. With
            ``(0, dilation * (k - 1) + 1 - stride)`` it is too, and causal. Default: 0.
        output_padding: int or (int,): samples added at the right; smaller than stride or than
            dilation; 0 with 'same_upper' and 'same_lower'. Default: 0.
        groups: C and O are split into so many parts that do not meet. Default: 1.
        dilation: int or (int,), positive. Default: 1.

    Returns:
        (N, O, L') or (O, L') with
        ``L' = (L - 1) * stride - left - right + dilation * (k - 1) + output_padding + 1``.

    Raises:
        RuntimeError: shapes, dtypes, devices, channels or numbers that do not fit.
        TypeError: an argument of the wrong type.
    """
    arguments = (input, weight, bias, stride, padding, output_padding, groups, dilation)
    if has_torch_function_variadic(input, weight, bias):
        return handle_torch_function(conv_transpose1d, arguments[:3], *arguments)
    return _conv_transpose(1, *arguments)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    output_padding: IntOrPair = 0,
    groups: int = 1,
    dilation: IntOrPair = 1,
) -> Tensor:
    """Transposed dilated 2-D convolution: the gradient of ``conv2d`` with respect to its input.

    Equivalent to:
    ``F.conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation)``.

    Every input pixel adds ``input[n, c, y, x] * weight[c, o, i, j]`` to
    ``out[n, o, y * stride + i * dilation - top, x * stride + j * dilation - left]``, which starts
    as ``bias[o]``; what falls outside is dropped.

    Args:
        input: (N, C, H, W) or (C, H, W).
        weight: (C, O / groups, kh, kw).
        bias: (O,). Default: None.
        stride: int or (height, width), positive. Default: 1.
        padding: how much of the full output is cropped: int, (height, width),
            (top, bottom, left, right); or 'same_upper' or 'same_lower', with which the output is
            stride * input in size, as with Keras' padding='same'. Default: 0.
        output_padding: int or (height, width): rows and columns added at the bottom and right;
            smaller than stride or than dilation; 0 with 'same_upper' and 'same_lower'. Default: 0.
        groups: C and O are split into so many parts that do not meet. Default: 1.
        dilation: int or (height, width), positive. Default: 1.

    Returns:
        (N, O, H', W') or (O, H', W') with
        ``H' = (H - 1) * stride - top - bottom + dilation * (kh - 1) + output_padding + 1``, W'
        likewise.

    Raises:
        RuntimeError: shapes, dtypes, devices, channels or numbers that do not fit.
        TypeError: an argument of the wrong type.
    """
    arguments = (input, weight, bias, stride, padding, output_padding, groups, dilation)
    if has_torch_function_variadic(input, weight, bias):
        return handle_torch_function(conv_transpose2d, arguments[:3], *arguments)
    return _conv_transpose(2, *arguments)
