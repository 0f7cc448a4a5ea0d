"""How much of the input one output of a stack of layers depends on.

For a chain of layers with kernel size k, stride s, dilation d and padding p before the first pixel

    size_l  = size_{l-1}  + (k - 1) * d * jump_{l-1}
    jump_l  = jump_{l-1}  * s
    start_l = start_{l-1} + ((k - 1) * d / 2 - p) * jump_{l-1}

with size_0 = jump_0 = 1 and start_0 = 0. Source: A. Araujo, W. Norris and J. Sim, "Computing
Receptive Fields of Convolutional Neural Networks", Distill, 2019,
https://distill.pub/2019/computing-receptive-fields.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from ._arguments import integer
from .padding import Padding, numeric_pads, string_pads

Numbers = int | tuple[int, ...]

_WINDOWED_1D = (nn.Conv1d, nn.MaxPool1d, nn.AvgPool1d, nn.LPPool1d)
_WINDOWED_2D = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d)
_WINDOWED = _WINDOWED_1D + _WINDOWED_2D
# What leaves pixels where they are: all classes in these files of torch.nn.modules, and these.
_PASSED_FILES = (
    "activation",
    "batchnorm",
    "channelshuffle",
    "dropout",
    "instancenorm",
    "normalization",
)
_PASSED = (nn.Identity, nn.Sequential, nn.ModuleList, nn.ModuleDict)  # the last three when empty
_GLOBAL = (
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.Flatten,
    nn.Linear,
    nn.MultiheadAttention,
)


class Layer(NamedTuple):
    """One convolution or pooling: what decides its receptive field.

    Numbers are an int for every axis, or a tuple with one per axis.

    Attributes:
        kernel_size: taps.
        stride: Default: 1.
        dilation: Default: 1.
        padding: as in ``dilconv_ext.padding``. Default: 0.
        name: for the printed table. Default: ''.
    """

    kernel_size: Numbers
    stride: Numbers = 1
    dilation: Numbers = 1
    padding: Padding = 0
    name: str = ""


class Row(NamedTuple):
    """The receptive field after one layer; see ``ReceptiveField``."""

    name: str
    size: tuple[int, ...]
    jump: tuple[float, ...]
    start: tuple[float, ...]


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive field of a chain of layers, per axis (height, width). ``print`` it.

    Attributes:
        size: input pixels between the first and the last that an output depends on, both included.
            With dilation some in between may not matter.
        jump: input pixels between the fields of two neighbouring outputs; a fraction where the
            output was upsampled.
        start: the centre of the first output's field in pixels, where 0 is the centre of the first
            input pixel. nan where it depends on the input's size ('same_upper' and 'same_lower'
            with a stride).
        layers: the same after each layer.
    """

    size: tuple[int, ...]
    jump: tuple[float, ...]
    start: tuple[float, ...]
    layers: tuple[Row, ...]

    def __str__(self) -> str:
        header = ("layer", "size", "jump", "start")
        rows = [(row.name, *(_by_axis(numbers) for numbers in row[1:])) for row in self.layers]
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        lines = []
        for name, *numbers in (header, *rows):
            cells = [text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True)]
            lines.append("  ".join((name.ljust(widths[0]), *cells)))
        return "\n".join(lines)


def receptive_field(
    model_or_layers: nn.Module | Iterable[Any], input_size: tuple[int, ...] | None = None
) -> ReceptiveField:
    """Compute the receptive field of any model, or of a chain of layers.

    With ``input_size`` the model is run, and the field is that of the function it computes: with
    branches, skips, layers used twice, upsampling and modules of any kind. It is the largest field
    of the outputs that do not see the border. Group and instance normalisation, attention, and
    squeeze-and-excitation average over the image, and so see all of it.

    Without, the field follows from the layers' numbers alone. A model's convolutions and poolings
    are taken in the order in which its modules were registered, which must be the order in which
    they run, each once: this holds for ``nn.Sequential``, and for most plain networks without
    branches. Branches, skips and layers used twice are not seen. Activations, dropout and
    normalisations are passed by; the walk ends at the first layer that looks at the whole input
    (``nn.Flatten``, ``nn.Linear``, adaptive pooling, attention), and the result is that of the
    layers before it.

    Args:
        model_or_layers: a module, or an iterable of modules, ``Layer`` tuples, or mappings with
            ``Layer``'s names as keys.
        input_size: (C, H, W) or (C, L) of an input large enough for some outputs not to see its
            border; the model must be a module. Default: None: nothing is run.

    Returns:
        A ``ReceptiveField`` with one number per axis: one for 1-D layers and two for 2-D ones.
        Where all numbers are ints, one stands for every axis.

    Raises:
        TypeError: an item of the iterable is none of the above, or a number is no int.
        RuntimeError: a ``padding`` that a convolution would refuse.
        ValueError: a module that this function cannot follow (transposed convolutions, 3-D layers,
            unknown modules), layers of differing dimensions, numbers below 1, or no layer at all.
            With ``input_size``: every output reaches the border.

    Examples:
        >>> print(receptive_field([Layer(3), Layer(3, dilation=2), Layer(3, dilation=4)]))
        layer    size  jump  start
        layer 1     3     1      1
        layer 2     7     1      3
        layer 3    15     1      7
    """
    if input_size is not None:
        if not isinstance(model_or_layers, nn.Module):
            raise TypeError("input_size is for a model, which is run; a list of layers is not")
        from ._traced_field import traced

        return traced(model_or_layers, input_size)
    layers, axes = _chain(model_or_layers)
    size, jump, start = (1,) * axes, (1,) * axes, (0.0,) * axes
    rows = []
    for number, layer in enumerate(layers, start=1):
        name, taps, strides, dilations = _geometry(number, layer, axes)
        pads = _pads_before(layer.padding, taps, strides, dilations)
        reach = [(k - 1) * d for k, d in zip(taps, dilations, strict=True)]
        shifts = [(r / 2 - p) * j for r, p, j in zip(reach, pads, jump, strict=True)]
        start = tuple(c + shift for c, shift in zip(start, shifts, strict=True))
        size = tuple(n + r * j for n, r, j in zip(size, reach, jump, strict=True))
        jump = tuple(j * s for j, s in zip(jump, strides, strict=True))
        rows.append(Row(name, size, jump, start))
    return ReceptiveField(size, jump, start, tuple(rows))


def axis_numbers(model_or_layers: nn.Module | Iterable[Any]) -> list[list[tuple[int, int, int]]]:
    """Return per axis each layer's (kernel size, stride, dilation); raises as above."""
    layers, axes = _chain(model_or_layers)
    numbers = []
    for number, layer in enumerate(layers, start=1):
        _, taps, strides, dilations = _geometry(number, layer, axes)
        numbers.append(list(zip(taps, strides, dilations, strict=True)))
    return [list(axis) for axis in zip(*numbers, strict=True)]


def _chain(model_or_layers: nn.Module | Iterable[Any]) -> tuple[list[Layer], int]:
    """Return the layers, and of how many axes they are."""
    layers = list(_layers(model_or_layers))
    if not layers:
        raise ValueError("receptive_field needs at least one convolution or pooling, but got none")
    return layers, _count_axes(layers)


def _layers(source: nn.Module | Iterable[Any]) -> Iterator[Layer]:
    """Yield the layers in order, up to the first module that looks at the whole input."""
    for name, item in _leaves(source):
        if isinstance(item, Layer):
            yield item
        elif isinstance(item, Mapping):
            yield Layer(**item)
        elif isinstance(item, _GLOBAL):
            return
        elif isinstance(item, _WINDOWED):
            yield _from_module(name, item)
        elif not isinstance(item, nn.Module):
            raise TypeError(
                "receptive_field takes modules, Layer tuples and mappings with Layer's names, but "
                f"got {item!r} ({type(item).__name__})"
            )
        elif not _is_passed(item):
            raise ValueError(
                f"receptive_field cannot follow {name or 'the model'}, a {type(item).__name__}: "
                "give it the convolutions and poolings as a list instead"
            )


def _leaves(source: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (name, leaf) for the leaf modules below a module, or for the items of a list."""
    if not isinstance(source, nn.Module):
        for item in source:
            yield from _leaves(item) if isinstance(item, nn.Module) else [("", item)]
        return
    children = dict(source.named_children())
    if not children or isinstance(source, _WINDOWED + _GLOBAL):  # a parametrized layer has children
        yield prefix, source
        return
    for name, child in children.items():
        yield from _leaves(child, f"{prefix}.{name}" if prefix else name)


def _is_passed(module: nn.Module) -> bool:
    package, _, file = type(module).__module__.rpartition(".")
    return isinstance(module, _PASSED) or (package == "torch.nn.modules" and file in _PASSED_FILES)


def _from_module(name: str, module: Any) -> Layer:
    axes = 1 if isinstance(module, _WINDOWED_1D) else 2
    taps, stride = module.kernel_size, module.stride
    return Layer(
        per_axis(taps, axes),
        per_axis(taps if stride is None else stride, axes),
        per_axis(getattr(module, "dilation", 1), axes),
        getattr(module, "padding", 0),
        name or type(module).__name__,
    )


def per_axis(numbers: Any, axes: int) -> tuple[int, ...]:
    """Return one number per axis."""
    return tuple(numbers) if isinstance(numbers, (tuple, list)) else (numbers,) * axes


def _count_axes(layers: list[Layer]) -> int:
    numbers = [n for layer in layers for n in (layer.kernel_size, layer.stride, layer.dilation)]
    counts = {len(n) for n in numbers if isinstance(n, (tuple, list))} or {1}
    if len(counts) > 1 or not counts <= {1, 2}:
        raise ValueError(
            "receptive_field takes layers that are all 1-D or all 2-D, but got numbers for "
            f"{' and '.join(map(str, sorted(counts)))} axes"
        )
    return counts.pop()


def _per_axis(layer: str, what: str, numbers: Any, axes: int) -> tuple[int, ...]:
    values = tuple(integer(what, number) for number in per_axis(numbers, axes))
    if any(value < 1 for value in values):
        raise ValueError(f"{layer}: {what} must be positive, but got {what}={numbers}")
    return values


def _geometry(
    number: int, layer: Layer, axes: int
) -> tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return the layer's name, and its kernel size, stride and dilation per axis."""
    name = layer.name or f"layer {number}"
    return (
        name,
        _per_axis(name, "kernel_size", layer.kernel_size, axes),
        _per_axis(name, "stride", layer.stride, axes),
        _per_axis(name, "dilation", layer.dilation, axes),
    )


def _pads_before(
    padding: Padding,
    taps: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
) -> Sequence[float]:
    """Return the padding above and on the left (in 1-D: on the left)."""
    if not isinstance(padding, str):
        return numeric_pads(padding, len(taps))[2 * (2 - len(taps)) :: 2]
    return [
        # With a stride these depend on the size; without, any size (here 1) gives the same.
        math.nan
        if padding in ("same_upper", "same_lower") and stride != 1
        else string_pads(padding, (1,), (k,), (stride,), (dilation,))[2]
        for k, stride, dilation in zip(taps, strides, dilations, strict=True)
    ]


def _by_axis(numbers: tuple[float, ...]) -> str:
    return " × ".join(f"{number:g}" for number in numbers)
