"""Time whole training steps: networks of torch.nn layers beside the same networks converted.

With ``--compile`` both are timed under ``torch.compile`` too, and a second table says how much of
each step the convolutions take, and how much all else.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

import dilconv_ext as dc
import report
import timing

sys.path.append(str(Path(__file__).resolve().parent.parent / "examples"))
from nets import TORCH, Classifier, Generator, SpeechClassifier

LOSS_STEPS = 10
PROFILED_STEPS = 10
# Ten steps of rounding apart; the losses themselves are about one.
MOST_DIFFERENCE = 1e-3


class ASPP(nn.Module):
    """The head of DeepLabv3 (arXiv 1706.05587) on a 33×33 map: rates 6, 12 and 18."""

    def __init__(self, channels: int = 512, width: int = 256, classes: int = 21) -> None:
        super().__init__()

        def branch(kernel: int, rate: int) -> nn.Sequential:
            conv = nn.Conv2d(
                channels, width, kernel, padding=rate * (kernel // 2), dilation=rate, bias=False
            )
            return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())

        self.branches = nn.ModuleList([branch(1, 1), *(branch(3, rate) for rate in (6, 12, 18))])
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), *branch(1, 1))
        self.project = nn.Sequential(
            nn.Conv2d(5 * width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.head = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, classes, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(x).expand(-1, -1, *x.shape[2:])
        joined = torch.cat([*(branch(x) for branch in self.branches), pooled], dim=1)
        return self.head(self.project(joined))


class TCN(nn.Module):
    """A temporal convolutional network (arXiv 1803.01271): causal, dilations 1 to 128."""

    def __init__(self, channels: int = 64, levels: int = 8) -> None:
        super().__init__()
        self.lift = nn.Conv1d(1, channels, 1)
        self.blocks = nn.ModuleList()
        for level in range(levels):
            gap = 2**level
            pair = (
                nn.Conv1d(channels, channels, 3, padding=2 * gap, dilation=gap) for _ in range(2)
            )
            self.blocks.append(nn.ModuleList(pair))
        self.head = nn.Conv1d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        for block in self.blocks:
            y = x
            for conv in block:
                y = conv(y)[..., : x.shape[-1]].relu()  # the future is cut off
            x = x + y
        return self.head(x)


class ESPBlock(nn.Module):
    """An ESP module (arXiv 1803.06815): reduce, five dilated 3×3 in parallel, fused one by one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // 5
        self.reduce = nn.Conv2d(channels, width, 1, bias=False)
        self.spread = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=rate, dilation=rate, bias=False)
            for rate in (1, 2, 4, 8, 16)
        )
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(x)
        fused = [self.spread[0](reduced)]
        for conv in self.spread[1:]:
            fused.append(fused[-1] + conv(reduced))
        return F.relu(self.norm(x + torch.cat(fused, dim=1)))


class Noisy(nn.Module):
    """The example generator with its noise drawn once, so that every run sees the same."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.generator = Generator(TORCH)
        self.register_buffer("noise", torch.randn(batch, 100))

    def forward(self, images: Tensor) -> Tensor:
        return self.generator(images, self.noise)


class Spoken(nn.Module):
    """The example speech network on recordings of one length."""

    def __init__(self) -> None:
        super().__init__()
        self.speech = SpeechClassifier(TORCH)

    def forward(self, features: Tensor) -> Tensor:
        lengths = torch.full(features.shape[:1], features.shape[1])
        return self.speech(features, lengths)


@dataclass(frozen=True)
class Network:
    """How to build a network of torch.nn layers, and its input's shape."""

    build: Callable[[], nn.Module]
    input: tuple[int, ...]


NETWORKS = {
    "classifier": Network(lambda: Classifier(TORCH), (64, 1, 28, 28)),
    "speech": Network(Spoken, (16, 50, 40)),
    "generator": Network(lambda: Noisy(32), (32, 1, 14, 14)),
    "aspp": Network(ASPP, (2, 512, 33, 33)),
    "tcn": Network(TCN, (8, 1, 1000)),
    "espnet": Network(lambda: nn.Sequential(*(ESPBlock(100) for _ in range(4))), (2, 100, 64, 64)),
}


@dataclass
class Result:
    """A network's training step, here and there, and how far the losses drifted apart."""

    network: str
    layout: str
    threads: int
    ours: float
    baseline: float
    ratio: float
    loss: float
    difference: float
    kept: int
    """Convolutions that ``convert`` left as they were."""
    compiled: Compiled | None = None


@dataclass
class Compiled:
    """The same under torch.compile, and what compiling gains here and there (eager / compiled).

    ``shares`` has a Share for each way to run the step, named as in ``WAYS``.
    """

    ours: float
    baseline: float
    gain: float
    baseline_gain: float
    ratio: float
    shares: dict[str, Share]


@dataclass
class Share:
    """Seconds of a step in the convolutions' operators, and in all else, under the profiler."""

    convolutions: float
    rest: float


WAYS = ("ours", "torch.nn", "ours, compiled", "torch.nn, compiled")


def training_step(network: nn.Module, x: Tensor, target: Tensor) -> Callable[[], float]:
    """Forward, mean squared error against the target, backward, SGD; returns the loss."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = F.mse_loss(network(x), target)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def measure(
    name: str,
    layout: str,
    threads: int,
    seconds: float,
    clock: str = "wall",
    compile: bool = False,
) -> Result:
    """Compare the losses of a few steps, then time steps in turns."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    theirs = NETWORKS[name].build()
    x = torch.randn(NETWORKS[name].input)
    if layout == "channels_last":
        theirs = theirs.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last) if x.dim() == 4 else x
    ours = dc.convert(copy.deepcopy(theirs))
    plain = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
    kept = sum(type(module) in plain for module in ours.modules())
    with torch.no_grad():
        # A copy, because normalisation layers remember what they have seen.
        shape = copy.deepcopy(theirs)(x).shape
    target = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    networks = [ours, theirs]
    if compile:
        networks += [torch.compile(copy.deepcopy(network)) for network in networks]
    steps = [training_step(network, x, target) for network in networks]
    losses = [[step() for _ in range(LOSS_STEPS)] for step in steps]
    baseline = losses[1]
    difference = max(
        abs(a - b) / abs(b) for each in losses for a, b in zip(each, baseline, strict=True)
    )
    if not difference <= MOST_DIFFERENCE:
        raise AssertionError(f"{name}: the losses differ by {difference:.1e}: {losses}")
    times = timing.interleaved(steps, seconds, clock=clock)
    return Result(
        name,
        layout,
        threads,
        median(times[0]),
        median(times[1]),
        quotient(times[1], times[0]),
        baseline[-1],
        difference,
        kept,
        gains(times, [share(step) for step in steps]) if compile else None,
    )


def quotient(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """The median over the rounds of one time / another."""
    return median(a / b for a, b in zip(numerator, denominator, strict=True))


def share(step: Callable[[], float]) -> Share:
    """Profile a step. What a convolution calls that is not named a convolution is in the rest."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(PROFILED_STEPS):
            step()
    spent = Share(0.0, 0.0)
    for event in profiler.key_averages():
        seconds = event.self_cpu_time_total * 1e-6 / PROFILED_STEPS
        if event.key.startswith(("aten::", "dilconv::")) and "conv" in event.key:
            spent.convolutions += seconds
        else:
            spent.rest += seconds
    return spent


def gains(times: Sequence[Sequence[float]], shares: Sequence[Share]) -> Compiled:
    """Of the rounds and shares of what ``WAYS`` names."""
    ours, theirs, ours_compiled, theirs_compiled = times
    return Compiled(
        median(ours_compiled),
        median(theirs_compiled),
        quotient(ours, ours_compiled),
        quotient(theirs, theirs_compiled),
        quotient(theirs_compiled, ours_compiled),
        dict(zip(WAYS, shares, strict=True)),
    )


def table(results: Sequence[Result]) -> str:
    """A line per network, memory format and number of threads."""
    rows = [
        {
            "network": r.network,
            "layout": r.layout,
            "thr": r.threads,
            "torch.nn ms": f"{r.baseline * 1e3:.1f}",
            "ms": f"{r.ours * 1e3:.1f}",
            "ratio": f"{r.ratio:.2f}",
            **compiled_columns(r.compiled),
            "loss": f"{r.loss:.4f}",
            "differs by": f"{r.difference:.0e}",
            "left": r.kept,
        }
        for r in results
    ]
    return tabulate(rows, headers="keys", disable_numparse=True)


def share_table(results: Sequence[Result]) -> str:
    """A line per network and way to run it: milliseconds in the convolutions and in all else."""
    rows = [
        {
            "network": r.network,
            "layout": r.layout,
            "thr": r.threads,
            "step": way,
            "convolutions ms": f"{share.convolutions * 1e3:.1f}",
            "rest ms": f"{share.rest * 1e3:.1f}",
        }
        for r in results
        if r.compiled
        for way, share in r.compiled.shares.items()
    ]
    return tabulate(rows, headers="keys", disable_numparse=True)


def compiled_columns(compiled: Compiled | None) -> dict[str, str]:
    """The columns that ``--compile`` adds."""
    if compiled is None:
        return {}
    return {
        "torch.nn compiled ms": f"{compiled.baseline * 1e3:.1f}",
        "compiled ms": f"{compiled.ours * 1e3:.1f}",
        "compiled ratio": f"{compiled.ratio:.2f}",
        "torch.nn gains": f"{compiled.baseline_gain:.2f}",
        "gains": f"{compiled.gain:.2f}",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen networks; print and write the table."""
    parser = argparse.ArgumentParser(prog="networks", description=__doc__)
    add = parser.add_argument
    add("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="[all]")
    add("--layouts", nargs="+", choices=("contiguous", "channels_last"), default=["contiguous"])
    add("--threads", nargs="+", type=int, default=[1, 2], metavar="N", help="[1 2]")
    add("--seconds", type=float, default=5.0, help="of timing for each row [%(default)s]")
    add("--clock", choices=timing.CLOCKS, default="wall", help="[%(default)s]; see README.md")
    add("--compile", action="store_true", help="time both under torch.compile too")
    add("--output", type=Path, default=Path("output", "networks"), metavar="DIR")
    options = parser.parse_args(arguments)
    rows = [(n, m, t) for n in options.networks for m in options.layouts for t in options.threads]
    how = (options.seconds, options.clock, options.compile)
    results = [measure(*row, *how) for row in tqdm(rows, unit="row")]
    options.output.mkdir(parents=True, exist_ok=True)
    written = {"environment": report.environment(), "results": [asdict(r) for r in results]}
    (options.output / "results.json").write_text(json.dumps(written, indent=1) + "\n")
    tables = table(results)
    if options.compile:
        tables += "\n\n" + share_table(results)
    (options.output / "table.txt").write_text(tables + "\n", encoding="utf-8")
    print(tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
