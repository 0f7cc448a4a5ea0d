"""Timing on a GPU: by events, and of calls whose data are not in its L2 cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

import torch

import cases
import counting
from cases import Row

LEAST_ROUNDS, MOST_COPIES = 5, 64
COPY_BYTES = 1 << 31
PRODUCT_SIZE = 8192


def set_precision(dtype: str) -> None:
    """Allow TF32 for the dtype tf32, and for no other."""
    for setting in (torch.backends.cudnn.conv, torch.backends.cuda.matmul):
        setting.fp32_precision = "tf32" if dtype == "tf32" else "ieee"


class Rotation:
    """Calls on different data that run one after the other, as a CUDA graph if they can be.

    A graph's replay has no cost on the CPU. All results are kept, so that each is written to memory
    of its own.
    """

    def __init__(self, calls: Sequence[Callable[[], Any]]) -> None:
        self._calls = calls
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # cuDNN tries its algorithms, and memory is allocated
            self._kept = [call() for call in calls]
        torch.cuda.synchronize()
        self._graph: torch.cuda.CUDAGraph | None = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self._graph):
                self._kept = [call() for call in calls]
        except RuntimeError:
            self._graph = None

    def run(self) -> None:
        if self._graph is not None:
            self._graph.replay()
        else:
            self._kept = [call() for call in self._calls]

    def seconds(self, repeats: int) -> float:
        """Time per call, by events around so many rounds."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            self.run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / repeats / len(self._calls)


def copies_for(row: Row) -> int:
    """How many calls' data are more than twice the L2 cache, so that none stays in it."""
    cache = torch.cuda.get_device_properties().L2_cache_size
    used = counting.least_bytes(row.shape, row.direction, cases.torch_dtype(row.dtype).itemsize)
    return min(MOST_COPIES, 1 + ceil(2 * cache / used))


def interleaved(
    row: Row, sides: Sequence[str], seconds: float, sample_seconds: float
) -> list[list[float]]:
    """Time the sides in turns; return, for each, the seconds per call in each round."""
    count = copies_for(row)
    copies = [cases.data_of(row).map(torch.clone) for _ in range(count)]
    rotations = [Rotation([cases.SIDES[side](row, t) for t in copies]) for side in sides]
    repeats = []
    for rotation in rotations:
        once = max(rotation.seconds(1), 1e-7) * count
        repeats.append(max(1, ceil(sample_seconds / once)))
    rounds: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(rounds) < LEAST_ROUNDS or time.perf_counter() < end:
        order = range(len(sides)) if len(rounds) % 2 else reversed(range(len(sides)))
        times = {i: rotations[i].seconds(repeats[i]) for i in order}
        rounds.append([times[i] for i in range(len(sides))])
    return [list(times) for times in zip(*rounds, strict=True)]


def best(call: Callable[[], Any], repeats: int = 20) -> float:
    """The least time of a call, in seconds."""
    rotation = Rotation([call])
    return min(rotation.seconds(1) for _ in range(repeats))


def machine(dtypes: Sequence[str], quick: bool) -> dict[str, Any]:
    """The GPU's best: FLOP/s of torch.mm by dtype, and bytes/s moved by a large copy."""
    size = PRODUCT_SIZE if not quick else 64
    flops = {}
    for dtype in dtypes:
        set_precision(dtype)
        kind = {"dtype": cases.torch_dtype(dtype), "device": "cuda"}
        a, b, out = (torch.zeros(size, size, **kind) for _ in range(3))
        a.normal_(), b.normal_()
        flops[dtype] = 2 * size**3 / best(lambda a=a, b=b, out=out: torch.mm(a, b, out=out))
    moved = COPY_BYTES if not quick else 1 << 16
    source = torch.ones(moved // 2, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return {
        "flops": flops,
        "bandwidth": {str(moved): moved / best(lambda: target.copy_(source))},
    }
