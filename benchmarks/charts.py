"""The benchmark's pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # pictures go to files; no display is needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import counting
from cases import DIRECTIONS
from report import Machine, Result, item_bytes

OURS, THEIRS = "tab:blue", "tab:orange"
LAYOUT_COLOURS = {"contiguous": "tab:blue", "channels_last": "tab:green"}
MARKERS = "os^Dv"  # by thread counts, in their order
STYLE = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 8,
    "lines.markersize": 4,
}


def draw_all(results: Iterable[Result], machine: Machine, folder: Path) -> list[Path]:
    """Write every chart that there is data for; return their paths."""
    timed = [r for r in results if r.seconds is not None]
    layers = [r for r in timed if r.row.shape.value is None]
    pictures: dict[str, Figure | None] = {}
    with plt.rc_context(STYLE):
        for dtype in dict.fromkeys(r.row.dtype for r in timed):
            rows = [r for r in layers if r.row.dtype == dtype]
            pictures[f"ratio-{dtype}"] = draw_ratios(rows) if rows else None
            for threads in machine:
                some = [r for r in rows if r.row.threads == threads and r.row.direction != "step"]
                name = f"roofline-{dtype}-{threads}"
                pictures[name] = draw_roofline(some, machine, threads) if some else None
            pictures[f"threads-{dtype}"] = draw_threads(rows)
        for family in dict.fromkeys(r.row.shape.family for r in timed if r.row.shape.value):
            pictures[family] = draw_sweep([r for r in timed if r.row.shape.family == family])
        paths = []
        for name, figure in pictures.items():
            if figure is not None:
                paths.append(folder / f"{name}.png")
                figure.savefig(paths[-1])
                plt.close(figure)
    return paths


def _present(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _names_on_y(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)


def draw_ratios(results: list[Result]) -> Figure:
    """F.conv2d's time by ours: a line per layer, a column per direction."""
    names = _present(r.row.shape.name for r in results)
    threads = _present(r.row.threads for r in results)
    directions = [d for d in DIRECTIONS if any(r.row.direction == d for r in results)]
    figure, columns = plt.subplots(
        1,
        len(directions),
        sharey=True,
        squeeze=False,
        figsize=(2 + 2.6 * len(directions), 1.5 + 0.17 * len(names)),
    )
    for axes, direction in zip(columns[0], directions, strict=True):
        for layout, colour in LAYOUT_COLOURS.items():
            for count, marker in zip(threads, MARKERS, strict=False):
                key = (direction, layout, count)
                found = [
                    (r.ratio, names.index(r.row.shape.name))
                    for r in results
                    if (r.row.direction, r.row.layout, r.row.threads) == key and r.ratio
                ]
                if found:
                    x, y = zip(*found, strict=True)
                    label = layout if results[0].row.device == "cuda" else f"{layout}, {count} thr"
                    axes.plot(x, y, marker, color=colour, label=label, alpha=0.7)
        axes.axvline(1, color="black", linewidth=1)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}×")
        axes.set_title(direction)
    _names_on_y(columns[0][0], names)
    figure.legend(*columns[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(f"F.conv2d's time / ours, {results[0].row.dtype} (right of 1 is faster)")
    return figure


def draw_roofline(results: list[Result], machine: Machine, threads: int) -> Figure:
    """Useful FLOP/s against useful FLOPs per byte, under the machine's two limits."""
    dtype = results[0].row.dtype
    peak = machine[threads]["flops"][dtype] / 1e9
    speeds = {int(size): speed / 1e9 for size, speed in machine[threads]["bandwidth"].items()}
    figure, axes = plt.subplots(figsize=(7, 4.5))
    points = []
    for r in results:
        row = r.row
        moved = counting.least_bytes(row.shape, row.direction, item_bytes(row))
        intensity = counting.useful_flops(row.shape, row.direction) / moved
        points.append((intensity, r.rate(r.seconds), r.rate(r.baseline_seconds) or np.nan))
    x, our, their = (np.array(column) for column in zip(*points, strict=True))
    axes.plot(x, their / 1e9, "x", color=THEIRS, label="F.conv2d", alpha=0.7)
    axes.plot(x, our / 1e9, "o", color=OURS, label="dilconv_ext", alpha=0.7)
    roof = np.geomspace(x.min() / 2, x.max() * 2, 200)
    for size, line in ((max(speeds), "-"), (min(speeds), ":")):
        label = f"copy of {size / 2**20:g} MiB: {speeds[size]:.0f} GB/s; mm: {peak:.0f} GFLOP/s"
        axes.plot(roof, np.minimum(peak, roof * speeds[size]), line, color="black", label=label)
    axes.set(xscale="log", yscale="log", xlabel="useful FLOPs per byte", ylabel="GFLOP/s")
    axes.set_title(f"{dtype}, threads: {threads}; padding is not counted")
    axes.legend()
    return figure


def draw_threads(results: list[Result]) -> Figure | None:
    """How much faster more threads are than one, per layer and direction."""
    seconds = {r.row: r for r in results}
    counts = sorted({r.row.threads for r in results})
    if len(counts) < 2 or counts[0] != 1:
        return None
    most = counts[-1]
    names = _present(r.row.shape.name for r in results)
    directions = [d for d in DIRECTIONS if any(r.row.direction == d for r in results)]
    size = (2 + 2.6 * len(directions), 1.5 + 0.17 * len(names))
    figure, columns = plt.subplots(1, len(directions), sharey=True, squeeze=False, figsize=size)
    for axes, direction in zip(columns[0], directions, strict=True):
        for side, colour in (("baseline_seconds", THEIRS), ("seconds", OURS)):
            times: dict[tuple[str, str], dict[int, float]] = {}
            for row, r in seconds.items():
                if row.direction == direction and getattr(r, side):
                    key = (row.shape.name, row.layout)
                    times.setdefault(key, {})[row.threads] = getattr(r, side)
            found = [
                (by[1] / by[most], names.index(name))
                for (name, _), by in times.items()
                if {1, most} <= by.keys()
            ]
            if found:
                label = "dilconv_ext" if side == "seconds" else "F.conv2d"
                axes.plot(*zip(*found, strict=True), "o", color=colour, label=label, alpha=0.7)
        axes.axvline(most, color="black", linewidth=1)
        axes.axvline(1, color="black", linewidth=1, linestyle=":")
        axes.set_title(direction)
    _names_on_y(columns[0][0], names)
    figure.legend(*columns[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(f"time with 1 thread / time with {most}, {results[0].row.dtype}")
    return figure


def draw_sweep(results: list[Result]) -> Figure:
    """Time, and memory where it was measured, against the number that the sweep varies."""
    number = results[0].row.shape.family.removeprefix("sweep-")
    directions = [d for d in DIRECTIONS if any(r.row.direction == d for r in results)]
    quantities = [("seconds", "ms", 1e3)]
    if any(r.extra_bytes is not None for r in results):
        quantities.append(("extra_bytes", "extra MB", 1e-6))
    size = (1 + 3 * len(directions), 0.6 + 2.6 * len(quantities))
    figure, grid = plt.subplots(
        len(quantities), len(directions), squeeze=False, sharey="row", figsize=size
    )
    lines = _present((r.row.dtype, r.row.layout, r.row.threads) for r in results)
    for axes_row, (field, unit, scale) in zip(grid, quantities, strict=True):
        for axes, direction in zip(axes_row, directions, strict=True):
            for key, line in zip(lines, ("-", "--", "-.", ":") * len(lines), strict=False):
                rows = [
                    r
                    for r in results
                    if (r.row.dtype, r.row.layout, r.row.threads) == key
                    and r.row.direction == direction
                ]
                _draw_line(axes, rows, field, scale, line, key)
            axes.set(title=direction, xlabel=number, ylabel=unit)
            if number == "dilation":  # which must be flat; the others grow
                axes.set_ylim(0, None)
            else:
                axes.set(xscale="log", yscale="log" if field == "seconds" else "symlog")
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(f"{results[0].row.shape}, with other values of {number}")
    return figure


def _draw_line(
    axes: Axes, rows: list[Result], field: str, scale: float, line: str, key: tuple
) -> None:
    for side, colour, name in (
        (f"baseline_{field}", THEIRS, "F.conv2d"),
        (field, OURS, "dilconv_ext"),
    ):
        points = [(r.row.shape.value, getattr(r, side)) for r in rows]
        points = [point for point in points if point[1] is not None]
        if points:
            x, y = zip(*points, strict=True)
            label = f"{name}, {key[0]}, {key[1]}, {key[2]} thr"
            axes.plot(x, np.array(y) * scale, f"o{line}", color=colour, label=label)
