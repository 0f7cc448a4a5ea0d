"""The convolution problems every kernel is tested on, as data.

To add a problem, add a row to ``PROBLEMS``: the tests of the ops, of determinism, threads and
memory formats pick it up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Pair = tuple[int, int]


@dataclass(frozen=True)
class Problem:
    """One convolution: its sizes and parameters, no data.

    ``n`` is None for an unbatched input. ``size`` and ``kernel`` have two entries, or one in 1-D.
    ``stride``, ``padding`` (top, bottom, left, right) and ``dilation`` are always those of the ops,
    for which a 1-D problem has height 1.
    """

    name: str
    n: int | None
    c_in: int
    c_out: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: Pair = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    slow: bool = False

    @property
    def rank(self) -> int:
        """Number of spatial axes, 1 or 2."""
        return len(self.kernel)

    @property
    def output_size(self) -> tuple[int, ...]:
        pads = (sum(self.padding[:2]), sum(self.padding[2:]))
        sizes = zip(
            self.size,
            self.kernel,
            self.stride[-self.rank :],
            pads[-self.rank :],
            self.dilation[-self.rank :],
            strict=True,
        )
        return tuple((i + p - d * (k - 1) - 1) // s + 1 for i, k, s, p, d in sizes)

    @property
    def batch(self) -> tuple[int, ...]:
        return () if self.n is None else (self.n,)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (*self.batch, self.c_in, *self.size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.c_out, self.c_in // self.groups, *self.kernel)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (*self.batch, self.c_out, *self.output_size)

    @property
    def params(self) -> tuple[Any, ...]:
        """stride, padding, dilation and groups: the tail of every op's arguments."""
        return self.stride, self.padding, self.dilation, self.groups

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Tensors:
    """Data for one problem; ``bias`` is for the output's channels, ``bias_in`` for the input's."""

    x: Tensor
    w: Tensor
    g: Tensor
    bias: Tensor
    bias_in: Tensor

    def map(self, f: Any) -> Tensors:
        """The same with ``f`` applied to each tensor."""
        return Tensors(*(f(t) for t in (self.x, self.w, self.g, self.bias, self.bias_in)))


def random_tensor(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Normal values for floating types; for integers, values over the type's whole range.

    The values are the same on every device.
    """
    if dtype.is_floating_point or dtype.is_complex:
        wide = torch.complex128 if dtype.is_complex else torch.float64
        values = torch.randn(shape, dtype=wide, generator=generator, device="cpu").to(dtype)
    else:
        info = torch.iinfo(dtype)
        values = torch.randint(
            info.min, info.max, shape, dtype=dtype, generator=generator, device="cpu"
        )
    return values.to(torch.get_default_device())


def make_tensors(problem: Problem, dtype: torch.dtype, seed: int = 0) -> Tensors:
    """Contiguous tensors of ``problem`` with the same values every time."""
    generator = torch.Generator("cpu").manual_seed(seed)
    shapes = (
        problem.input_shape,
        problem.weight_shape,
        problem.output_shape,
        (problem.c_out,),
        (problem.c_in,),
    )
    return Tensors(*(random_tensor(shape, dtype, generator) for shape in shapes))


def channels_last(t: Tensor) -> Tensor:
    """``t`` with its channels innermost in memory, for any rank (torch names only the 4-D case)."""
    if t.dim() < 2:
        return t
    channel = 0 if t.dim() == 2 else t.dim() - 3 if t.dim() == 3 else 1
    return t.movedim(channel, -1).contiguous().movedim(-1, channel)


def transposed(t: Tensor) -> Tensor:
    """The same values, the first and last dimensions exchanged in memory."""
    return t.transpose(0, -1).contiguous().transpose(0, -1)


def sliced(t: Tensor) -> Tensor:
    """The same values, every other element of each dimension of a larger tensor of NaNs."""
    wide = t.new_full([2 * s + 1 for s in t.shape], float("nan"))
    part = wide[tuple(slice(1, None, 2) for _ in t.shape)]
    part.copy_(t)
    return part


def misaligned(t: Tensor) -> Tensor:
    """The same values, one element further in memory than an allocation begins."""
    part = t.new_full([t.numel() + 1], float("nan"))[1:].view(t.shape)
    part.copy_(t)
    return part


PROBLEMS: list[Problem] = [
    # The plain cases, and tails: sizes and channels just off every vector and block length.
    Problem("plain_3x3", 2, 4, 6, (8, 8), (3, 3), padding=(1, 1, 1, 1)),
    Problem("no_padding", 2, 4, 6, (8, 9), (3, 3)),
    Problem("dilated_2", 2, 5, 7, (9, 10), (3, 3), padding=(2, 2, 2, 2), dilation=(2, 2)),
    Problem("dilated_per_axis", 2, 3, 8, (11, 14), (3, 3), padding=(3, 3, 2, 2), dilation=(3, 2)),
    Problem("tail_width_1", 1, 8, 8, (5, 1), (3, 3), padding=(1, 1, 1, 1)),
    Problem("tail_width_7", 1, 7, 9, (4, 7), (3, 3), padding=(1, 1, 1, 1)),
    Problem("tail_width_13", 2, 15, 17, (3, 13), (3, 3), padding=(1, 1, 1, 1)),
    Problem("tail_width_17", 1, 16, 16, (2, 17), (3, 3), padding=(1, 1, 1, 1)),
    Problem("tail_width_31", 1, 2, 31, (3, 31), (3, 3), padding=(2, 2, 2, 2), dilation=(2, 2)),
    Problem("tail_width_33", 1, 33, 5, (3, 33), (3, 3), padding=(1, 1, 1, 1)),
    Problem("tail_width_65", 1, 3, 3, (2, 65), (1, 3), padding=(0, 0, 1, 1)),
    # A long sum over pixels: the weight's gradient must add it in pieces.
    Problem("long_pixel_sum", 1, 35, 35, (8, 30), (7, 7), padding=(3, 3, 3, 3)),
    # Phases of unequal length, tiles of both sizes, vectors that overlap; more phases than a block.
    Problem("tiles_4", 2, 20, 40, (25, 30), (3, 3), padding=(2, 1, 3, 3), dilation=(2, 3)),
    Problem("tiles_3", 2, 33, 18, (12, 16), (3, 3), padding=(4, 4, 5, 6), dilation=(4, 5)),
    Problem("tiles_2", 1, 34, 33, (8, 10), (3, 3), padding=(4, 4, 5, 5), dilation=(4, 5)),
    Problem("tiles_5x5", 2, 20, 33, (19, 21), (5, 5), padding=(4, 4, 6, 6), dilation=(2, 3)),
    Problem("tiles_1x2", 2, 34, 20, (3, 77), (1, 2), padding=(0, 0, 5, 0), dilation=(4, 5)),
    Problem("tiles_1x5", 1, 18, 20, (3, 55), (1, 5), padding=(0, 0, 6, 6), dilation=(1, 3)),
    Problem("tiles_3x1", 2, 33, 17, (25, 9), (3, 1), padding=(4, 4, 0, 0), dilation=(4, 3)),
    Problem("tiles_4x4", 2, 20, 33, (19, 21), (4, 4), padding=(3, 4, 5, 4), dilation=(2, 3)),
    Problem("tiles_1x4", 1, 18, 20, (3, 55), (1, 4), padding=(0, 0, 6, 3), dilation=(1, 3)),
    Problem("tiles_4x1", 2, 33, 17, (25, 9), (4, 1), padding=(8, 4, 0, 0), dilation=(4, 3)),
    Problem("tiles_5x1", 1, 34, 20, (31, 7), (5, 1), padding=(4, 4, 0, 0), dilation=(2, 1)),
    Problem("tiles_1d", 2, 40, 24, (150,), (3,), padding=(0, 0, 16, 0), dilation=(1, 8)),
    Problem("many_phases", 1, 18, 17, (7, 83), (3, 3), padding=(3, 3, 40, 9), dilation=(3, 35)),
    # Kernels that winograd cuts into pieces: of few and of many channels, up to 16 of them.
    Problem("pieces_1x7", 2, 20, 24, (3, 57), (1, 7), padding=(0, 0, 6, 9), dilation=(1, 3)),
    Problem("pieces_7x7", 1, 33, 18, (15, 14), (7, 7), padding=(3, 3, 6, 6), dilation=(1, 2)),
    Problem("pieces_5x3", 1, 16, 34, (18, 17), (5, 3), padding=(4, 4, 1, 1), dilation=(2, 1)),
    Problem("pieces_chunks", 1, 50, 18, (90,), (13,), padding=(0, 0, 24, 0), dilation=(1, 2)),
    Problem("pieces_groups", 2, 6, 40, (9, 40), (2, 11), padding=(1, 0, 5, 5), groups=2),
    Problem("pieces_16", 1, 3, 17, (18, 15), (16, 15), padding=(8, 7, 7, 7)),
    # Narrow channels.
    Problem("channels_1_to_1", 2, 1, 1, (7, 9), (3, 3), padding=(1, 1, 1, 1)),
    Problem("channels_1_to_32", 2, 1, 32, (10, 10), (3, 3), padding=(1, 1, 1, 1)),
    Problem("channels_3_to_20", 2, 3, 20, (9, 11), (3, 3), padding=(2, 2, 2, 2), dilation=(2, 2)),
    Problem("channels_20_to_3", 1, 20, 3, (9, 9), (3, 3), padding=(1, 1, 1, 1)),
    Problem("channels_24_to_24", 1, 24, 24, (8, 10), (3, 3), padding=(2, 2, 2, 2), dilation=(2, 2)),
    Problem("channels_24_to_1", 1, 24, 1, (6, 6), (3, 3), padding=(1, 1, 1, 1)),
    # Wider ones.
    Problem("channels_32_to_2", 3, 32, 2, (7, 9), (3, 3), padding=(1, 1, 2, 2), dilation=(1, 2)),
    Problem("channels_160_to_3", 1, 160, 3, (5, 6), (3, 3), padding=(1, 1, 1, 1)),
    Problem("channels_16_to_48", 2, 16, 48, (6, 21), (3, 3), padding=(2, 2, 1, 1), dilation=(2, 1)),
    Problem("rows_hold_vectors", 2, 6, 18, (5, 75), (3, 3), padding=(1, 1, 4, 4), dilation=(1, 4)),
    Problem("channels_64_to_64", 1, 64, 64, (7, 9), (3, 3), padding=(2, 2, 2, 2), dilation=(2, 2)),
    Problem("channels_33_to_65", 2, 33, 65, (6, 5), (3, 3), padding=(1, 1, 1, 1)),
    Problem("channels_130_to_40", 1, 130, 40, (5, 6), (3, 3), padding=(1, 1, 1, 1)),
    Problem("channels_24_to_112", 1, 24, 112, (9, 15), (3, 3), padding=(1, 1, 1, 1)),
    # Few written channels, of conv2d or of grad_input: several blocks of lanes, several segments of
    # a row, sums of more than one chain, rows and columns in several tasks.
    Problem("few_7x7", 1, 20, 3, (13, 40), (7, 7), padding=(6, 6, 3, 3), dilation=(2, 1)),
    Problem("few_wide", 2, 130, 2, (3, 150), (3, 3), padding=(1, 1, 2, 2), dilation=(1, 2)),
    Problem("few_long", 1, 12, 1, (1, 3000), (1, 5), padding=(0, 0, 64, 0), dilation=(1, 16)),
    Problem("few_tall", 1, 9, 2, (301, 20), (3, 3), padding=(3, 3, 1, 1), dilation=(3, 1)),
    Problem("few_strided", 2, 2, 26, (15, 34), (4, 4), (2, 2), (1, 1, 1, 1)),
    Problem("few_of_groups", 2, 2, 34, (11, 9), (3, 3), padding=(1, 1, 1, 1), groups=2),
    # Kernels of other shapes.
    Problem("kernel_1x1", 2, 20, 12, (6, 7), (1, 1)),
    Problem("kernel_1x1_wide", 1, 96, 48, (9, 9), (1, 1)),
    Problem("kernel_1x1_strided", 2, 6, 8, (7, 8), (1, 1), stride=(2, 3)),
    Problem("kernel_1x1_padded", 1, 4, 5, (3, 4), (1, 1), padding=(1, 2, 0, 3)),
    Problem("kernel_2x2_even", 2, 4, 4, (6, 6), (2, 2), padding=(0, 1, 0, 1)),
    Problem("kernel_4x4_even", 1, 3, 6, (8, 9), (4, 4), padding=(1, 2, 1, 2)),
    Problem("kernel_5x5", 1, 6, 8, (9, 12), (5, 5), padding=(2, 2, 2, 2)),
    Problem("kernel_5x5_dilated", 1, 5, 6, (12, 13), (5, 5), padding=(4, 4, 4, 4), dilation=(2, 2)),
    Problem("kernel_1x5", 2, 5, 6, (4, 11), (1, 5), padding=(0, 0, 4, 4), dilation=(1, 2)),
    Problem("kernel_5x1", 2, 5, 6, (11, 4), (5, 1), padding=(4, 4, 0, 0), dilation=(2, 1)),
    Problem("kernel_7x7_stem", 1, 3, 16, (17, 18), (7, 7), stride=(2, 2), padding=(3, 3, 3, 3)),
    Problem("kernel_is_image", 2, 5, 6, (4, 5), (4, 5)),
    Problem("kernel_9x2", 1, 3, 4, (11, 6), (9, 2), padding=(4, 4, 1, 0)),
    # Strides.
    Problem("stride_2", 2, 6, 10, (9, 10), (3, 3), stride=(2, 2), padding=(1, 1, 1, 1)),
    Problem("stride_per_axis", 1, 4, 5, (10, 13), (3, 3), stride=(3, 2), padding=(1, 1, 1, 1)),
    Problem("stride_over_kernel", 2, 4, 6, (11, 13), (2, 2), stride=(3, 4)),
    Problem("stride_over_image", 1, 3, 4, (5, 6), (3, 3), stride=(9, 8)),
    Problem("stride_2_dilated_2", 2, 5, 6, (11, 12), (3, 3), (2, 2), (2, 2, 2, 2), (2, 2)),
    Problem("stride_2_dilated_3", 1, 4, 7, (13, 12), (3, 3), (2, 2), (3, 3, 3, 3), (3, 3)),
    Problem("stride_3_dilated_2", 1, 7, 4, (13, 14), (3, 3), (3, 3), (2, 2, 2, 2), (2, 2)),
    # 'same' in its two forms for a stride, as ONNX and Keras align it.
    Problem("same_upper_stride_2", 2, 4, 6, (8, 10), (3, 3), stride=(2, 2), padding=(0, 1, 0, 1)),
    Problem("same_lower_stride_2", 2, 4, 6, (8, 10), (3, 3), stride=(2, 2), padding=(1, 0, 1, 0)),
    # Pads: larger than the image, uneven, negative; windows that see nothing but padding.
    Problem("pad_over_image", 2, 3, 4, (3, 4), (3, 3), padding=(5, 5, 6, 6)),
    Problem("pad_over_image_dilated", 1, 3, 5, (3, 2), (3, 3), (2, 2), (9, 8, 7, 9), (4, 3)),
    Problem("pad_only_windows", 1, 2, 3, (2, 2), (2, 2), stride=(3, 3), padding=(6, 5, 4, 7)),
    Problem("pad_asymmetric", 2, 4, 5, (7, 8), (3, 3), padding=(0, 2, 3, 1)),
    Problem("pad_one_side", 1, 4, 5, (6, 7), (3, 3), padding=(0, 0, 0, 4), dilation=(1, 2)),
    Problem("pad_negative", 2, 4, 5, (9, 10), (3, 3), padding=(-1, 0, 2, -2)),
    Problem("pad_negative_strided", 1, 3, 4, (10, 11), (3, 3), (2, 3), (-2, -1, -1, 1), (2, 1)),
    # Dilation beyond the image: most taps, or all but one, fall into the padding.
    Problem("dilation_over_image", 2, 5, 6, (5, 6), (3, 3), padding=(7, 7, 9, 9), dilation=(7, 9)),
    Problem("dilation_over_image_even", 1, 4, 4, (4, 5), (2, 2), (1, 1), (6, 6, 6, 6), (6, 6)),
    Problem("dilation_edge", 1, 3, 4, (9, 9), (3, 3), dilation=(4, 4)),
    Problem("aspp_6", 1, 16, 8, (17, 17), (3, 3), padding=(6, 6, 6, 6), dilation=(6, 6)),
    Problem("aspp_12", 1, 16, 8, (17, 17), (3, 3), padding=(12, 12, 12, 12), dilation=(12, 12)),
    Problem("aspp_18", 1, 16, 8, (17, 17), (3, 3), padding=(18, 18, 18, 18), dilation=(18, 18)),
    # Groups, depthwise, channel multiplier.
    Problem("groups_2", 2, 6, 8, (7, 8), (3, 3), padding=(1, 1, 1, 1), groups=2),
    Problem("groups_3_strided", 1, 9, 6, (8, 9), (3, 3), (2, 1), (2, 2, 2, 2), (2, 2), groups=3),
    Problem("groups_uneven_tail", 1, 10, 35, (6, 9), (3, 3), padding=(1, 1, 1, 1), groups=5),
    Problem("groups_1x1", 2, 12, 8, (5, 6), (1, 1), groups=4),
    Problem("groups_of_2", 2, 18, 18, (7, 9), (3, 3), (1, 1), (2, 2, 2, 2), (2, 2), groups=9),
    Problem("groups_of_4", 1, 36, 36, (8, 17), (3, 3), padding=(1, 1, 1, 1), groups=9),
    Problem("groups_of_4_strided", 2, 24, 24, (9, 11), (3, 2), (2, 3), (3, 0, 1, 1), (2, 1), 6),
    Problem("groups_of_8", 1, 24, 24, (6, 16), (5, 3), (1, 1), (2, 2, 3, 3), (1, 3), groups=3),
    Problem("groups_of_4_1x1", 2, 20, 20, (5, 6), (1, 1), groups=5),
    Problem("depthwise", 2, 8, 8, (8, 9), (3, 3), padding=(1, 1, 1, 1), groups=8),
    Problem("depthwise_20", 1, 20, 20, (9, 17), (3, 3), (1, 1), (2, 2, 2, 2), (2, 2), groups=20),
    Problem("depthwise_strided", 2, 7, 7, (11, 12), (3, 3), (2, 2), (2, 2, 2, 2), (2, 2), groups=7),
    Problem("depthwise_pairs", 2, 45, 45, (7, 10), (3, 3), (1, 1), (1, 2, 2, 1), (1, 2), groups=45),
    Problem("depthwise_5x5", 1, 6, 6, (10, 11), (5, 5), (1, 1), (6, 6, 6, 6), (3, 3), groups=6),
    Problem("depthwise_7x7", 1, 35, 35, (4, 30), (7, 7), padding=(3, 3, 3, 3), groups=35),
    Problem("depthwise_apart", 1, 17, 17, (2, 60), (1, 9), (1, 1), (0, 0, 8, 8), (1, 2), groups=17),
    Problem("depthwise_x3", 2, 19, 57, (9, 11), (3, 3), (2, 1), (1, 2, 1, 1), groups=19),
    Problem("depthwise_x2_5x5", 1, 16, 32, (8, 17), (5, 5), (1, 1), (4, 4, 4, 4), (2, 2), 16),
    Problem("depthwise_beyond", 1, 17, 17, (6, 5), (13, 11), padding=(6, 6, 5, 5), groups=17),
    Problem("depthwise_tiles", 1, 16, 16, (40, 530), (3, 3), padding=(1, 1, 1, 1), groups=16),
    # Tiles of rows that read nothing but padding; cropped: of grad_input.
    Problem("depthwise_pad_tiles", 1, 2, 2, (8, 64), (3, 3), padding=(40, 1, 1, 1), groups=2),
    Problem("depthwise_pad_tiles_5x5", 1, 2, 2, (8, 64), (5, 5), padding=(50, 1, 2, 2), groups=2),
    Problem("depthwise_pad_tiles_9x3", 1, 2, 2, (8, 64), (9, 3), padding=(90, 1, 1, 1), groups=2),
    Problem("depthwise_pad_phases", 1, 1, 1, (8, 64), (3, 3), (1, 1), (160, 1, 4, 4), (4, 4)),
    Problem("depthwise_crop_tiles", 1, 2, 2, (180, 64), (3, 3), padding=(-80, -80, 1, 1), groups=2),
    Problem("depthwise_uneven_pad", 1, 5, 5, (6, 7), (3, 3), (1, 1), (0, 4, 3, 1), (2, 2), 5),
    Problem("channel_multiplier_2", 2, 5, 10, (7, 8), (3, 3), padding=(1, 1, 1, 1), groups=5),
    Problem("channel_multiplier_3", 1, 4, 12, (9, 9), (3, 3), (2, 2), (2, 2, 2, 2), (2, 2), 4),
    Problem("few_outputs", 2, 48, 2, (7, 9), (4, 3), (1, 1), (3, 2, 0, 3), (2, 1)),
    Problem("few_outputs_groups", 1, 34, 4, (6, 8), (2, 3), (1, 1), (1, 0, -1, 2), (1, 2), 2),
    Problem("few_outputs_tiles", 1, 20, 3, (34, 40), (3, 3), (1, 1), (4, 3, 2, 5), (2, 3)),
    Problem("few_outputs_wide", 2, 18, 12, (9, 70), (3, 3), (1, 1), (4, 4, 4, 4), (4, 4)),
    Problem("few_outputs_beyond", 1, 8, 2, (6, 70), (3, 3), (1, 1), (9, 9, 60, 60), (9, 60)),
    Problem("few_outputs_taps", 1, 5, 1, (9, 40), (2, 64), padding=(1, 0, 30, 33)),
    Problem("one_input_wide", 2, 1, 12, (9, 70), (3, 3), padding=(1, 1, 1, 1)),
    Problem("few_inputs_column", 2, 2, 20, (9, 2), (4, 3), (2, 3), (5, 5, 1, 1), (4, 1)),
    Problem("few_inputs_many_outputs", 1, 2, 290, (6, 7), (3, 3), padding=(1, 1, 1, 1)),
    Problem("few_inputs_strided", 2, 4, 26, (15, 37), (3, 5), (3, 2), (3, 1, 4, 2), (2, 1), 2),
    # Degenerate sizes.
    Problem("image_1x1", 2, 5, 6, (1, 1), (1, 1)),
    Problem("image_1x1_padded", 2, 5, 6, (1, 1), (3, 3), padding=(1, 1, 1, 1)),
    Problem("image_1x1_dilated", 1, 3, 4, (1, 1), (3, 3), padding=(5, 5, 5, 5), dilation=(5, 5)),
    Problem("image_1_row", 1, 4, 4, (1, 12), (3, 3), padding=(1, 1, 1, 1)),
    Problem("image_1_column", 1, 4, 4, (12, 1), (3, 3), padding=(2, 2, 2, 2), dilation=(2, 2)),
    Problem("batch_0", 0, 4, 6, (8, 8), (3, 3), padding=(1, 1, 1, 1)),
    Problem("batch_0_depthwise", 0, 4, 4, (8, 8), (3, 3), groups=4),
    Problem("batch_40", 40, 32, 4, (3, 2), (3, 3), padding=(1, 1, 1, 1)),
    Problem("columns_40", 1, 32, 4, (40, 3), (3, 3), padding=(1, 1, 1, 1)),
    Problem("1x1_pad_below", 2, 20, 24, (5, 6), (1, 1), padding=(0, 3, 0, 0)),
    Problem("phases_3", 1, 20, 18, (20, 19), (3, 3), padding=(3, 3, 2, 2), dilation=(3, 2)),
    Problem("phases_strided", 3, 9, 7, (23, 21), (3, 3), (2, 2), (4, 4, 6, 6), (4, 6)),
    Problem("batch_9", 9, 3, 4, (5, 5), (3, 3), padding=(1, 1, 1, 1)),
    Problem("unbatched", None, 4, 6, (7, 8), (3, 3), padding=(2, 2, 2, 2), dilation=(2, 2)),
    Problem("unbatched_depthwise", None, 6, 6, (7, 8), (3, 3), padding=(1, 1, 1, 1), groups=6),
    # 1-D.
    Problem("1d", 2, 4, 6, (12,), (3,), padding=(0, 0, 1, 1)),
    Problem("1d_dilated", 2, 5, 7, (33,), (3,), (1, 1), (0, 0, 8, 0), (1, 4)),
    Problem("1d_same", 2, 24, 20, (130,), (7,), (1, 1), (0, 0, 6, 6), (1, 2)),
    Problem("1d_strided", 2, 6, 4, (29,), (5,), (1, 3), (0, 0, 4, 4), (1, 2)),
    Problem("1d_groups", 1, 6, 9, (17,), (3,), (1, 1), (0, 0, 2, 2), (1, 2), groups=3),
    Problem("1d_depthwise", 2, 8, 8, (19,), (5,), (1, 1), (0, 0, 2, 2), (1, 1), groups=8),
    Problem("1d_kernel_1", 2, 7, 5, (16,), (1,)),
    Problem("1d_pad_over_line", 1, 3, 4, (3,), (3,), (1, 2), (0, 0, 9, 7), (1, 3)),
    Problem("1d_pad_negative", 1, 3, 4, (14,), (3,), padding=(0, 0, -2, -1)),
    Problem("1d_unbatched", None, 4, 6, (15,), (4,), padding=(0, 0, 1, 2)),
    Problem("1d_batch_0", 0, 4, 6, (15,), (3,)),
    # Large enough that every blocking loop runs more than once.
    Problem("large_64_to_128", 2, 64, 128, (28, 30), (3, 3), (1, 1), (2,) * 4, (2, 2), slow=True),
    Problem("large_aspp", 1, 256, 64, (33, 33), (3, 3), (1, 1), (18,) * 4, (18, 18), slow=True),
    Problem("large_depthwise", 2, 72, 72, (65, 63), (3, 3), (1, 1), (2,) * 4, (2, 2), 72, True),
    # Channels in parts, of which the last vectors overlap.
    Problem("large_parts", 1, 170, 170, (21, 63), (3, 3), (1, 1), (2,) * 4, (2, 2), 170, True),
    Problem("large_image", 1, 3, 20, (130, 141), (3, 3), (1, 1), (4,) * 4, (4, 4), slow=True),
    Problem("large_1x1", 2, 257, 130, (19, 21), (1, 1), slow=True),
    Problem("large_1d", 2, 20, 24, (3001,), (3,), (1, 1), (0, 0, 256, 0), (1, 128), slow=True),
    Problem("large_stem", 2, 3, 64, (65, 67), (7, 7), (2, 2), (3,) * 4, slow=True),
    Problem("large_groups", 1, 96, 160, (20, 33), (3, 3), (1, 1), (2,) * 4, (2, 2), 4, slow=True),
    Problem("large_channels", 1, 600, 40, (9, 18), (3, 3), (1, 1), (1,) * 4, slow=True),
    Problem("large_planes", 1, 3, 3, (60, 300), (3, 3), (1, 1), (1,) * 4, groups=3, slow=True),
    Problem("large_dilated", 1, 256, 16, (50, 60), (3, 3), (1, 1), (6,) * 4, (6, 6), slow=True),
    Problem("large_few_outputs", 1, 30, 2, (40, 700), (3, 3), (1, 1), (5,) * 4, (5, 5), slow=True),
    Problem("large_chunks", 1, 256, 16, (56, 32), (3, 3), (1, 1), (2,) * 4, (2, 2), slow=True),
    Problem("large_row", 1, 64, 16, (9000,), (2,), dilation=(1, 512), slow=True),
    Problem("large_batch", 40, 6, 9, (12, 13), (3, 3), (1, 1), (1,) * 4, slow=True),
]  # fmt: skip


def problem(name: str) -> Problem:
    """The problem of that name."""
    return next(p for p in PROBLEMS if p.name == name)
