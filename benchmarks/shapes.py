"""The layers that the benchmark times, as data.

To time another layer, add a row to ``SHAPES``; its name must be unique. A family is what the
geometric means are taken over; the families named ``sweep-…`` vary one number of one layer, and
become the curves of the charts.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Shape:
    """One convolution layer with bias, and its input's size; no data.

    ``size``, ``kernel``, ``stride``, ``padding`` (on both sides), ``dilation`` and
    ``output_padding`` have one number per axis: (height, width), or (length,) in 1-D. ``value`` is
    the number that a sweep varies.
    """

    name: str
    family: str
    n: int
    c_in: int
    c_out: int
    size: Sizes
    kernel: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes
    output_padding: Sizes
    groups: int = 1
    transposed: bool = False
    value: int | None = None

    @property
    def rank(self) -> int:
        """The number of axes, 1 or 2."""
        return len(self.size)

    @property
    def output_size(self) -> Sizes:
        axes = zip(
            self.size,
            self.kernel,
            self.stride,
            self.padding,
            self.dilation,
            self.output_padding,
            strict=True,
        )
        if self.transposed:
            return tuple((i - 1) * s - 2 * p + d * (k - 1) + o + 1 for i, k, s, p, d, o in axes)
        return tuple((i + 2 * p - d * (k - 1) - 1) // s + 1 for i, k, s, p, d, _ in axes)

    @property
    def image_size(self) -> Sizes:
        """The size of what the taps reach into: the input, or a transposed layer's output."""
        return self.output_size if self.transposed else self.size

    @property
    def grid_size(self) -> Sizes:
        """How often the kernel is applied: the output's size, or a transposed layer's input's."""
        return self.size if self.transposed else self.output_size

    @property
    def input_shape(self) -> Sizes:
        return (self.n, self.c_in, *self.size)

    @property
    def output_shape(self) -> Sizes:
        return (self.n, self.c_out, *self.output_size)

    @property
    def weight_shape(self) -> Sizes:
        if self.transposed:
            return (self.c_in, self.c_out // self.groups, *self.kernel)
        return (self.c_out, self.c_in // self.groups, *self.kernel)

    def __str__(self) -> str:
        def times(sizes: Sizes) -> str:
            return "×".join(map(str, sizes))

        parts = [f"{times(self.input_shape)} → {self.c_out}, {times(self.kernel)}"]
        parts += [f"d{times(self.dilation)}"] if prod(self.dilation) > 1 else []
        parts += [f"s{times(self.stride)}"] if prod(self.stride) > 1 else []
        parts += [f"p{times(self.padding)}"] if any(self.padding) else []
        parts += [f"g{self.groups}"] if self.groups > 1 else []
        return " ".join([*parts, *(["transposed"] if self.transposed else [])])


def conv(
    family: str,
    name: str,
    n: int,
    channels: tuple[int, int],
    size: int | Sizes,
    kernel: int | Sizes = 3,
    dilation: int | Sizes = 1,
    *,
    stride: int = 1,
    padding: str = "same",
    groups: int = 1,
    value: int | None = None,
) -> Shape:
    """A row: one number stands for both axes, but 1-D has its size written ``(length,)``."""
    sizes = (size, size) if isinstance(size, int) else size
    rank = len(sizes)
    kernels = (kernel,) * rank if isinstance(kernel, int) else kernel
    spread = (dilation,) * rank if isinstance(dilation, int) else dilation
    same = tuple(d * (k - 1) // 2 for k, d in zip(kernels, spread, strict=True))
    return Shape(
        name=name,
        family=family,
        n=n,
        c_in=channels[0],
        c_out=channels[1],
        size=sizes,
        kernel=kernels,
        stride=(stride,) * rank,
        padding=same if padding == "same" else (0,) * rank,
        dilation=spread,
        output_padding=(0,) * rank,
        groups=groups,
        value=value,
    )


def _depthwise(
    family: str,
    name: str,
    n: int,
    channels: int,
    size: int | Sizes,
    kernel: int,
    dilation: int,
    multiplier: int = 1,
) -> Shape:
    pair = (channels, channels * multiplier)
    return conv(family, name, n, pair, size, kernel, dilation, groups=channels)


WIDE = [
    conv("wide", "wide-256-d2", 2, (256, 256), 56, 3, 2),
    conv("wide", "wide-512-d2", 1, (512, 512), 33, 3, 2),
    conv("wide", "wide-512-d4", 1, (512, 512), 33, 3, 4),
    conv("wide", "wide-128-d1", 2, (128, 128), 56, 3, 1),
    conv("wide", "wide-128-d2", 4, (128, 128), 64, 3, 2),
    conv("wide", "wide-256-d4", 1, (256, 256), 65, 3, 4),
    conv("wide", "wide-256-n8", 8, (256, 256), 28, 3, 2),
    conv("wide", "wide-160-odd", 2, (160, 192), (47, 41), 3, 3),
]

NARROW = [
    conv("narrow", "narrow-24-d16", 2, (24, 24), 128, 3, 16),
    conv("narrow", "narrow-1-32", 4, (1, 32), 64, 3, 2),
    conv("narrow", "narrow-3-20", 2, (3, 20), 160, 3, 2),
    conv("narrow", "narrow-20-d4", 4, (20, 20), 96, 3, 4),
    conv("narrow", "narrow-16-d8", 1, (16, 16), 256, 3, 8),
    conv("narrow", "narrow-32-48", 8, (32, 48), 64, 3, 3),
    conv("narrow", "narrow-64-d2", 2, (64, 64), 56, 3, 2),
    conv("narrow", "narrow-64-d4", 2, (64, 64), 112, 3, 4),
    conv("narrow", "narrow-64-1", 2, (64, 1), 96, 3, 2),
]

ASPP = [
    conv("aspp", "aspp-320-33-r6", 1, (320, 256), 33, 3, 6),
    conv("aspp", "aspp-512-33-r12", 1, (512, 256), 33, 3, 12),
    conv("aspp", "aspp-2048-33-r18", 1, (2048, 256), 33, 3, 18),
    conv("aspp", "aspp-512-33-r24", 2, (512, 256), 33, 3, 24),
    conv("aspp", "aspp-256-65-r6", 1, (256, 256), 65, 3, 6),
    conv("aspp", "aspp-256-65-r12", 1, (256, 256), 65, 3, 12),
    conv("aspp", "aspp-320-49-r18", 1, (320, 256), 49, 3, 18),
    conv("aspp", "aspp-512-65-r24", 1, (512, 256), 65, 3, 24),
]

AUDIO_1D = [
    conv("audio-1d", "wavenet-64-d512", 1, (64, 128), (16000,), 2, 512, padding="valid"),
    conv("audio-1d", "tcn-64-d1", 8, (64, 64), (1000,), 3, 1),
    conv("audio-1d", "tcn-64-d16", 8, (64, 64), (1000,), 3, 16),
    conv("audio-1d", "tcn-25-d64", 16, (25, 25), (1000,), 7, 64),
    conv("audio-1d", "vocoder-256-k7", 1, (256, 256), (2048,), 7, 3),
    conv("audio-1d", "vocoder-64-k11", 1, (64, 64), (8192,), 11, 5),
    _depthwise("audio-1d", "tasnet-512-d128", 1, 512, (3200,), 3, 128),
]

AUDIO_2D = [
    conv("audio-2d", "spectrogram-32-d8", 2, (32, 32), (257, 100), 3, (1, 8)),
    conv("audio-2d", "spectrogram-48-5x5", 2, (48, 48), (128, 126), 5, (1, 4)),
    conv("audio-2d", "spectrogram-64-1x7", 2, (64, 64), (64, 200), (1, 7), (1, 2)),
    conv("audio-2d", "spectrogram-1-24", 4, (1, 24), (257, 100), (7, 3), (1, 2)),
]

# The layers of examples/nets.py.
NETWORKS = [
    conv("networks", "classifier-1", 32, (1, 32), 28, 3, 1, padding="valid"),
    conv("networks", "classifier-2", 32, (32, 64), 26, 3, 2, padding="valid"),
    conv("networks", "classifier-3", 32, (64, 128), 22, 3, 4, padding="valid"),
    conv("networks", "speech-1", 16, (1, 64), (100, 40), 3, 1),
    conv("networks", "speech-2", 16, (64, 64), (100, 40), 3, 2),
    conv("networks", "speech-3", 16, (64, 64), (100, 40), 3, 3),
    conv("networks", "generator-1", 32, (2, 64), 14, 5, 1),
    conv("networks", "generator-2", 32, (64, 64), 14, 5, 2),
    conv("networks", "generator-3", 32, (64, 64), 14, 5, 4),
    Shape(
        name="generator-up",
        family="networks",
        n=32,
        c_in=64,
        c_out=1,
        size=(14, 14),
        kernel=(3, 3),
        stride=(2, 2),
        padding=(1, 1),
        dilation=(1, 1),
        output_padding=(1, 1),
        transposed=True,
    ),
]

DEPTHWISE = [
    _depthwise("depthwise", "depthwise-256-d2", 2, 256, 56, 3, 2),
    _depthwise("depthwise", "depthwise-96-d1", 8, 96, 28, 3, 1),
    _depthwise("depthwise", "depthwise-960-d4", 1, 960, 33, 3, 4),
    _depthwise("depthwise", "depthwise-144-5x5", 2, 144, 56, 5, 2),
    _depthwise("depthwise", "depthwise-64-x2", 2, 64, 56, 3, 2, multiplier=2),
    _depthwise("depthwise", "depthwise-128-7x7", 2, 128, 56, 7, 3),
]

DEPTHWISE_LARGE = [
    _depthwise("depthwise-large", "depthwise-64-13x13", 1, 64, 56, 13, 1),
    _depthwise("depthwise-large", "depthwise-32-21x21-d2", 1, 32, 56, 21, 2),
    _depthwise("depthwise-large", "depthwise-96-31x31", 1, 96, 28, 31, 1),
]

GROUPED = [
    conv("grouped", "grouped-128-g32", 2, (128, 128), 56, 3, 2, groups=32),
    conv("grouped", "grouped-240-g3", 2, (240, 240), 28, 3, 2, groups=3),
    conv("grouped", "grouped-64-g8", 4, (64, 128), 48, 3, 4, groups=8),
]

POINTWISE = [
    conv("pointwise", "pointwise-256-64", 2, (256, 64), 56, 1),
    conv("pointwise", "pointwise-64-256", 4, (64, 256), 56, 1),
    conv("pointwise", "pointwise-24-144", 4, (24, 144), 64, 1),
    conv("pointwise", "pointwise-1280-256", 1, (1280, 256), 33, 1),
    conv("pointwise", "pointwise-256-512-s2", 2, (256, 512), 56, 1, stride=2),
    conv("pointwise", "pointwise-512-1d", 1, (512, 128), (3200,), 1),
]

STRIDED = [
    conv("strided", "strided-64-d1", 2, (64, 128), 112, 3, 1, stride=2),
    conv("strided", "strided-128-d2", 2, (128, 128), 57, 3, 2, stride=2),
    conv("strided", "strided-32-d3", 2, (32, 64), 128, 3, 3, stride=2),
    conv("strided", "strided-stem-7x7", 2, (3, 64), 160, 7, 1, stride=2),
]

TINY = [
    conv("tiny", "tiny-1-d1", 1, (1, 1), 8, 3, 1),
    conv("tiny", "tiny-4-d2", 1, (4, 4), 12, 3, 2),
    conv("tiny", "tiny-16-d1", 1, (16, 16), 7, 3, 1),
    conv("tiny", "tiny-8-1x1", 1, (8, 8), 10, 1),
    conv("tiny", "tiny-4-1d", 1, (4, 4), (32,), 3, 2),
    _depthwise("tiny", "tiny-16-depthwise", 1, 16, 9, 3, 2),
]


def _sweep(number: str, values: tuple[int, ...], **layer: int) -> list[Shape]:
    """One layer, ``layer``, with ``number`` replaced by each of ``values``."""
    rows = []
    for value in values:
        x = {**layer, number: value}
        channels = (x["channels"], x["channels"])
        name = f"{number}-{value}"
        row = (name, x["batch"], channels, x["size"], x["kernel"], x["dilation"])
        rows.append(conv(f"sweep-{number}", *row, value=value))
    return rows


SWEEPS = [
    *_sweep(
        "dilation",
        (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24),
        batch=2,
        channels=32,
        size=96,
        kernel=3,
    ),
    *_sweep("batch", (1, 2, 4, 8, 16, 32), channels=32, size=40, kernel=3, dilation=2),
    *_sweep("channels", (4, 8, 16, 32, 64, 128, 256), batch=1, size=40, kernel=3, dilation=2),
    *_sweep("size", (8, 16, 32, 64, 128, 256), batch=1, channels=24, kernel=3, dilation=4),
    *_sweep("kernel", (1, 3, 5, 7, 9, 11), batch=1, channels=24, size=64, dilation=2),
]

SHAPES: tuple[Shape, ...] = (
    *WIDE,
    *NARROW,
    *ASPP,
    *AUDIO_1D,
    *AUDIO_2D,
    *NETWORKS,
    *DEPTHWISE,
    *DEPTHWISE_LARGE,
    *GROUPED,
    *POINTWISE,
    *STRIDED,
    *TINY,
    *SWEEPS,
)

FAMILIES = tuple(dict.fromkeys(shape.family for shape in SHAPES))
