"""dilconv_ext.convert: which layers it swaps, which it leaves and why, and what stays as it was."""

from __future__ import annotations

import copy
import io
import logging
import pickle
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


class Scaled(nn.Conv2d):
    """A subclass that replaces the arithmetic."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight * 2, bias)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding="same", dilation=2),
        nn.BatchNorm2d(8),
        nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1, groups=4, padding_mode="reflect")),
        nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1, bias=False),
        nn.Flatten(2),
        nn.Conv1d(6, 4, 5, dilation=3),
        nn.ConvTranspose1d(4, 4, 4, 2, 1),
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
        dc.DilatedConvTranspose1d,
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
        (nn.ConvTranspose3d(3, 4, 3), "ConvTranspose3d"),
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


def report_of(caplog: pytest.LogCaptureFixture, net: nn.Module, **options: Any) -> dc.Conversion:
    """What convert logs of ``net``, the object."""
    with caplog.at_level(logging.INFO, logger="dilconv_ext"):
        dc.convert(net, **options)
    return caplog.records[-1].args[0]


def test_where_chooses(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[str] = []

    def dilated(name: str, module: nn.Module) -> bool:
        asked.append(name)
        return max(module.dilation) > 1

    net = model()
    report = report_of(caplog, net, where=dilated)
    assert asked == ["0", "2.1", "3", "5", "6"]  # and not the subclass, which is left in any case
    assert [name for name, _ in report.converted] == ["0", "5"]
    assert [name for name, *_ in report.left] == ["2.1", "3", "6", "7"]
    assert "where" in report.left[0][2]
    dc.convert(net)
    dc.revert(net, where=lambda name, module: name == "0")
    assert type(net[0]) is nn.Conv2d
    assert type(net[5]) is dc.DilatedConv1d


@pytest.mark.parametrize(
    ("layer", "size"), [(Causal(3, 4, 3, dilation=2), (2, 3, 9)), (Scaled(3, 4, 3), (2, 3, 9, 8))]
)
def test_named_subclasses_keep_their_forward(layer: nn.Module, size: tuple[int, ...]) -> None:
    """Their own code runs, and the convolution below it is ours; revert gives the class back."""
    cls = type(layer)
    x = torch.randn(size)
    expected = layer(x)
    dc.convert(layer, subclasses=(cls,))
    assert isinstance(layer, cls)
    assert isinstance(layer, (dc.DilatedConv1d, dc.DilatedConv2d))
    assert repr(layer).startswith(cls.__name__)
    with torch.profiler.profile() as profile:
        assert_agrees(layer(x), expected)
    names = {event.name for event in profile.events()}
    assert "dilconv::conv2d" in names
    assert "aten::convolution" not in names
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(again) is type(layer)
        assert_agrees(again(x), expected)
    dc.convert(layer, subclasses=(cls,))  # already done
    assert type(dc.revert(layer)) is cls


def test_only_subclasses_of_convolutions_can_be_named() -> None:
    for wrong in (nn.Linear, nn.Conv2d, nn.Conv3d):
        with pytest.raises(TypeError, match="subclasses must be derived from Conv1d"):
            dc.convert(model(), subclasses=(wrong,))


def quantised(kind: str) -> nn.Module:
    if kind == "static":
        return torch.ao.nn.quantized.Conv2d(3, 4, 3)
    qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")
    return torch.ao.nn.qat.Conv2d(3, 4, 3, qconfig=qconfig)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
@pytest.mark.filterwarnings("ignore:must run observer before")
@pytest.mark.parametrize("kind", ["static", "qat"])
def test_quantised_layers_are_left(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    net = nn.ModuleDict({"odd": quantised(kind)})
    before = type(net["odd"])
    report = report_of(caplog, net)
    assert type(net["odd"]) is before
    assert report.converted == []
    assert [name for name, *_ in report.left] == ["odd"]


def test_layers_with_a_forward_of_their_own_are_left(caplog: pytest.LogCaptureFixture) -> None:
    """Some libraries replace the method on the instance; the class is then not what counts."""
    layer = nn.Conv2d(3, 4, 3)
    layer.forward = lambda x: x  # type: ignore[method-assign]
    report = report_of(caplog, nn.Sequential(layer))
    assert "replaced" in report.left[0][2]


def test_lazy_layers_convert_once_they_have_run(caplog: pytest.LogCaptureFixture) -> None:
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyConvTranspose2d(2, 3))
    assert len(report_of(caplog, net).left) == 2
    expected = net(X)
    assert len(report_of(caplog, net).converted) == 2
    assert_agrees(net(X), expected)


@pytest.mark.parametrize("normalise", ["weight_norm", "spectral_norm", "orthogonal"])
def test_parametrizations_stay(normalise: str) -> None:
    """The same outputs and gradients, and they can be removed: the layer below is then ours."""
    from torch.nn.utils import parametrizations, parametrize

    wrap = getattr(parametrizations, normalise)
    net = nn.Sequential(wrap(nn.Conv2d(3, 4, 3)), nn.ReLU(), wrap(nn.ConvTranspose2d(4, 3, 3)))
    net.double().eval()
    ours = dc.convert(copy.deepcopy(net))
    results = []
    for each in (net, ours):
        y = each(X.double())
        results.append([y, *torch.autograd.grad(y.square().sum(), list(each.parameters()))])
    for actual, expected in zip(*results, strict=True):
        assert relative_error(actual, expected) < 1e-12
    parametrize.remove_parametrizations(ours[0], "weight")
    assert type(ours[0]) is dc.DilatedConv2d
    assert_agrees(ours(X.double()), results[1][0])
    dc.revert(ours)
    assert isinstance(ours[2], nn.ConvTranspose2d)
    assert not isinstance(ours[2], dc.DilatedConvTranspose2d)
    assert_agrees(ours(X.double()), results[1][0])


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_old_style_hooks_on_weights_stay() -> None:
    """Pruning masks and the older weight_norm recompute the weight before each call."""
    from torch.nn.utils import prune, weight_norm

    def build() -> nn.Module:
        torch.manual_seed(1)
        net = nn.Sequential(weight_norm(nn.Conv2d(3, 4, 3)), nn.Conv2d(4, 2, 3)).double()
        prune.random_unstructured(net[1], "weight", amount=0.5)
        return net

    net, ours = build(), dc.convert(build())
    assert isinstance(ours[0], dc.DilatedConv2d)
    results = []
    for each in (net, ours):
        optimiser = torch.optim.SGD(each.parameters(), 0.1)
        for _ in range(2):
            optimiser.zero_grad()
            y = each(X.double())
            y.square().mean().backward()
            optimiser.step()
        results.append([y, *[p.grad for p in each.parameters()]])
    for actual, expected in zip(*results, strict=True):
        assert relative_error(actual, expected) < 1e-10
    assert (ours[1].weight == 0).sum() == ours[1].weight.numel() // 2


def test_saving_and_loading() -> None:
    """state_dict files go both ways; whole modules can be pickled."""
    net = model()
    before = io.BytesIO()
    torch.save(net.state_dict(), before)
    expected = net(X)
    dc.convert(net)
    after = io.BytesIO()
    torch.save(net.state_dict(), after)
    for file in (before, after):
        file.seek(0)
        state = torch.load(file, weights_only=True)
        for fresh in (model(), dc.convert(model())):
            nn.init.zeros_(fresh[0].weight)
            fresh.load_state_dict(state)
            assert_agrees(fresh(X), expected)
    assert_agrees(pickle.loads(pickle.dumps(net))(X), net(X))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimiser_from_before_goes_on(kind: Any) -> None:
    """Its state (moments, momentum) stays with the parameters: as if nothing had been converted."""
    finals = []
    for swap in (False, True):
        net = model().double()
        options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        optimiser = kind(net.parameters(), 0.01, **options)
        for step in range(4):
            if swap and step == 2:
                dc.convert(net)
            optimiser.zero_grad()
            net(X.double()).square().mean().backward()
            optimiser.step()
        finals.append(list(net.parameters()))
    for actual, expected in zip(*finals, strict=True):
        assert relative_error(actual.detach(), expected.detach()) < 1e-8
