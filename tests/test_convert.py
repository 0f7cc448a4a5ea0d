"""dilconv_ext.convert: which layers it swaps, which it leaves and why, and what stays as it was."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dilconv_ext as dc
from accuracy import assert_agrees, relative_error


class Causal(nn.Conv1d):
    """A subclass with a forward of its own: convert must not touch it."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(input, (self.dilation[0] * 2, 0)))


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding="same", dilation=2),
        nn.BatchNorm2d(8),
        nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1, groups=4, padding_mode="reflect")),
        nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1, bias=False),
        nn.Flatten(2),
        nn.Conv1d(6, 4, 5, dilation=3),
        Causal(4, 4, 3, dilation=2),
    )


X = torch.linspace(-1, 1, 2 * 3 * 10 * 12).view(2, 3, 10, 12)


def test_swaps_in_place() -> None:
    original = (
        model().double().eval()
    )  # in training, batch norm makes some gradients 0 but for noise
    converted = copy.deepcopy(original)
    modules = list(converted.modules())
    parameters = list(converted.parameters())
    optimiser = torch.optim.SGD(converted.parameters(), 0.1)
    assert dc.convert(converted) is converted
    assert [id(m) for m in converted.modules()] == [id(m) for m in modules]
    assert [id(p) for p in converted.parameters()] == [id(p) for p in parameters]
    assert list(converted.state_dict()) == list(original.state_dict())
    kinds = [type(m) for m in converted.modules() if isinstance(m, nn.modules.conv._ConvNd)]
    assert kinds == [
        dc.DilatedConv2d,
        dc.DilatedConv2d,
        dc.DilatedConvTranspose2d,
        dc.DilatedConv1d,
        Causal,
    ]
    for _ in range(2):  # the second round with the parameters that the optimiser has changed
        original.load_state_dict(converted.state_dict())
        results = []
        for net in (converted, original):
            y = net(X.double())
            results.append((y, *torch.autograd.grad(y.square().sum(), tuple(net.parameters()))))
        for actual, expected in zip(*results, strict=True):
            assert relative_error(actual, expected) < 1e-10
        converted(X.double()).mean().backward()
        optimiser.step()


def test_a_bare_layer_and_a_second_time() -> None:
    layer = nn.Conv2d(3, 4, 3)
    assert dc.convert(layer) is layer
    assert type(layer) is dc.DilatedConv2d
    assert type(dc.convert(layer)) is dc.DilatedConv2d


def test_hooks_and_training_flags_stay() -> None:
    net = model().eval()
    calls: list[str] = []
    net[0].register_forward_hook(lambda *_: calls.append("hook"))
    dc.convert(net)
    assert not net[0].training
    net(X)
    assert calls == ["hook"]


def test_shared_layers_are_swapped_once() -> None:
    layer = nn.Conv2d(3, 3, 3, padding=1)
    net = dc.convert(nn.Sequential(layer, nn.ReLU(), layer))
    assert net[0] is net[2]
    assert type(net[0]) is dc.DilatedConv2d


@pytest.mark.parametrize(
    ("layer", "word"),
    [
        (nn.Conv3d(3, 4, 3), "Conv3d"),
        (nn.ConvTranspose1d(3, 4, 3), "ConvTranspose1d"),
        (Causal(3, 4, 3), "Causal"),
        (nn.LazyConv2d(4, 3), "lazy"),
    ],
    ids=lambda v: v if isinstance(v, str) else type(v).__name__,
)
def test_leaves_with_a_reason(
    layer: nn.Module, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    kind = type(layer)
    with caplog.at_level(logging.INFO, logger="dilconv_ext"):
        net = dc.convert(nn.ModuleDict({"odd_one": layer, "plain": nn.Conv2d(3, 4, 3)}))
    assert type(net["odd_one"]) is kind
    assert type(net["plain"]) is dc.DilatedConv2d
    assert "odd_one" in caplog.text
    assert word in caplog.text
    assert "plain" in caplog.text


def test_reports_nothing_when_there_is_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="dilconv_ext"):
        net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        assert dc.convert(net) is net
    assert "Linear" not in caplog.text


def test_converted_models_keep_working_with_torch() -> None:
    """state_dict, deepcopy, weight norm, channels_last, torch.compile."""
    net = model()[:4]
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3, padding=1))
    x = X.clone()
    expected = net(normed(x))
    whole = dc.convert(nn.Sequential(normed, *net))
    assert isinstance(whole[0], dc.DilatedConv2d)
    assert_agrees(whole(x), expected)
    fresh = copy.deepcopy(whole)
    fresh.load_state_dict(whole.state_dict())
    assert_agrees(fresh(x), whole(x))
    torch._dynamo.reset()
    compiled = torch.compile(whole, backend="aot_eager", fullgraph=True)
    assert_agrees(compiled(x), expected)
    last = whole.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert_agrees(last, expected)


def test_revert_undoes_it() -> None:
    net = model()
    kinds: list[Any] = [type(m) for m in net.modules()]
    dc.revert(dc.convert(net))
    assert [type(m) for m in net.modules()] == kinds
