"""Whole networks with torch.nn's layers and with ours: equal outputs, gradients and training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dilconv_ext as dc
from accuracy import AGREEMENT, relative_error

TORCH = {"Conv1d": nn.Conv1d, "Conv2d": nn.Conv2d, "ConvTranspose2d": nn.ConvTranspose2d}
OURS = {
    "Conv1d": dc.DilatedConv1d,
    "Conv2d": dc.DilatedConv2d,
    "ConvTranspose2d": dc.DilatedConvTranspose2d,
}
Layers = dict[str, Any]


def classifier(layers: Layers) -> nn.Module:
    """28 × 28 × 1 → 3 × 3 with dilations 1, 2, 4 → dense."""
    conv = layers["Conv2d"]
    return nn.Sequential(
        conv(1, 8, 3),
        nn.ReLU(),
        conv(8, 16, 3, dilation=2),
        nn.ReLU(),
        conv(16, 24, 3, dilation=4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * 14 * 14, 10),
    )


class Speech(nn.Module):
    """(N, 1, T, 40) of any T: 'same' with dilations 1, 2, 3, then a mean over time."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        conv = layers["Conv2d"]
        dims = zip((1, 12, 12), (1, 2, 3), strict=True)
        self.convs = nn.ModuleList(conv(c, 12, 3, padding="same", dilation=d) for c, d in dims)
        self.head = nn.Linear(12 * 40, 10)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x).relu()
        return self.head(x.mean(2).flatten(1))


class Generator(nn.Module):
    """Image and noise combined, 5 × 5 'same' with dilations 1, 2, 4, then twice the size."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        conv = layers["Conv2d"]
        self.noise = nn.Linear(100, 14 * 14)
        dims = zip((2, 12, 12), (1, 2, 4), strict=True)
        self.convs = nn.ModuleList(conv(c, 12, 5, padding="same", dilation=d) for c, d in dims)
        self.up = layers["ConvTranspose2d"](12, 1, 3, stride=2, padding=1, output_padding=1)

    def forward(self, image: Tensor) -> Tensor:
        noise = self.noise(image.new_ones(image.size(0), 100)).view(-1, 1, 14, 14)
        x = torch.cat([image, noise], 1)
        for conv in self.convs:
            x = conv(x).relu()
        return self.up(x).sigmoid()


class Aspp(nn.Module):
    """DeepLab's head: parallel dilations, a 1 × 1, an image-level branch, concatenated."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        conv = layers["Conv2d"]
        self.stem = conv(3, 8, 7, stride=2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.branches = nn.ModuleList(
            [conv(8, 6, 1), *(conv(8, 6, 3, padding=d, dilation=d) for d in (6, 12, 18))]
        )
        self.project = conv(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        return self.project(torch.cat([branch(x) for branch in self.branches], 1))


class Residual(nn.Module):
    """Dilated depthwise-separable blocks with a skip, as in mobile and context networks."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        conv = layers["Conv2d"]
        self.entry = conv(3, 12, 3, padding=1, padding_mode="reflect")
        self.depthwise = nn.ModuleList(
            conv(12, 12, 3, padding=d, dilation=d, groups=12, bias=False) for d in (1, 2, 4)
        )
        self.pointwise = nn.ModuleList(conv(12, 12, 1) for _ in range(3))
        self.exit = conv(12, 4, 3, stride=2, groups=4, padding=1, padding_mode="circular")

    def forward(self, x: Tensor) -> Tensor:
        x = self.entry(x)
        for depthwise, pointwise in zip(self.depthwise, self.pointwise, strict=True):
            x = x + nn.functional.gelu(pointwise(depthwise(x)))
        return self.exit(x)


class WaveNet(nn.Module):
    """Causal 1-D stack with gates and skips; dilations 1 … 16."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        conv = layers["Conv1d"]
        self.entry = conv(1, 8, 1)
        self.stack = nn.ModuleList(conv(8, 16, 2, dilation=2**i) for i in range(5))
        self.skip = nn.ModuleList(conv(8, 8, 1) for _ in range(5))
        self.exit = conv(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.entry(x)
        total: Tensor | float = 0.0
        for conv, skip in zip(self.stack, self.skip, strict=True):
            a, b = conv(nn.functional.pad(x, (conv.dilation[0], 0))).chunk(2, 1)
            gated = a.tanh() * b.sigmoid()
            x = x + gated
            total = total + skip(gated)
        return self.exit(total)


NETWORKS: dict[str, tuple[Callable[[Layers], nn.Module], tuple[int, ...]]] = {
    "classifier": (classifier, (3, 1, 28, 28)),
    "speech": (Speech, (2, 1, 37, 40)),
    "generator": (Generator, (2, 1, 14, 14)),
    "aspp": (Aspp, (2, 3, 41, 43)),
    "residual": (Residual, (2, 3, 17, 18)),
    "wavenet": (WaveNet, (2, 1, 101)),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def build_both(name: str, dtype: torch.dtype) -> tuple[nn.Module, nn.Module, Tensor]:
    """Ours, torch's with the same seed, and an input."""
    build, shape = NETWORKS[name]
    models = []
    for layers in (OURS, TORCH):
        torch.manual_seed(3)
        models.append(build(layers).to(dtype))
    return models[0], models[1], torch.randn(shape, dtype=dtype)


def run(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The output, and the gradients of the input and of every parameter."""
    x = x.clone().requires_grad_()
    y = model(x)
    parameters = dict(model.named_parameters())
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    gradients = torch.autograd.grad((y * weights).sum(), (x, *parameters.values()))
    return dict(zip(("output", "input", *parameters), (y, *gradients), strict=True))


@every_network
def test_equal_in_float64(name: str) -> None:
    ours, theirs, x = build_both(name, torch.float64)
    expected = run(theirs, x)
    for key, actual in run(ours, x).items():
        # A few layers: each adds the error of one.
        assert relative_error(actual, expected[key]) < 1e-11, key


@every_network
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
def test_as_accurate_as_torch_in_float32(name: str, last: bool) -> None:
    """Against the float64 network, our float32 one errs at most twice as much as torch's."""
    ours, theirs, x = build_both(name, torch.float32)
    if last and x.dim() == 4:
        ours, theirs, x = (v.to(memory_format=torch.channels_last) for v in (ours, theirs, x))
    exact = run(copy.deepcopy(theirs).double(), x.double())
    peer = run(theirs, x)
    for key, actual in run(ours, x).items():
        limit = max(2 * relative_error(peer[key], exact[key]), AGREEMENT[torch.float32])
        assert relative_error(actual, exact[key]) <= limit, key


@every_network
def test_converted_is_the_same_network(name: str) -> None:
    ours, theirs, x = build_both(name, torch.float64)
    expected = run(ours, x)
    for key, actual in run(dc.convert(theirs), x).items():
        assert torch.equal(actual, expected[key]), key


@every_network
def test_same_training_run(name: str) -> None:
    """Five steps of Adam from the same seed: the same parameters and the same losses."""
    ours, theirs, x = build_both(name, torch.float64)
    histories = []
    for model in (ours, theirs):
        optimiser = torch.optim.Adam(model.parameters(), 1e-3)
        losses = []
        for _ in range(5):
            optimiser.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        histories.append(torch.stack(losses))
    # Adam divides by the gradient's size, so rounding grows where a gradient is nearly zero.
    torch.testing.assert_close(histories[0], histories[1], rtol=1e-8, atol=1e-10)
    assert len(set(histories[0].tolist())) == 5


@every_network
def test_input_gradient_of_a_gradient(name: str) -> None:
    """A gradient penalty: double backward through the whole network."""
    ours, theirs, x = build_both(name, torch.float64)
    results = []
    for model in (ours, theirs):
        leaf = x.clone().requires_grad_()
        (dx,) = torch.autograd.grad(model(leaf).square().sum(), leaf, create_graph=True)
        parameters = list(model.parameters())
        penalty = dx.square().sum()
        results.append(torch.autograd.grad(penalty, parameters, allow_unused=True))
    for actual, expected in zip(*results, strict=True):
        assert (actual is None) == (expected is None)
        if actual is not None:
            assert relative_error(actual, expected) < 1e-10


def test_bfloat16_autocast_trains() -> None:
    ours, theirs, x = build_both("residual", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y, expected = ours(x), theirs(x)
    assert y.dtype == expected.dtype == torch.bfloat16
    assert relative_error(y, theirs(x)) < 2 * max(relative_error(expected, theirs(x)), 2.0**-8)
    y.float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in ours.parameters())


def test_flops_are_counted() -> None:
    """torch's FLOP counter gives our networks what it gives torch's."""
    from torch.utils.flop_counter import FlopCounterMode

    for name in set(NETWORKS) - {"residual"}:  # torch counts a grouped grad_weight as if ungrouped
        counts = []
        for model in build_both(name, torch.float32)[:2]:
            x = torch.randn(NETWORKS[name][1], requires_grad=True)
            with FlopCounterMode(display=False) as counter:
                model(x).sum().backward()
            counts.append(counter.get_total_flops())
        assert counts[0] == counts[1], name
