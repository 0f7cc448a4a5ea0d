"""What a worker process does for the benchmark: check, time, and measure memory and the machine."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

import cases
import gpu
import timing
from cases import Row

# glibc's mallopt: hand blocks from this size on back to the kernel as soon as they are freed.
_M_MMAP_THRESHOLD = -3
_MMAP_BYTES = 1 << 16


def prepare(row: Row) -> None:
    """Make torch's settings those of the row."""
    torch.set_num_threads(row.threads)
    if row.device == "cuda":
        gpu.set_precision(row.dtype)
        torch.backends.cudnn.benchmark = True


def check_ours(row: Row) -> dict[str, Any]:
    """Run our side once: its error, its kernels, and the workspace that they state."""
    prepare(row)
    chosen = cases.kernels(row)
    return {
        "error": cases.error(row, cases.ours(row)()),
        "kernel": "+".join(dict.fromkeys(name for name, _ in chosen)),
        "workspace_bytes": max(size for _, size in chosen),
    }


def check_baseline(row: Row) -> dict[str, Any]:
    """Run F.conv2d's side once: its error, and which implementation it ran."""
    prepare(row)
    call = cases.baseline(row)
    value, onednn = _with_onednn_log(call)
    backend = " ".join([cases.backend(row), *onednn])
    return {"error": cases.error(row, value), "backend": backend}


def time_row(
    row: Row, sides: tuple[str, ...], seconds: float, sample: float, clock: str
) -> list[list[float]]:
    """Seconds per call in each round, of each of ``sides``, taken in turns."""
    prepare(row)
    if row.device == "cuda":
        return gpu.interleaved(row, sides, seconds, sample)
    return timing.interleaved([cases.SIDES[side](row) for side in sides], seconds, sample, clock)


def extra_memory(row: Row, side: str) -> int | None:
    """The peak of memory over what is there before and after a call, in bytes; None if unknown.

    For a fresh process. A tiny call of the same kind comes first, so that loaded code and started
    threads do not count; what the tiny call did not need, a library's caches included, does.
    """
    torch.set_num_threads(row.threads)
    if not os.access("/proc/self/clear_refs", os.W_OK):
        return None
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
    cases.SIDES[side](cases.small(row))()
    call = cases.SIDES[side](row)
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # the peak starts again from here
    before = _status_bytes("VmRSS")
    value = call()
    peak = _status_bytes("VmHWM")
    kept = [value] if isinstance(value, Tensor) else [t for t in value if t is not None]
    return max(0, peak - before - sum(t.nbytes for t in kept))


def machine(threads: int, dtypes: tuple[str, ...], seconds: float) -> dict[str, Any]:
    """The machine's best: FLOP/s by dtype, and bytes/s by the bytes that a copy moves."""
    torch.set_num_threads(threads)
    # Narrow types can always be widened, so float32's peak is theirs at least; and a vector holds
    # half as many elements of float64.
    single = timing.product_flops(torch.float32, seconds)
    flops = {
        dtype: single
        if dtype == "float32"
        else timing.product_flops(getattr(torch, dtype), seconds)
        for dtype in dtypes
    }
    for dtype, share in (("bfloat16", 1), ("float16", 1), ("float64", 0.5)):
        if dtype in flops:
            flops[dtype] = max(flops[dtype], share * single)
    copies = {str(size): timing.copy_bandwidth(size, seconds / 4) for size in timing.COPY_BYTES}
    return {"flops": flops, "bandwidth": copies}


def _status_bytes(field: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith(field))
    return 1024 * int(line.split()[1])


def _with_onednn_log(call: Callable[[], Any]) -> tuple[Any, list[str]]:
    """Call, and list the implementations of the convolutions that oneDNN ran, in its words."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        with _standard_output_to(log), torch.backends.mkldnn.verbose(1):
            value = call()
        log.seek(0)
        return value, list(dict.fromkeys(_implementations(log)))


def _implementations(log: Iterator[str]) -> Iterator[str]:
    """From ``onednn_verbose,…,exec,cpu,convolution,<implementation>,…``, with or without times."""
    for line in log:
        words = line.split(",")
        if line.startswith("onednn_verbose") and "exec" in words:
            kind, implementation = words[words.index("exec") + 2 :][:2]
            if kind != "reorder":
                yield implementation


@contextmanager
def _standard_output_to(file: Any) -> Iterator[None]:
    """Redirect the process's output, that of C libraries included."""
    kept = os.dup(1)
    try:
        os.dup2(file.fileno(), 1)
        yield
    finally:
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
