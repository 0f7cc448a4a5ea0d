"""What the emulated GPU counted: how kernels are launched, what they move and multiply."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SECTOR = 32  # bytes


def ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


@dataclass(frozen=True)
class Run:
    """A layer, run by a kernel: its launches, the heaviest of which is the kernel proper."""

    about: dict[str, Any]

    @property
    def launches(self) -> list[dict[str, Any]]:
        return self.about["launches"]

    @property
    def main(self) -> dict[str, Any]:
        """The launch that multiplies."""
        return max(self.launches, key=lambda launch: launch["fma"] + launch["tensor_core_fma"])

    @property
    def figures(self) -> dict[str, float | None]:
        """Ratios to the least that is possible, of all launches; how the main one asks memory."""
        least = self.about["least_bytes"]
        every = [launch[kind] for launch in self.launches for kind in ("loads", "stores")]
        return {
            "memory": ratio(SECTOR * sum(t["distinct_sectors"] for t in every), least),
            "requested": ratio(SECTOR * sum(t["sectors"] for t in every), least),
            "products": ratio(
                sum(x["fma"] + x["tensor_core_fma"] for x in self.launches),
                self.about["least_products"],
            ),
            **requests(self.main),
        }


def requests(launch: dict[str, Any]) -> dict[str, float | None]:
    """Of one launch: sectors that a warp's request touches, and bank conflicts of an access."""
    of_global = [launch["loads"], launch["stores"]]
    of_shared = [launch["shared_loads"], launch["shared_stores"]]
    asked = sum(t["requests"] for t in of_global)
    accesses = sum(t["requests"] for t in of_shared)
    return {
        "sectors": ratio(sum(t["sectors"] for t in of_global), asked),
        "least": ratio(sum(t["least_sectors"] for t in of_global), asked),
        "conflicts": ratio(sum(t["passes"] - t["least_passes"] for t in of_shared), accesses),
    }


HEADINGS = {
    "memory": "bytes / least",
    "requested": "requested bytes / least",
    "products": "products / least",
    "sectors": "sectors / request",
    "least": "least",
    "conflicts": "conflicts / access",
}


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


@dataclass
class Traffic:
    """All that was counted."""

    runs: list[Run] = field(default_factory=list)
    # By kernel: (threads, bytes of dynamic shared memory) of the blocks of full-size layers.
    blocks: dict[str, set[tuple[int, int]]] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each run."""
        names = ("layer", "size", "op", "dtype", "layout", "kernel")
        return [
            {name: run.about[name] for name in names}
            | {HEADINGS[name]: shown(value) for name, value in run.figures.items()}
            for run in self.runs
        ]

    def summaries(self, kernels: set[str]) -> dict[str, dict[str, str]]:
        """By layout: the least and the most of each figure, over the runs of these kernels."""
        mine = [run for run in self.runs if run.main["kernel"] in kernels]
        return {
            layout: summary([run.figures for run in mine if run.about["layout"] == layout])
            for layout in sorted({run.about["layout"] for run in mine})
        }


def summary(figures: list[dict[str, float | None]]) -> dict[str, str]:
    result = {}
    for name, heading in HEADINGS.items():
        values = sorted(value for f in figures if (value := f[name]) is not None)
        ends = [shown(value) for value in values[:1] + values[-1:]]
        result[heading] = "–".join(dict.fromkeys(ends))
    return result


def read_traffic(runs: list[dict[str, Any]]) -> Traffic:
    """From the JSON of the emulator's figures."""
    traffic = Traffic()
    for run in runs:
        if run["size"] != "full":
            traffic.runs.append(Run(run))
            continue
        for launch in run["launches"]:
            block = (launch["threads"], launch["shared_bytes"])
            traffic.blocks.setdefault(launch["kernel"], set()).add(block)
    return traffic
