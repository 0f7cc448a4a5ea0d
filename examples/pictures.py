"""Pictures that several examples draw, and how all of them look."""

import argparse
from collections.abc import Iterable, Sequence

import matplotlib

matplotlib.use("Agg")  # pictures go to files; no display is needed

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from common import History

plt.rcParams.update(
    {
        "figure.dpi": 130,
        "figure.constrained_layout.use": True,
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "lines.markersize": 4,
    }
)


def save(figure: Figure, options: argparse.Namespace, name: str) -> None:
    """Write a figure as `name`.png into the output folder and close it."""
    figure.savefig(options.output / f"{name}.png")
    plt.close(figure)


def smooth(values: Sequence[float], decay: float = 0.85) -> list[float]:
    """Exponential moving average, started at the first value."""
    result = list(values[:1])
    for value in values[1:]:
        result.append(decay * result[-1] + (1 - decay) * value)
    return result


def learning_curve(
    histories: dict[str, History],
    options: argparse.Namespace,
    title: str,
    loss_name: str,
    score_name: str,
    scale: str = "linear",
) -> None:
    """Draw loss by step and score by epoch of one or several trainings, as learning_curve.png.

    `scale` is of both vertical axes: "linear", or "log" where the values run over many powers of
    ten.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    for (name, history), style in zip(histories.items(), ("-", "--", ":"), strict=False):
        epochs = [
            (i + 1) * len(history.scores) / len(history.losses) for i in range(len(history.losses))
        ]
        (line,) = left.plot(epochs, smooth(history.losses), style)
        left.plot(epochs, history.losses, color=line.get_color(), alpha=0.2, linewidth=0.8)
        right.plot(range(1, len(history.scores) + 1), history.scores, f"o{style}", label=name)
    left.set(xlabel="epoch", title=f"{loss_name} (smoothed; faint: every step)")
    right.set(xlabel="epoch", title=score_name)
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_yscale(scale)
        axes.grid(alpha=0.25)
    if len(histories) > 1:
        right.legend(frameon=False)
    figure.suptitle(title)
    save(figure, options, "learning_curve")


def image_sheet(
    rows: Iterable[Sequence[Tensor]],
    columns: Sequence[str],
    options: argparse.Namespace,
    name: str,
    title: str,
) -> None:
    """Draw rows of (H, W) grey images under column headings, white ink on black, NaN in red."""
    rows = list(rows)
    figure, grid = plt.subplots(
        len(rows),
        len(columns),
        figsize=(1.05 * len(columns), 1.05 * len(rows) + 0.6),
        squeeze=False,
    )
    colours = plt.get_cmap("gray").copy()
    colours.set_bad("#b03a2e")
    for axes, heading in zip(grid[0], columns, strict=True):
        axes.set_title(heading, fontsize=8)
    for line, images in zip(grid, rows, strict=True):
        for axes, image in zip(line, images, strict=True):
            axes.imshow(image.cpu(), cmap=colours, vmin=0, vmax=1, interpolation="nearest")
            axes.set_axis_off()
    figure.suptitle(title, fontsize=10)
    save(figure, options, name)
