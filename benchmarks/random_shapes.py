"""Layers drawn at random, of the kinds that networks have: a list that nobody can tune to.

The same seed gives the same layers, and a shorter list is the beginning of a longer one.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from random import Random
from typing import TypeVar

import counting
from shapes import Shape, Sizes, conv

T = TypeVar("T")

# How often each is drawn, in any unit. Sizes are drawn evenly on a logarithmic scale.
FAMILIES = {"random-dense": 40, "random-depthwise": 20, "random-grouped": 20, "random-1d": 20}
CHANNELS = (1, 3, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512)
BATCHES = (1, 2, 3, 4, 6, 8)
SIDES, LENGTHS = (7, 128), (200, 16000)
SPECTROGRAM_BINS, SPECTROGRAM_FRAMES = (40, 64, 80, 128, 257), (50, 400)
KERNELS: dict[Sizes, float] = {
    **{(3, 3): 45, (1, 1): 15, (5, 5): 8, (7, 7): 6, (4, 4): 4, (2, 2): 4},
    **{(1, 3): 5, (3, 1): 5, (1, 5): 4, (1, 7): 4},
}
KERNELS_1D: dict[Sizes, float] = {(2,): 2, (3,): 4, (5,): 2, (7,): 2}
DILATIONS = {1: 12, 2: 6, **dict.fromkeys(range(3, 19), 1)}
STRIDES = {1: 85, 2: 15}
GROUP_COUNTS, GROUP_CHANNELS = (2, 3, 4, 8), (2, 4, 8, 16)

# A row is to take milliseconds: FLOPs of one direction, and numbers in the largest tensor.
LEAST_FLOPS, MOST_FLOPS = 2e6, 4e8
MOST_NUMBERS = 1 << 22


def draw(count: int, seed: int) -> list[Shape]:
    """So many layers, named random-<seed>-<number>."""
    random = Random(seed)
    shapes = []
    for number in range(count):
        family = _weighted(random, FAMILIES)
        # Another draw of the same family, so that what is rejected does not change their shares.
        while not _is_usual(shape := _layer(random, family, f"random-{seed}-{number}")):
            pass
        shapes.append(shape)
    return shapes


def _weighted(random: Random, weights: Mapping[T, float]) -> T:
    return random.choices(list(weights), list(weights.values()))[0]


def _logarithmic(random: Random, low: int, high: int) -> int:
    return round(low * (high / low) ** random.random())


def _layer(random: Random, family: str, name: str) -> Shape:
    """Any layer of a family; it may be one that no network has."""
    size, kernels = _size(random), KERNELS
    kind = family
    if family == "random-1d":
        size, kernels = (_logarithmic(random, *LENGTHS),), KERNELS_1D
        kind = _weighted(random, {k: w for k, w in FAMILIES.items() if k != family})
    channels, groups = _channels(random, kind)
    kernel, dilation = _weighted(random, kernels), _weighted(random, DILATIONS)
    return conv(
        family,
        name,
        random.choice(BATCHES),
        channels,
        size,
        kernel,
        tuple(dilation if k > 1 else 1 for k in kernel),
        stride=_weighted(random, STRIDES),
        groups=groups,
    )


def _size(random: Random) -> Sizes:
    """A square image, or sometimes a spectrogram."""
    if random.random() < 0.1:
        return random.choice(SPECTROGRAM_BINS), _logarithmic(random, *SPECTROGRAM_FRAMES)
    return (_logarithmic(random, *SIDES),) * 2


def _channels(random: Random, kind: str) -> tuple[tuple[int, int], int]:
    """Read and written channels, every other time as many; and groups, that may not divide them."""
    c_in, c_out = random.choice(CHANNELS), random.choice(CHANNELS)
    if kind == "random-depthwise":
        return (c_in, c_in * _weighted(random, {1: 9, 2: 1})), c_in
    pair = (c_in, random.choice((c_in, c_out)))
    if kind == "random-dense":
        return pair, 1
    few, many = random.choice(GROUP_COUNTS), c_in // random.choice(GROUP_CHANNELS)
    return pair, random.choice((few, max(many, 1)))


def _is_usual(shape: Shape) -> bool:
    """Whether groups divide the channels, taps reach the image, and the cost is within bounds."""
    pads = zip(shape.padding, shape.size, strict=True)
    if shape.c_in % shape.groups or shape.c_out % shape.groups or any(p >= i for p, i in pads):
        return False
    grouped = shape.groups > 1 or shape.family in ("random-depthwise", "random-grouped")
    if grouped and (shape.groups == 1 or (shape.c_in == shape.groups and prod(shape.kernel) == 1)):
        return False
    tensors = (shape.input_shape, shape.weight_shape, shape.output_shape)
    flops = counting.useful_flops(shape, "forward")
    return LEAST_FLOPS <= flops <= MOST_FLOPS and max(map(prod, tensors)) <= MOST_NUMBERS
