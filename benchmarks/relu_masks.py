"""Time what torch.compile makes of a ReLU: without convolutions, forward, and with a backward.

Where no later layer keeps a ReLU's result for its own backward, a compiled forward that will need
one stores a mask of booleans instead. This shows what storing and reading it takes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from statistics import median

import torch
from tabulate import tabulate
from torch import Tensor

import timing

SHAPE = (8, 64, 1000)  # of the benchmark's TCN, which has eight of these sums


def residual(x: Tensor, y: Tensor) -> Tensor:
    """The end of a residual block: nothing keeps the ReLU's result."""
    return x + y.relu()


def calls(function: Callable[..., Tensor]) -> dict[str, Callable[[], object]]:
    """What is timed of a function: inference, a training step's forward, and the whole step."""
    x, y, grad = (torch.randn(SHAPE) for _ in range(3))
    leaves = (x.requires_grad_(), y.requires_grad_())

    def inference() -> Tensor:
        with torch.no_grad():
            return function(*leaves)

    return {
        "inference": inference,
        "forward that keeps a mask": lambda: function(*leaves),
        "forward and backward": lambda: torch.autograd.grad(function(*leaves), leaves, grad),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Time eager and compiled in turns; print a line for each way to call."""
    parser = argparse.ArgumentParser(prog="relu_masks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of timing [%(default)s]")
    parser.add_argument("--clock", choices=timing.CLOCKS, default="wall", help="[%(default)s]")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    eager, compiled = calls(residual), calls(torch.compile(residual))
    functions = [*eager.values(), *compiled.values()]
    times = [median(t) for t in timing.interleaved(functions, options.seconds, clock=options.clock)]
    rows = [
        {"call": name, "eager ms": f"{a * 1e3:.2f}", "compiled ms": f"{b * 1e3:.2f}"}
        for name, a, b in zip(eager, times[: len(eager)], times[len(eager) :], strict=True)
    ]
    print(tabulate(rows, headers="keys", disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
