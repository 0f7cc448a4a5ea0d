"""Run F.conv2d where it is known to be wrong or to crash, and say what it does on this machine.

Every case has a process of its own. What happens depends on torch's version and on the
instructions that the processor has; the README has a table of what was seen where.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate
from tqdm import tqdm

import jobs
from cases import WRONG, Row, is_wrong
from shapes import Shape, Sizes


def _row(
    direction: str,
    layout: str,
    shape: tuple[int, int, int, int],
    c_out: int,
    kernel: Sizes,
    dilation: Sizes,
    padding: Sizes,
    stride: Sizes = (1, 1),
    groups: int = 1,
) -> Row:
    """A row in bfloat16 of a layer on an input of (N, C, H, W)."""
    n, c_in, *size = shape
    layer = Shape(
        name="",
        family="",
        n=n,
        c_in=c_in,
        c_out=c_out,
        size=tuple(size),
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        output_padding=(0, 0),
        groups=groups,
    )
    return Row(layer, "bfloat16", layout, 1, direction)


# First the cases with which the defects were found, each beside the other layout's; then smaller
# ones of the same kind: dilated, channels_last, and depthwise or with channels that 16 does not
# divide. With 16 channels in and out, or without dilation, nothing was found.
_DEPTHWISE = ((2, 16, 45, 29), 16, (3, 3), (7, 9), (7, 9), (1, 1), 16)
_FORWARD = ((4, 18, 33, 7), 11, (1, 5), (5, 7), (0, 28), (2, 1))
CASES = (
    _row("grad_weight", "channels_last", *_DEPTHWISE),
    _row("grad_weight", "contiguous", *_DEPTHWISE),
    _row("forward", "contiguous", *_FORWARD),
    _row("forward", "channels_last", *_FORWARD),
    _row("grad_weight", "channels_last", (2, 24, 128, 128), 24, (3, 3), (16, 16), (16, 16)),
    *(
        _row("grad_weight", "channels_last", (2, c, 40, 40), c, (3, 3), (d, d), (d, d), (1, 1), g)
        for c, g in ((16, 16), (256, 256), (16, 1), (24, 1), (33, 1))
        for d in (1, 2, 4)
    ),
)


def outcome(row: Row, done: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    """What happened in words, and which implementation torch ran, if it lived to tell."""
    if done.returncode < 0:
        return f"crashed ({signal.Signals(-done.returncode).name})", ""
    if done.returncode:
        return "failed: " + (done.stderr.strip().splitlines() or ["?"])[-1][:60], ""
    checked: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    error = checked["error"]
    if math.isnan(error):
        return "NaN", checked["backend"]
    words = f"wrong ({error:.1e})" if is_wrong(row, error) else f"ok ({error:.1e})"
    return words, checked["backend"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", type=int, help="only this one, in this process, as JSON")
    case = parser.parse_args(arguments).case
    if case is not None:
        print(json.dumps(jobs.check_baseline(CASES[case])))
        return 0
    lines = []
    for number, row in enumerate(tqdm(CASES, unit="case")):
        command = [sys.executable, str(Path(__file__).resolve()), "--case", str(number)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        words, backend = outcome(row, done)
        ours = jobs.check_ours(row)["error"]
        lines.append((number, row.direction, row.layout, row.shape, words, backend, f"{ours:.1e}"))
    headers = ("case", "direction", "layout", "layer", "F.conv2d", "which ran", "our error")
    print(f"All in bfloat16; an L2-relative error above {WRONG['bfloat16']} is wrong.")
    print(tabulate(lines, headers=headers, disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
