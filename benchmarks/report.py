"""What was measured, in numbers that mean something: results, floors, tables, JSON."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

import cases
import counting
import dilconv_ext as dc
from cases import Row
from dilconv_ext import _C

# Ratios that are counted if they are lower, and how many of the lowest are listed.
LOW_RATIOS = (0.95, 0.8)
WORST_ROWS = 10

Machine = dict[int, dict[str, Any]]
"""By the number of threads: FLOP/s by dtype, and bytes/s by the bytes that a copy moves."""


@dataclass
class Result:
    """One row, measured. Times are medians, in seconds per call; None stands for not measured.

    ``ratio`` is the median over the rounds of F.conv2d's time by ours in that round, and
    ``spread`` the distance between its quartiles by the median. ``note`` says what went wrong.
    """

    row: Row
    note: str = ""
    kernel: str = ""
    workspace_bytes: int | None = None
    backend: str = ""
    error: float | None = None
    baseline_error: float | None = None
    seconds: float | None = None
    baseline_seconds: float | None = None
    ratio: float | None = None
    spread: float | None = None
    rounds: int = 0
    extra_bytes: int | None = None
    baseline_extra_bytes: int | None = None

    def set_times(self, times: Sequence[Sequence[float]]) -> None:
        """Take the times of ours and, if it was timed, of F.conv2d, in each round."""
        self.rounds = len(times[0])
        self.seconds = statistics.median(times[0])
        if len(times) == 2:
            self.baseline_seconds = statistics.median(times[1])
            ratios = [theirs / our for our, theirs in zip(*times, strict=True)]
            self.ratio = statistics.median(ratios)
            low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
            self.spread = (high - low) / self.ratio

    @property
    def failed(self) -> bool:
        """Whether our side was wrong, or crashed."""
        return self.note.startswith("ours")

    def rate(self, seconds: float | None) -> float | None:
        """FLOP/s, of the useful products alone."""
        if seconds is None:
            return None
        return counting.useful_flops(self.row.shape, self.row.direction) / seconds


def best_of(first: Machine, second: Machine) -> Machine:
    """The better of two measurements of each limit: other programs only ever make it worse."""
    return {
        threads: {
            kind: {key: max(speed, second[threads][kind][key]) for key, speed in speeds.items()}
            for kind, speeds in limits.items()
        }
        for threads, limits in first.items()
    }


def item_bytes(row: Row) -> int:
    return cases.torch_dtype(row.dtype).itemsize


def bandwidth(machine: dict[str, Any], size: int) -> float:
    """The bandwidth of the largest copy measured that moves no more than ``size`` bytes.

    What fits into a cache may move at the cache's speed, so the floor takes that.
    """
    copies = {int(moved): speed for moved, speed in machine["bandwidth"].items()}
    return copies[max((moved for moved in copies if moved <= size), default=min(copies))]


def floor_seconds(row: Row, machine: Machine) -> float:
    """The least time the machine needs: for its products at its peak, or for its bytes."""
    if row.direction == "step":
        parts = (
            Row(row.shape, row.dtype, row.layout, row.threads, one)
            for one in ("forward", "grad_input", "grad_weight")
        )
        return sum(floor_seconds(part, machine) for part in parts)
    best = machine[row.threads]
    moved = counting.least_bytes(row.shape, row.direction, item_bytes(row))
    flops = counting.useful_flops(row.shape, row.direction)
    return max(flops / best["flops"][row.dtype], moved / bandwidth(best, moved))


def environment() -> dict[str, Any]:
    """The machine and the software, as far as times depend on them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    cuda = torch.cuda.is_available()
    gpu = {"gpu": torch.cuda.get_device_name(), "cuda kernels": _C.kernels("cuda")} if cuda else {}
    return {
        **gpu,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": names[0] if names else platform.processor(),
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "dilconv_ext": dc.__version__,
        "instruction sets": _C.isas(),
        "kernels": _C.kernels(),
        "options": {name: _C.get_option(name) for name in ("kernel", "isa")},
        "load": list(os.getloadavg()),
    }


def to_json(results: Iterable[Result], machine: Machine, about: dict[str, Any]) -> dict[str, Any]:
    """All of it, with the derived numbers, for json.dump."""

    def flat(result: Result) -> dict[str, Any]:
        row = result.row
        keys = {"name": row.shape.name, "family": row.shape.family, "layer": str(row.shape)}
        keys.update({key: value for key, value in vars(row).items() if key != "shape"})
        measured = {key: value for key, value in asdict(result).items() if key != "row"}
        derived = {
            "useful_flops": counting.useful_flops(row.shape, row.direction),
            "least_bytes": counting.least_bytes(row.shape, row.direction, item_bytes(row)),
            "floor_seconds": floor_seconds(row, machine),
        }
        return {**keys, **measured, **derived}

    return {"environment": about, "machine": machine, "rows": [flat(r) for r in results]}


# --- tables -----------------------------------------------------------------------------------


def _number(value: float | None, form: str = ".3g", scale: float = 1.0) -> str:
    return "" if value is None else format(value * scale, form)


def row_table(results: Iterable[Result], machine: Machine) -> str:
    """A line per row; the columns are explained in README.md."""
    results = list(results)
    memory = any(r.extra_bytes is not None for r in results)
    lines = []
    for r in results:
        row, floor = r.row, floor_seconds(r.row, machine)
        lines.append(
            {
                "layer": row.shape.name,
                "dtype": row.dtype,
                "layout": row.layout,
                "thr": row.threads,
                "direction": row.direction,
                "ratio": _number(r.ratio, ".2f"),
                "±": _number(r.spread, ".0%"),
                "ms": _number(r.seconds, scale=1e3),
                "F ms": _number(r.baseline_seconds, scale=1e3),
                "GFLOP/s": _number(r.rate(r.seconds), scale=1e-9),
                "F GFLOP/s": _number(r.rate(r.baseline_seconds), scale=1e-9),
                "of floor": _number(r.seconds and floor / r.seconds, ".0%"),
                "error": _number(r.error, ".1e"),
                "F error": _number(r.baseline_error, ".1e"),
                **(
                    {
                        "MB": _number(r.extra_bytes, ".1f", 1e-6),
                        "F MB": _number(r.baseline_extra_bytes, ".1f", 1e-6),
                    }
                    if memory
                    else {}
                ),
                "kernel": r.kernel,
                "F.conv2d ran": r.backend,
                "note": r.note,
            }
        )
    return tabulate(lines, headers="keys", disable_numparse=True)


def summary_table(results: Iterable[Result]) -> str:
    """The geometric mean of the ratios, and the worst, per family and direction."""
    groups: dict[tuple[Any, ...], dict[str, list[Result]]] = {}
    for r in results:
        key = (r.row.dtype, r.row.layout, r.row.threads, r.row.shape.family)
        groups.setdefault(key, {}).setdefault(r.row.direction, []).append(r)
    lines = []
    for key, by_direction in sorted(groups.items(), key=lambda group: group[0][:3]):
        line = dict(zip(("dtype", "layout", "thr", "family"), key, strict=True))
        for direction in cases.DIRECTIONS:
            if direction in by_direction:
                line[direction] = summarise(by_direction[direction])
        lines.append(line)
    return tabulate(lines, headers="keys", disable_numparse=True)


def summarise(results: Iterable[Result]) -> str:
    """``geometric mean (worst: its name)`` of those that have a ratio."""
    timed = [r for r in results if r.ratio is not None]
    if not timed:
        return "-"
    worst = min(timed, key=lambda r: r.ratio)
    mean = statistics.geometric_mean(r.ratio for r in timed)
    return f"{mean:.2f} ({worst.ratio:.2f} {worst.row.shape.name})"


def slower_table(results: Iterable[Result]) -> str:
    """How many rows have a ratio, and how many of those a low one, per dtype and threads."""
    groups: dict[tuple[str, int], list[Result]] = {}
    for r in results:
        groups.setdefault((r.row.dtype, r.row.threads), []).append(r)
    lines = []
    for (dtype, threads), rows in groups.items():
        ratios = [r.ratio for r in rows if r.ratio is not None]
        low = {f"below {limit}": sum(ratio < limit for ratio in ratios) for limit in LOW_RATIOS}
        counts = {"rows": len(rows), "with a ratio": len(ratios), **low}
        lines.append({"dtype": dtype, "thr": threads, **counts})
    return tabulate(lines, headers="keys", disable_numparse=True)


def worst_table(results: Iterable[Result]) -> str:
    """The rows with the lowest ratios, and what their layers are."""
    timed = sorted((r for r in results if r.ratio is not None), key=lambda r: r.ratio)
    lines = [
        {
            "ratio": _number(r.ratio, ".2f"),
            "±": _number(r.spread, ".0%"),
            "row": str(r.row),
            "layer": str(r.row.shape),
            "kernel": r.kernel,
        }
        for r in timed[:WORST_ROWS]
    ]
    return tabulate(lines, headers="keys", disable_numparse=True)


def machine_table(machine: Machine) -> str:
    """The peaks that the floors are computed from."""
    lines = []
    for threads, best in machine.items():
        flops = {f"{dtype} GFLOP/s": f"{v / 1e9:.0f}" for dtype, v in best["flops"].items()}
        copies = {
            f"{int(size) / 2**20:g} MiB GB/s": f"{speed / 1e9:.0f}"
            for size, speed in best["bandwidth"].items()
        }
        lines.append({"thr": threads, **flops, **copies})
    return tabulate(lines, headers="keys", disable_numparse=True)
