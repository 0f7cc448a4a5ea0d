"""Pictures of what layers read, for the command line; they need matplotlib (extra ``examples``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ._gridding import Gridding, gridding
from ._receptive_field import Layer, per_axis, receptive_field
from ._traced_field import EffectiveField


def draw_field(layers: list[Layer], path: Path) -> None:
    """Draw, layer by layer, the pixels that one output reads; the suffix chooses the format.

    Args:
        layers: the first reads the input.
        path: of the picture: .png, .svg or what else matplotlib writes.
    """
    from matplotlib.figure import Figure

    size = receptive_field(layers).size
    layers = [
        layer._replace(kernel_size=per_axis(layer.kernel_size, len(size))) for layer in layers
    ]
    figure = Figure(figsize=(3 * len(layers), 3.4), layout="constrained")
    for count, axes in enumerate(np.atleast_1d(figure.subplots(1, len(layers))), start=1):
        grid = gridding(layers[:count])
        axes.imshow(_centred(grid, size), cmap="Blues", vmin=0, vmax=1.4)
        unread = sum(map(len, grid.holes))
        axes.set_title(
            f"after layer {count}: {' × '.join(map(str, grid.size))}"
            + (", with holes" if unread else ""),
            fontsize=9,
        )
        axes.set_axis_off()
    figure.savefig(path, dpi=150)


def draw_effective_field(field: EffectiveField, path: Path) -> None:
    """Draw how much the middle output's gradient reaches each pixel, on a scale of logarithms.

    Args:
        field: of a model.
        path: of the picture: .png, .svg or what else matplotlib writes.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    weight = field.weight.cpu().numpy()
    figure = Figure(figsize=(5, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set_title("within " + " × ".join(map(str, field.extent)) + ": 95 % of the gradient")
    if weight.ndim == 1:
        axes.semilogy(np.where(weight > 0, weight, np.nan), marker=".")
        axes.set_xlabel("pixel")
        axes.set_ylabel("share of the gradient")
    else:
        scale = LogNorm(weight[weight > 0].min(), weight.max())
        picture = axes.imshow(weight, cmap="Blues", norm=scale)
        figure.colorbar(picture, label="share of the gradient")
    figure.savefig(path, dpi=150)


def _centred(grid: Gridding, size: tuple[int, ...]) -> Any:
    """An image of ``size``, 1 where the field is read, 0.3 in its holes, 0 around it."""
    profiles = []
    for own, holes, whole in zip(grid.size, grid.holes, size, strict=True):
        field = np.ones(own)
        field[list(holes)] = 0.3
        before = (whole - own) // 2
        profiles.append(np.pad(field, (before, whole - own - before)))
    return np.minimum.outer(profiles[0], profiles[-1])  # one number per axis may stand for both
