"""Time of functions, taken in turns; and what the machine can do at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import ceil
from timeit import Timer
from typing import Any

import torch
import torch.nn.functional as F

# A sample is so many calls in a row that it takes at least so long: the clock, and a short burst
# of other programs, then matter little.
SAMPLE_SECONDS = 0.005
LEAST_ROUNDS, MOST_ROUNDS = 3, 1000
# The CPU's time is that of all threads together, without that of other programs.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
# Sizes of the copies, in bytes read and written: from the caches of one core to main memory.
COPY_BYTES = tuple(1 << power for power in (18, 20, 22, 24, 26, 28))


def _calls_per_sample(timer: Timer, sample_seconds: float) -> int:
    timer.timeit(1)  # the first call may compile, allocate or start threads
    calls = 1
    while (taken := timer.timeit(calls)) < sample_seconds / 4:
        calls *= 4
    return ceil(calls * sample_seconds / taken)


def interleaved(
    functions: Sequence[Callable[[], Any]],
    seconds: float,
    sample_seconds: float = SAMPLE_SECONDS,
    clock: str = "wall",
) -> list[list[float]]:
    """Time functions in turns, so that they share whatever else the machine does.

    Every other round takes them in the opposite order. ``timeit`` keeps the garbage collector off.

    Args:
        functions: what to call.
        seconds: for all of them together; there are at least three rounds, however long they take.
        sample_seconds: the least length of one sample.
        clock: one of ``CLOCKS``.

    Returns:
        For every function, the seconds per call in each round.
    """
    timers = [Timer(function, timer=CLOCKS[clock]) for function in functions]
    calls = [_calls_per_sample(timer, sample_seconds) for timer in timers]
    rounds: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(rounds) < LEAST_ROUNDS or (time.perf_counter() < end and len(rounds) < MOST_ROUNDS):
        order = range(len(timers)) if len(rounds) % 2 else reversed(range(len(timers)))
        times = {i: timers[i].timeit(calls[i]) / calls[i] for i in order}
        rounds.append([times[i] for i in range(len(timers))])
    return [list(times) for times in zip(*rounds, strict=True)]


def product_flops(dtype: torch.dtype, seconds: float) -> float:
    """FLOP/s of products of matrices, the best sample: a stand-in for the FMA peak.

    They are torch.mm's, and those of F.conv2d on an undilated layer, because torch.mm may run fewer
    instructions than the machine has. Both grow as long as each takes less than ``seconds``.
    """
    best = 0.0
    for size in (128, 256, 512, 1024, 2048):
        a, b, out = (torch.randn(size, size).to(dtype) for _ in range(3))
        x = torch.randn(1, size // 4, 34, 34).to(dtype, memory_format=torch.channels_last)
        w = torch.randn(size // 4, size // 4, 3, 3).to(dtype)
        products = (size**3, 9 * w.shape[0] * w.shape[1] * 32 * 32)
        samples = interleaved(
            [lambda a=a, b=b, out=out: torch.mm(a, b, out=out), lambda x=x, w=w: F.conv2d(x, w)],
            seconds / 4,
        )
        best = max(
            [best] + [2 * n / min(times) for n, times in zip(products, samples, strict=True)]
        )
        if 8 * max(min(times) for times in samples) > seconds:
            break
    return best


def copy_bandwidth(size: int, seconds: float) -> float:
    """Bytes per second, read and written, of a copy that moves ``size`` bytes: the best sample."""
    source = torch.ones(size // 2, dtype=torch.uint8)
    target = torch.empty_like(source)
    (times,) = interleaved([lambda: target.copy_(source)], seconds)
    return size / min(times)
