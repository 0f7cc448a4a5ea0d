"""torch.onnx.export without further arguments: its nodes, and what ONNX Runtime computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dilconv_ext as dc

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

# Of onnxscript, which uses what Python, NumPy and ONNX have come to deprecate.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit"),
]

IMAGE = (2, 4, 17, 20)
OPEN_SIZES = ({0: torch.export.Dim.DYNAMIC, **dict.fromkeys((2, 3), torch.export.Dim.AUTO)},)


def export(model: Any, x: Tensor, **options: Any) -> Any:
    """The ONNX model of ``model``, checked by ONNX's own checker."""
    model.eval()
    program = torch.onnx.export(model, (x,), dynamo=True, verbose=False, **options)
    proto = program.model_proto
    onnx.checker.check_model(proto, full_check=True)
    return proto


def run(proto: Any, x: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    (result,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return torch.from_numpy(result)


def nodes(proto: Any, kind: str) -> list[dict[str, Any]]:
    """The attributes of the nodes of one kind, in order."""
    return [
        {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        for node in proto.graph.node
        if node.op_type == kind
    ]


def kinds(proto: Any) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=(2, 1), dilation=(2, 1)),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, 2, 1, groups=3),
        nn.ConvTranspose2d(6, 3, 3, 2, 1, output_padding=1, dilation=2, bias=False),
        nn.Flatten(2),
        nn.Conv1d(3, 2, 3, padding="same", dilation=4),
    ).eval()


def test_a_converted_network_is_plain_onnx() -> None:
    net = dc.convert(network())
    x = torch.randn(IMAGE)
    proto = export(net, x)
    assert not [node for node in proto.graph.node if node.domain]
    assert kinds(proto) == ["Conv", "Relu", "Conv", "ConvTranspose", "Reshape", "Conv"]
    first, second, last = nodes(proto, "Conv")
    assert (first["pads"], first["dilations"]) == ([2, 1, 2, 1], [2, 1])
    assert (second["strides"], second["group"]) == ([2, 2], 3)
    assert (last["pads"], last["dilations"], last["kernel_shape"]) == ([4, 4], [4], [3])
    (transposed,) = nodes(proto, "ConvTranspose")
    assert transposed["strides"] == [2, 2]
    assert transposed["dilations"] == [2, 2]
    assert "auto_pad" not in first
    torch.testing.assert_close(run(proto, x), net(x).detach())


def test_open_sizes() -> None:
    net = dc.convert(network()[:4])
    proto = export(net, torch.randn(IMAGE), dynamic_shapes=OPEN_SIZES)
    assert kinds(proto) == ["Conv", "Relu", "Conv", "ConvTranspose"]
    for size in (IMAGE, (5, 4, 24, 31)):
        x = torch.randn(size)
        torch.testing.assert_close(run(proto, x), net(x).detach())


def test_an_exported_program() -> None:
    """As ONNX users may have it: captured earlier, by torch.export alone."""
    net = dc.convert(network())
    x = torch.randn(IMAGE)
    program = torch.export.export(net, (x,))
    proto = torch.onnx.export(program, dynamo=True, verbose=False).model_proto
    assert kinds(proto).count("Conv") == 3
    torch.testing.assert_close(run(proto, x), net(x).detach())


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...], dict[str, Any]]] = {
    "even same": (
        dc.DilatedConv2d(4, 6, 4, padding="same", dilation=3),
        IMAGE,
        {"pads": [4, 4, 5, 5]},
    ),
    "four pads": (
        dc.DilatedConv2d(4, 6, 3, padding=(0, 1, 2, 3)),
        IMAGE,
        {"pads": [0, 2, 1, 3]},
    ),
    "same_upper": (dc.DilatedConv2d(4, 6, 3, 2, "same_upper"), IMAGE, {"pads": [1, 0, 1, 1]}),
    "causal": (dc.DilatedConv1d(4, 6, 3, padding=(4, 0), dilation=2), (2, 4, 9), {"pads": [4, 0]}),
    "1x1": (dc.Conv1x1(4, 6, bias=False), IMAGE, {"kernel_shape": [1, 1]}),
    "unbatched": (dc.DilatedConv2d(4, 6, 3, padding=1), IMAGE[1:], {"pads": [1, 1, 1, 1]}),
    "keras transposed": (
        dc.DilatedConvTranspose2d(4, 6, 3, 2, "same_upper"),
        IMAGE,
        {"pads": [0, 0, 1, 1], "output_padding": [0, 0]},
    ),
    "transposed, short kernel": (
        dc.DilatedConvTranspose2d(4, 6, 2, 3, "same_upper"),
        IMAGE,
        {"pads": [0, 0, 0, 0], "output_padding": [1, 1]},
    ),
    "transposed, one axis": (
        dc.DilatedConvTranspose1d(4, 6, 8, 4, 2),
        (2, 4, 9),
        {"pads": [2, 2], "strides": [4], "output_padding": [0]},
    ),
    "transposed, grouped": (
        dc.DilatedConvTranspose2d(4, 6, 3, 2, (0, 2, 1, 0), groups=2, dilation=3),
        IMAGE,
        {"pads": [0, 1, 2, 0], "group": 2},
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_form_of_padding(name: str) -> None:
    """Also those that torch.nn lacks; a node states its pads in numbers."""
    layer, size, stated = LAYERS[name]
    x = torch.randn(size)
    proto = export(layer, x)
    (found,) = nodes(proto, "Conv") + nodes(proto, "ConvTranspose")
    assert {key: found[key] for key in stated} == stated
    torch.testing.assert_close(run(proto, x), layer(x).detach())


def test_padding_that_depends_on_an_open_size() -> None:
    """'same_upper' with a stride: ONNX's auto_pad would ignore dilation, so a Pad node computes."""
    layer = dc.DilatedConv2d(4, 6, 3, 2, "same_upper", dilation=2)
    proto = export(layer, torch.randn(IMAGE), dynamic_shapes=OPEN_SIZES)
    assert {"Pad", "Conv"} <= set(kinds(proto))
    for size in (IMAGE, (3, 4, 20, 23)):
        x = torch.randn(size)
        torch.testing.assert_close(run(proto, x), layer(x).detach())


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", ["same_upper", "same_lower"])
@pytest.mark.parametrize("axes", [1, 2])
def test_padded_copies_of_open_sizes(axes: int, padding: str, mode: str) -> None:
    """Every remainder of the division by the stride; ONNX rounds quotients to zero, Python down."""
    layer: Any = dc.DilatedConv1d(4, 6, 3, 2, padding, padding_mode=mode)
    if axes == 2:
        layer = dc.DilatedConv2d(4, 6, 3, (2, 3), padding, 2, padding_mode=mode)
    lengths = {2 + axis: torch.export.Dim.DYNAMIC for axis in range(axes)}
    shapes = ({0: torch.export.Dim.DYNAMIC, **lengths},)
    proto = export(layer, torch.randn(2, 4, *(14, 15)[:axes]), dynamic_shapes=shapes)
    for length in range(9, 41):
        x = torch.randn(1, 4, *(length, 50 - length)[:axes])
        torch.testing.assert_close(run(proto, x), layer(x).detach())


def test_nothing_but_the_exporter_decomposes() -> None:
    """And torch's table has no rule: Inductor would raise an error for it where CI is set."""
    program = torch.export.export(dc.convert(network()), (torch.randn(IMAGE),))
    targets = [str(n.target) for n in program.run_decompositions().graph.nodes]
    assert targets.count("dilconv.conv2d.default") == 3
    assert targets.count("dilconv.conv2d_grad_input.default") == 1
    assert not torch._decomp.get_decompositions([dc.ops.conv2d, dc.ops.conv2d_grad_input])
