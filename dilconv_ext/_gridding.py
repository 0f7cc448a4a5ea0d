"""Gridding: the input pixels that a stack of dilated layers never reads.

Layers of dilation 2 alone read every other pixel, however many there are. Whether a stack leaves
holes follows from the set of offsets that it reads, the sum of each layer's own set.

The suggestion follows the hybrid dilated convolution rule: with kernel size K, rates r_1 … r_n and
M_n = r_n, M_i = max(M_{i+1} - 2 r_i, 2 r_i - M_{i+1}, r_i), want M_2 <= K. Source: P. Wang et al.,
"Understanding Convolution for Semantic Segmentation", WACV 2018.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from ._receptive_field import axis_numbers

_MOST = 200_000  # schedules to look at before giving up


@dataclass(frozen=True)
class Gridding:
    """Which pixels of its receptive field a stack of layers reads, per axis. ``print`` it.

    Attributes:
        size: the size of the field.
        holes: offsets from the field's first pixel that no output reads, for the output at that
            field.
        rates: the layers' dilations.
        suggestion: rates for the same layers that leave no hole, with the largest field up to this
            one's; None where there are no holes, or too many layers to look for it.
    """

    size: tuple[int, ...]
    holes: tuple[tuple[int, ...], ...]
    rates: tuple[tuple[int, ...], ...]
    suggestion: tuple[tuple[int, ...] | None, ...]

    def __str__(self) -> str:
        names = ("height", "width") if len(self.size) == 2 else ("length",)
        if len(set(zip(self.size, self.rates, strict=True))) == 1:
            names = ("each axis",)
        lines = []
        for axis, name in enumerate(names):
            unread = len(self.holes[axis])
            share = f"{unread} of {self.size[axis]} pixels are never read"
            lines.append(f"{name}: {share if unread else 'no holes'}")
            better = self.suggestion[axis]
            if better is not None:
                lines.append(
                    f"  dilations {_join(self.rates[axis])}: try {_join(better)}, which read all "
                    "of their field"
                )
        return "\n".join(lines)


def gridding(model_or_layers: nn.Module | Iterable[Any]) -> Gridding:
    """Say which pixels of their receptive field a chain of layers never reads.

    Args:
        model_or_layers: as for ``receptive_field`` without ``input_size``: a model's modules are
            taken in the order in which they were registered, whatever the order they run in.

    Returns:
        A ``Gridding`` with one entry per axis.

    Raises:
        TypeError, RuntimeError, ValueError: as ``receptive_field``.

    Examples:
        >>> from dilconv_ext import Layer
        >>> print(gridding([Layer(3, dilation=2), Layer(3, dilation=2), Layer(3, dilation=2)]))
        each axis: 6 of 13 pixels are never read
          dilations 2, 2, 2: try 1, 2, 3, which read all of their field
    """
    sizes, holes, rates, better = [], [], [], []
    for layers in axis_numbers(model_or_layers):
        seen = _seen(layers)
        sizes.append(max(seen) + 1)
        holes.append(tuple(sorted(set(range(max(seen) + 1)) - seen)))
        rates.append(tuple(dilation for _, _, dilation in layers))
        better.append(_suggest(layers) if holes[-1] else None)
    return Gridding(tuple(sizes), tuple(holes), tuple(rates), tuple(better))


AxisLayer = tuple[int, int, int]  # kernel, stride, dilation


def _seen(layers: list[AxisLayer]) -> set[int]:
    """The offsets that one output reads, from the first."""
    seen, jump = {0}, 1
    for kernel, stride, dilation in layers:
        taps = [tap * dilation * jump for tap in range(kernel)]
        seen = {offset + tap for offset in seen for tap in taps}
        jump *= stride
    return seen


def _suggest(layers: list[AxisLayer]) -> tuple[int, ...] | None:
    """Rates without holes: of the largest sum up to theirs, the nearest to them.

    Layers of one tap keep theirs.
    """
    places = [i for i, (kernel, _, _) in enumerate(layers) if kernel > 1]
    given = sorted(layers[i][2] for i in places)
    tried = 0
    for total in range(sum(given), len(given) - 1, -1):
        best: tuple[int, tuple[int, ...]] | None = None
        for rates in _schedules(total, len(given), 1):
            tried += 1
            distance = sum(abs(a - b) for a, b in zip(rates, given, strict=True))
            if (best is None or distance < best[0]) and _is_good(layers, places, rates):
                best = distance, rates
            if tried > _MOST:
                return None
        if best is not None:
            result = [dilation for _, _, dilation in layers]
            for place, rate in zip(places, best[1], strict=True):
                result[place] = rate
            return tuple(result)
    return None


def _is_good(layers: list[AxisLayer], places: list[int], rates: tuple[int, ...]) -> bool:
    changed = list(layers)
    for place, rate in zip(places, rates, strict=True):
        kernel, stride, _ = layers[place]
        changed[place] = (kernel, stride, rate)
    seen = _seen(changed)
    kernel = min(layers[place][0] for place in places)
    return len(seen) == max(seen) + 1 and _second_distance(rates) <= kernel


def _second_distance(rates: tuple[int, ...]) -> int:
    """M_2 of the rule above."""
    distance = rates[-1]
    for rate in reversed(rates[1:-1]):
        distance = max(distance - 2 * rate, 2 * rate - distance, rate)
    return distance


def _schedules(total: int, count: int, least: int) -> Iterator[tuple[int, ...]]:
    """All rising sequences of ``count`` rates from ``least`` on with this sum."""
    if count == 1:
        yield (total,)
        return
    for first in range(least, total // count + 1):
        for rest in _schedules(total - first, count - 1, first):
            yield (first, *rest)


def _join(rates: tuple[int, ...]) -> str:
    return ", ".join(map(str, rates))
