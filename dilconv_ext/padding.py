"""Turn every public form of ``padding`` into the operators' (top, bottom, left, right).

| form | meaning |
|---|---|
| ``p`` or ``(p,)`` | p on every side |
| ``(h, w)`` in 2-D, as in torch | h above and below, w left and right |
| ``(top, bottom, left, right)`` in 2-D | each side on its own |
| ``(left, right)`` in 1-D | each side on its own |
| ``'valid'`` | none |
| ``'same'`` | output size = input size; stride 1 only, as in torch |
| ``'same_upper'``, ``'same_lower'`` | output size = ceil(input size / stride); any stride |

``'same'`` splits the padding evenly and puts the odd pixel after (bottom, right), as torch does.
The two others are ONNX's SAME_UPPER and SAME_LOWER (Keras' and TensorFlow's 'same' is SAME_UPPER):
the odd pixel goes after for 'upper', before (top, left) for 'lower'. A transposed convolution takes
these two alone; there they mean output size = stride * input size, with the padding of the
convolution that is transposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ._arguments import integer

Pads = tuple[int, int, int, int]
Padding = str | int | tuple[int, ...] | list[int]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]

STRINGS = ("valid", "same", "same_upper", "same_lower")
TRANSPOSED_STRINGS = ("same_upper", "same_lower")


def pads_2d(
    padding: Padding,
    input: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> Pads:
    """Return (top, bottom, left, right) for ``input`` (…, H, W) and ``weight`` (…, kh, kw).

    Raises:
        TypeError: ``padding`` is of none of the types above.
        RuntimeError: a negative number, a sequence of another length, an unknown string, or 'same'
            with a stride other than 1.
    """
    if type(padding) is tuple and len(padding) == 2:
        height, width = padding
        if type(height) is int and type(width) is int and height >= 0 and width >= 0:
            return (height, height, width, width)
    elif type(padding) is int and padding >= 0:
        return (padding, padding, padding, padding)
    if isinstance(padding, str):
        return string_pads(padding, input.shape[-2:], weight.shape[-2:], stride, dilation)
    return numeric_pads(padding, axes=2)


def pads_1d(padding: Padding, input: Tensor, weight: Tensor, stride: int, dilation: int) -> Pads:
    """Return (0, 0, left, right) for ``input`` (…, L) and ``weight`` (…, k).

    Raises what ``pads_2d`` raises.
    """
    if type(padding) is tuple and len(padding) == 1:
        padding = padding[0]
    if type(padding) is int and padding >= 0:
        return (0, 0, padding, padding)
    if isinstance(padding, str):
        return string_pads(padding, input.shape[-1:], weight.shape[-1:], (stride,), (dilation,))
    return numeric_pads(padding, axes=1)


def numeric_pads(padding: Any, axes: int) -> Pads:
    """Return the four numbers for a padding given in numbers, in 1-D (``axes=1``) or 2-D.

    Raises:
        TypeError: ``padding`` holds something else than integers.
        RuntimeError: a negative number, or a sequence of another length.
    """
    values = padding if isinstance(padding, (tuple, list)) else (padding,)
    items = [integer("padding", value) for value in values]
    if len(items) == 1:
        items *= 2 * axes
    elif axes == 2 and len(items) == 2:
        items = [items[0], items[0], items[1], items[1]]
    elif len(items) != 2 * axes:
        forms = "(left, right)" if axes == 1 else "(height, width) or (top, bottom, left, right)"
        raise RuntimeError(
            f"expected padding to be a single integer value, {forms}, but got padding={padding}"
        )
    if any(item < 0 for item in items):
        raise RuntimeError(f"negative padding is not supported, but got padding={padding}")
    return (0, 0, items[0], items[1]) if axes == 1 else (items[0], items[1], items[2], items[3])


def string_pads(
    padding: str,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Pads:
    """Return the four numbers for a padding given by name; every sequence has one item per axis.

    ``sizes`` (the input's H, W or L) matters to 'same_upper' and 'same_lower' only.

    Raises:
        RuntimeError: an unknown name, or 'same' with a stride other than 1.
    """
    if padding == "valid":
        return (0, 0, 0, 0)
    if padding == "same":
        if any(step != 1 for step in stride):
            raise RuntimeError(
                "padding='same' is not supported for strided convolutions, but got "
                f"stride={tuple(stride)}; 'same_upper' (Keras' and ONNX's rule) takes any stride"
            )
        totals = [step * (k - 1) for k, step in zip(kernel, dilation, strict=True)]
    elif padding in STRINGS:
        axes = zip(sizes, kernel, stride, dilation, strict=True)
        totals = [_strided_total(size, k, step, spread) for size, k, step, spread in axes]
    else:
        raise RuntimeError(unknown_string(padding, STRINGS))
    return _split(totals, lower=padding == "same_lower")


def transposed_pads(
    padding: Padding,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Pads:
    """Return (top, bottom, left, right) by which a transposed convolution's output is cropped.

    Every sequence has one item per axis. With 'same_upper' and 'same_lower' the bottom and right
    are negative where the kernel, dilated, is shorter than the stride: the output then ends in rows
    that no kernel reaches (bias alone).

    Raises:
        TypeError: ``padding`` is of none of the types in this module's table, or another string:
            torch takes none here.
        RuntimeError: a negative number, or a sequence of another length.
    """
    if not isinstance(padding, str):
        return numeric_pads(padding, axes=len(kernel))
    if padding not in TRANSPOSED_STRINGS:
        raise TypeError(unknown_string(padding, TRANSPOSED_STRINGS))
    totals = [
        spread * (k - 1) + 1 - step
        for k, step, spread in zip(kernel, stride, dilation, strict=True)
    ]
    top, bottom, left, right = _split([max(t, 0) for t in totals], lower=padding == "same_lower")
    missing = [min(total, 0) for total in totals]
    return (top, bottom + (missing[0] if len(kernel) == 2 else 0), left, right + missing[-1])


def check_output_padding(
    output_padding: Sequence[int],
    padding: Padding,
    stride: Sequence[int],
    dilation: Sequence[int],
) -> None:
    """Raise the RuntimeError for an ``output_padding`` that a transposed convolution refuses."""
    if isinstance(padding, str):
        raise RuntimeError(
            f"output_padding must be 0 with padding={padding!r}, which fixes the output's size to "
            f"stride * input, but got output_padding={output_padding}"
        )
    for extra, step, spread in zip(output_padding, stride, dilation, strict=True):
        if extra < 0:
            raise RuntimeError(
                f"negative output_padding is not supported, but got output_padding={output_padding}"
            )
        if extra >= step and extra >= spread:
            raise RuntimeError(
                "output padding must be smaller than either stride or dilation, but got "
                f"output_padding={output_padding}, stride={stride}, dilation={dilation}"
            )


def unknown_string(padding: str, choices: tuple[str, ...]) -> str:
    """Return the message for a padding string that is none of ``choices``."""
    return f"Invalid padding string: {padding!r}, should be one of {', '.join(map(repr, choices))}"


def _strided_total(size: int, kernel: int, stride: int, dilation: int) -> int:
    """Return the padding with which a convolution's output has ceil(size / stride) positions."""
    if stride <= 0:
        raise RuntimeError(f"non-positive stride is not supported, but got stride={stride}")
    # Inductor and ONNX get quotients and remainders of negative symbols wrong, so there are none
    # here; nor a maximum where it cannot matter, so that torch.export can reason about the size.
    surplus = dilation * (kernel - 1) - (stride - 1)
    total = surplus + size * (stride - 1) % stride  # = surplus + -size % stride
    return total if surplus >= 0 else torch.sym_max(total, 0)


def _split(totals: list[int], *, lower: bool) -> Pads:
    pads = [0, 0] if len(totals) == 1 else []  # the height 1 of a 1-D problem is not padded
    for total in totals:
        smaller = total // 2
        pads += [total - smaller, smaller] if lower else [smaller, total - smaller]
    return (pads[0], pads[1], pads[2], pads[3])
