"""The modules: torch's constructor, initialisation, state, repr and behaviour."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dilconv_ext as dc
from accuracy import assert_agrees
from problems import channels_last
from test_functional import same_pads

# (ours, torch's, constructor arguments, keyword arguments, input shape)
Case = tuple[type[nn.Module], type[nn.Module], tuple[Any, ...], dict[str, Any], tuple[int, ...]]
D1, D2, DT = dc.DilatedConv1d, dc.DilatedConv2d, dc.DilatedConvTranspose2d
T1, T2, TT = nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d
DT1, TT1 = dc.DilatedConvTranspose1d, nn.ConvTranspose1d
IMAGE, LINE = (2, 4, 9, 8), (2, 4, 12)
CASES: list[Case] = [
    (D2, T2, (4, 6, 3), {}, IMAGE),
    (D2, T2, (4, 6, (3, 2)), {"stride": 2, "padding": (2, 1), "dilation": (1, 2)}, IMAGE),
    (D2, T2, (4, 6, 3, 2, 1, 2, 2, False), {}, IMAGE),
    (D2, T2, (4, 8, 3), {"groups": 4, "padding": "same", "dilation": 2}, IMAGE),
    (D2, T2, (4, 6, 4), {"padding": "same", "bias": False}, IMAGE),
    (D2, T2, (4, 6, 3), {"padding": "valid", "stride": (1, 2)}, IMAGE),
    (D2, T2, (4, 6, 1), {}, IMAGE),
    (D2, T2, (4, 6, 3), {"padding": 2}, (4, 9, 8)),
    (D2, T2, (4, 6, 3), {}, (0, 4, 9, 8)),
    (D1, T1, (4, 6, 3), {}, LINE),
    (D1, T1, (4, 6, 3), {"stride": 2, "padding": 3, "dilation": 2, "groups": 2}, LINE),
    (D1, T1, (4, 6, (4,)), {"padding": "same", "dilation": (3,)}, LINE),
    (D1, T1, (4, 6, 5), {"padding": (2,), "bias": False}, (4, 12)),
    (DT, TT, (4, 6, 3), {}, IMAGE),
    (DT, TT, (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1}, IMAGE),
    (DT, TT, (4, 6, (3, 2)), {"stride": (3, 1), "dilation": (1, 3), "output_padding": 2}, IMAGE),
    (DT, TT, (4, 6, 3, 2, 1, 1, 2, False, 2), {}, IMAGE),
    (DT, TT, (4, 6, 3), {"stride": 2}, (4, 9, 8)),
    (DT1, TT1, (4, 6, 3), {}, LINE),
    (DT1, TT1, (4, 6, 8), {"stride": 4, "padding": 2, "bias": False}, LINE),
    (DT1, TT1, (4, 6, (3,), 3, 1, 2, 2, True, 2), {}, LINE),
    (DT1, TT1, (4, 6, 4), {"stride": (2,), "output_padding": 1}, (4, 12)),
]
for _mode in ("reflect", "replicate", "circular"):
    CASES += [
        (D2, T2, (4, 6, 3), {"padding": 2, "padding_mode": _mode, "dilation": 2}, IMAGE),
        (D2, T2, (4, 6, (3, 2)), {"padding": (1, 3), "padding_mode": _mode, "stride": 2}, IMAGE),
        (D2, T2, (4, 6, (4, 3)), {"padding": "same", "padding_mode": _mode}, IMAGE),
        (D2, T2, (4, 6, 3), {"padding": "valid", "padding_mode": _mode}, IMAGE),
        (D1, T1, (4, 6, 4), {"padding": "same", "padding_mode": _mode, "dilation": 2}, LINE),
        (D1, T1, (4, 6, 3), {"padding": 2, "padding_mode": _mode}, LINE),
    ]


def case_id(case: Case) -> str:
    _, theirs, args, kwargs, shape = case
    return f"{theirs.__name__}{args}{kwargs}{shape}".replace(" ", "")


every_case = pytest.mark.parametrize("case", CASES, ids=case_id)


def build_both(case: Case, **extra: Any) -> tuple[nn.Module, nn.Module]:
    """Our module and torch's, each built with the same seed."""
    modules = []
    for cls in case[:2]:
        torch.manual_seed(7)
        modules.append(cls(*case[2], **case[3], **extra))
    return modules[0], modules[1]


def assert_same_state(ours: nn.Module, theirs: nn.Module) -> None:
    a, b = ours.state_dict(), theirs.state_dict()
    assert list(a) == list(b)
    for name in a:
        assert torch.equal(a[name], b[name]), name


@every_case
def test_is_torchs_module(case: Case) -> None:
    """A subclass, with the same parameters from the same seed; its repr differs in the name."""
    ours, theirs = build_both(case)
    assert isinstance(ours, case[1])
    assert_same_state(ours, theirs)
    assert repr(ours) == repr(theirs).replace(case[1].__name__, case[0].__name__, 1)


@every_case
@pytest.mark.parametrize(
    "to_format", [lambda t: t, channels_last], ids=["contiguous", "channels_last"]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_same_outputs_and_gradients(
    dtype: torch.dtype, to_format: Callable[[Tensor], Tensor], case: Case
) -> None:
    ours, theirs = build_both(case, dtype=dtype)
    x = to_format(torch.randn(case[4], dtype=dtype))
    results = []
    for module in (ours, theirs):
        leaf = x.clone().requires_grad_()
        y = module(leaf)
        results.append((y, *torch.autograd.grad(y, (leaf, *module.parameters()), y.detach().cos())))
    for actual, expected in zip(*results, strict=True):
        assert_agrees(actual, expected)


@every_case
def test_state_dict_both_ways(case: Case) -> None:
    ours, theirs = case[0](*case[2], **case[3]), case[1](*case[2], **case[3])
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert_same_state(ours, theirs)
    fresh = case[0](*case[2], **case[3])
    fresh.load_state_dict(theirs.state_dict(), strict=True)
    assert_same_state(fresh, theirs)


def copies(module: nn.Module) -> dict[str, nn.Module]:
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return {
        "deepcopy": copy.deepcopy(module),
        "pickle": pickle.loads(pickle.dumps(module)),
        "torch.save": torch.load(buffer, weights_only=False),
    }


OWN_FORMS: list[Case] = [
    (D2, T2, (4, 6, 3), {"padding": (0, 1, 2, 3)}, IMAGE),
    (D2, T2, (4, 6, 3), {"padding": "same_upper", "stride": 2}, IMAGE),
    (D1, T1, (4, 6, 3), {"padding": (4, 0), "dilation": 2}, LINE),
    (DT, TT, (4, 6, 3), {"padding": "same_upper", "stride": 2}, IMAGE),
    (dc.Conv1x1, T2, (4, 6), {}, IMAGE),
]


@pytest.mark.parametrize("case", CASES + OWN_FORMS, ids=case_id)
def test_copies(case: Case) -> None:
    module = case[0](*case[2], **case[3])
    x = torch.randn(case[4])
    expected = module(x)
    for how, other in copies(module).items():
        assert type(other) is case[0], how
        assert repr(other) == repr(module), how
        assert torch.equal(other(x), expected), how
        with torch.no_grad():
            other.weight.add_(1)  # a copy shares nothing
    assert torch.equal(module(x), expected)


class Upsampled(nn.Module):
    """A transposed layer that is told its output's size, by another tensor or by numbers."""

    def __init__(self, layer: nn.Module, size: list[int] | None = None) -> None:
        super().__init__()
        self.layer, self.size = layer, size

    def forward(self, x: Tensor, like: Tensor) -> Any:
        return self.layer(x, self.size or like.shape[-2:])


@pytest.mark.parametrize(
    ("module", "sizes"),
    [
        (Upsampled(DT(4, 4, 3, 2, 1)), [(2, 4, 9, 8), (2, 4, 17, 16)]),
        (Upsampled(DT(4, 4, 3, 2, 1), [18, 15]), [(2, 4, 9, 8), (1,)]),
        (Upsampled(DT(4, 4, 3, 2, "same_upper")), [(2, 4, 9, 8), (2, 4, 18, 16)]),
        (D2(4, 6, 3, 2, "same_upper", padding_mode="reflect"), [IMAGE]),
        (D1(4, 6, 3, 2, "same_lower", padding_mode="circular"), [LINE]),
    ],
    ids=["by a tensor", "by numbers", "same_upper", "reflect", "circular"],
)
def test_fx_traces_what_depends_on_sizes(module: nn.Module, sizes: list[tuple[int, ...]]) -> None:
    """torch.nn's layers are leaves to torch.fx; it looks into ours, where sizes have no length."""
    graph = torch.fx.symbolic_trace(module)
    inputs = [torch.randn(size) for size in sizes]
    assert torch.equal(graph(*inputs), module(*inputs))


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    "padding", [(0, 1, 2, 3), (2, 0, 0, 0), "same_upper", "same_lower"], ids=str
)
@pytest.mark.parametrize("stride", [1, 2])
def test_own_padding_forms(stride: int, padding: Any, padding_mode: str) -> None:
    """Four pads and the ONNX names, in every padding mode, are F.pad followed by torch's module."""
    torch.manual_seed(0)
    module = D2(
        4, 6, (3, 2), stride, padding, (2, 3), padding_mode=padding_mode, dtype=torch.float64
    )
    x = torch.randn(IMAGE, dtype=torch.float64)
    if isinstance(padding, str):
        vertical = same_pads(padding, 9, 3, stride, 2)
        horizontal = same_pads(padding, 8, 2, stride, 3)
        pads = (*horizontal, *vertical)
    else:
        pads = (*padding[2:], *padding[:2])
    mode = "constant" if padding_mode == "zeros" else padding_mode
    padded = F.pad(x, pads, mode=mode)
    assert_agrees(module(x), F.conv2d(padded, module.weight, module.bias, stride, 0, (2, 3)))
    assert f"padding={padding}" in repr(module)


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [(3, 1), (4, 0), "same_upper", "same_lower"], ids=str)
def test_own_padding_forms_1d(padding: Any, padding_mode: str) -> None:
    module = D1(4, 6, 3, 2, padding, 2, padding_mode=padding_mode, dtype=torch.float64)
    x = torch.randn(LINE, dtype=torch.float64)
    pads = same_pads(padding, 12, 3, 2, 2) if isinstance(padding, str) else padding
    mode = "constant" if padding_mode == "zeros" else padding_mode
    padded = F.pad(x, pads, mode=mode)
    assert_agrees(module(x), F.conv1d(padded, module.weight, module.bias, 2, 0, 2))


@pytest.mark.parametrize("bias", [True, False])
def test_conv1x1(bias: bool) -> None:
    torch.manual_seed(1)
    ours = dc.Conv1x1(5, 7, bias=bias)
    torch.manual_seed(1)
    theirs = nn.Conv2d(5, 7, 1, bias=bias)
    assert_same_state(ours, theirs)
    assert ours.weight.shape == (7, 5, 1, 1)
    x = torch.randn(2, 5, 4, 3)
    assert_agrees(ours(x), theirs(x))
    assert_agrees(ours(x[0]), theirs(x[0]))
    assert type(ours).__name__ in repr(ours)


def test_output_size_of_the_transposed() -> None:
    ours, theirs = build_both((DT, TT, (4, 6, 3), {"stride": 3, "padding": 1}, IMAGE))
    x = torch.randn(IMAGE)
    for size in ((25, 22), (27, 24), (2, 6, 26, 23), torch.Size((26, 23))):
        assert_agrees(ours(x, output_size=size), theirs(x, output_size=size))
    ours, theirs = build_both((DT1, TT1, (4, 6, 3), {"stride": 3, "padding": 1}, LINE))
    x = torch.randn(LINE)
    for size in ((34,), (2, 6, 36), torch.Size((35,))):
        assert_agrees(ours(x, output_size=size), theirs(x, output_size=size))


def test_factory_arguments() -> None:
    meta = D2(4, 6, 3, device="meta", dtype=torch.bfloat16)
    assert meta.weight.is_meta
    assert meta.weight.dtype == torch.bfloat16
    assert meta(torch.empty(2, 4, 8, 8, device="meta", dtype=torch.bfloat16)).shape == (2, 6, 6, 6)
    module = D2(4, 6, 3).to(torch.float64).to(memory_format=torch.channels_last)
    assert module(torch.randn(IMAGE).double()).is_contiguous(memory_format=torch.channels_last)


def test_torch_tools_accept_them() -> None:
    """Weight norm, pruning, batch-norm folding, hooks: whatever works on nn.Conv2d."""
    from torch.nn.utils import fuse_conv_bn_eval, parametrizations, prune

    x = torch.randn(IMAGE)
    module = D2(4, 6, 3)
    expected = module(x)
    assert_agrees(parametrizations.weight_norm(copy.deepcopy(module))(x), expected)
    pruned = prune.l1_unstructured(copy.deepcopy(module), "weight", amount=0.5)
    assert_agrees(pruned(x), F.conv2d(x, pruned.weight, module.bias))
    norm = nn.BatchNorm2d(6).eval()
    norm.running_mean = torch.randn(6)
    fused = fuse_conv_bn_eval(copy.deepcopy(module).eval(), norm)
    assert_agrees(fused(x), norm(expected))
    seen: list[str] = []
    module.register_forward_pre_hook(lambda *_: seen.append("before"))
    module.register_forward_hook(lambda *_: seen.append("after"))
    module.register_full_backward_hook(lambda *_: seen.append("backward"))
    module(x.requires_grad_()).sum().backward()
    assert seen == ["before", "after", "backward"]


@pytest.mark.parametrize("case", [c for c in CASES + OWN_FORMS if c[4][0]], ids=case_id)
def test_compiles_without_a_graph_break(case: Case) -> None:
    """torch.compile sees one graph, forward and backward, and it computes the same."""
    torch._dynamo.reset()
    module = case[0](*case[2], **case[3])
    x = torch.randn(case[4])
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    results = []
    for f in (module, compiled):
        leaf = x.clone().requires_grad_()
        y = f(leaf)
        results.append((y, *torch.autograd.grad(y.sin().sum(), (leaf, *module.parameters()))))
    for actual, expected in zip(*results, strict=True):
        assert_agrees(actual, expected)


def test_compiles_with_dynamic_sizes() -> None:
    torch._dynamo.reset()
    module = D2(4, 6, 3, padding="same", dilation=2)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for h, w in ((9, 8), (12, 17), (6, 31)):
            x = torch.randn(2, 4, h, w)
            assert_agrees(compiled(x), module(x))


def test_exports_with_dynamic_sizes() -> None:
    free = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    for module in (D2(4, 6, 3, padding="same"), D2(4, 6, 3, 2, "same_upper"), DT(4, 6, 3, 2, 1)):
        program = torch.export.export(
            module, (torch.randn(IMAGE),), dynamic_shapes={"input": free}, strict=False
        )
        x = torch.randn(2, 4, 13, 21)
        assert_agrees(program.module()(x), module(x))
