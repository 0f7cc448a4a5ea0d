"""torch.compile, torch.export, AOTInductor: whole graphs, the same numbers, layouts, recompiles.

The cases of test_modules.py go through aot_eager, which compiles nothing; here Inductor does.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch._inductor.utils import run_and_get_code

import dilconv_ext as dc
from accuracy import assert_agrees, relative_error
from calls import OPS, make_call
from problems import PROBLEMS, Problem, channels_last, make_tensors

IMAGE = (2, 4, 16, 18)
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(autouse=True)
def _forget_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def network() -> nn.Module:
    """Every layer and kind of padding that convert knows, in torch.nn's classes."""
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=2, dilation=2),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1, groups=4),
        nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1),
        nn.Conv2d(6, 6, 3, padding="same", dilation=(1, 3), padding_mode="circular"),
        nn.Flatten(2),
        nn.Conv1d(6, 5, 3, dilation=4, padding="same"),
        nn.Conv1d(5, 2, 1),
    )


def train_step(f: Any, parameters: list[Tensor], x: Tensor, autocast: bool) -> list[Tensor]:
    """Output and gradients of one step."""
    leaf = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = f(leaf)
    return [y, *torch.autograd.grad(y.float().square().sum(), [leaf, *parameters])]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to_format", "autocast", "dynamic"),
    [
        pytest.param(torch.Tensor.contiguous, False, False, id="static"),
        pytest.param(channels_last, True, True, id="channels_last-autocast-dynamic"),
    ],
)
def test_inductor_trains_the_same(to_format: Any, autocast: bool, dynamic: bool) -> None:
    """Output and gradients: values, dtypes, and the strides that eager mode gives."""
    net = dc.convert(network())
    parameters = list(net.parameters())
    compiled = torch.compile(net, fullgraph=True, dynamic=dynamic)
    for size in (IMAGE, (3, 4, 20, 14)):
        x = to_format(torch.randn(size))
        steps = [train_step(f, parameters, x, autocast) for f in (compiled, net)]
        for actual, expected in zip(*steps, strict=True):
            assert actual.dtype == expected.dtype
            assert actual.stride() == expected.stride()
            assert relative_error(actual, expected) < (0.02 if autocast else 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False], ids=["own padding", "next layer's"])
def test_inductor_indexes_with_sizes_of_strided_padding(own: bool) -> None:
    """A mirrored index is an expression of the size, from which 'same_upper' takes remainders."""
    layers: list[nn.Module] = [dc.DilatedConv2d(3, 8, 3, 2, "same_upper", padding_mode="reflect")]
    if not own:
        layers = [
            dc.DilatedConv2d(3, 8, 3, 2, "same_upper", dilation=2),
            dc.DilatedConv2d(8, 4, 3, padding=1, padding_mode="reflect"),
        ]
    net = nn.Sequential(*layers)
    compiled = torch.compile(net, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for size in ((2, 3, 16, 16), (5, 3, 21, 26)):
            x = torch.randn(size)
            assert_agrees(compiled(x), net(x))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_inductor_copies_nothing(memory_format: torch.memory_format) -> None:
    """Between our ops, forward and backward, there is no kernel of Inductor's: no copies."""
    layers = [
        dc.DilatedConv2d(4, 8, 3, padding=2, dilation=2, bias=False),
        dc.DilatedConvTranspose2d(8, 6, 3, 2, bias=False),
        dc.DilatedConv2d(6, 2, 1, bias=False),
    ]
    compiled = torch.compile(nn.Sequential(*layers).to(memory_format=memory_format))
    x = torch.randn(IMAGE).contiguous(memory_format=memory_format).requires_grad_()

    def step() -> None:
        y = compiled(x)
        y.backward(torch.ones_like(y))

    _, programs = run_and_get_code(step)
    assert len(programs) == 2
    for program in programs:
        assert "torch.ops.dilconv" in program
        assert "cpp_fused" not in program
        assert "empty_strided_cpu(" not in program


class Causal(nn.Module):
    """Two layers as in a TCN: the future is cut off between them, and its gradient is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first = dc.DilatedConv2d(4, 8, 3, padding=(2, 2, 4, 4), dilation=2, bias=False)
        self.second = dc.DilatedConv2d(8, 6, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)[..., : x.shape[-1]])


@pytest.mark.parametrize("to_format", [torch.Tensor.contiguous, channels_last])
def test_inductor_writes_a_gradient_once(to_format: Any) -> None:
    """A gradient that Inductor computes is one buffer, which both backward ops read as it lies."""
    net = Causal()
    compiled = torch.compile(net)
    x = to_format(torch.randn(IMAGE))
    leaves = [x.requires_grad_(), *net.parameters()]

    def step(f: Any) -> tuple[Tensor, ...]:
        y = f(x)
        return torch.autograd.grad(y, leaves, torch.ones_like(y))

    actual, programs = run_and_get_code(step, compiled)
    for ours, eager in zip(actual, step(net), strict=True):
        assert relative_error(ours, eager) < 1e-5
        assert ours.stride() == eager.stride()
    padded = (IMAGE[0], 8, IMAGE[2], IMAGE[3] + 4)
    assert programs[-1].count(f"empty_strided_cpu({padded}") == 1


def test_channels_last_stays() -> None:
    """No layer turns an image around, compiled or not: as F.conv2d."""
    net = dc.convert(network()[:5])
    x = channels_last(torch.randn(IMAGE))
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    for f in (net, compiled):
        assert f(x).is_contiguous(memory_format=torch.channels_last)


def test_recompiles_no_more_than_torch() -> None:
    """Sizes that change one after another, then no_grad, eval and another memory format."""
    counts = []
    for net in (network()[:5], dc.convert(network()[:5])):
        torch._dynamo.reset()
        counter = CompileCounter()
        compiled = torch.compile(net, backend=counter, fullgraph=True)
        sizes = (IMAGE, IMAGE, (3, 4, 16, 18), (3, 4, 20, 18), (3, 4, 20, 24), (5, 4, 22, 26))
        seen = []
        for size in sizes:
            compiled(torch.randn(size))
            seen.append(counter.frame_count)
        with torch.no_grad():
            compiled(torch.randn(sizes[-1]))
        seen.append(counter.frame_count)
        net.eval()
        compiled(channels_last(torch.randn(sizes[-1])))
        counts.append([*seen, counter.frame_count])
    assert counts[0] == counts[1]


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec")  # torch.export.save's own
@pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # torch.export.load's
@pytest.mark.parametrize("strict", [False, True], ids=["nonstrict", "strict"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_export(strict: bool, dynamic: bool, tmp_path: Path) -> None:
    """The program computes the same, also once saved and loaded, and holds our ops whole."""
    if strict and dynamic and torch.__version__ < "2.10":
        pytest.skip(
            "torch 2.9 cannot run such a program, of nn.Conv2d either: no 'L' in its guards"
        )
    net = dc.convert(network()).eval()
    x = torch.randn(IMAGE)
    dim = torch.export.Dim
    free = ({0: dim.DYNAMIC, 2: dim.DYNAMIC, 3: dim.DYNAMIC},) if dynamic else None
    program = torch.export.export(net, (x,), dynamic_shapes=free, strict=strict)
    torch.export.save(program, tmp_path / "net.pt2")
    loaded = torch.export.load(tmp_path / "net.pt2")
    for size in (IMAGE, (3, 4, 20, 14)) if dynamic else (IMAGE,):
        x = torch.randn(size)
        assert_agrees(program.module()(x), net(x))
        assert_agrees(loaded.module()(x), net(x))
    for graph in (program.graph, program.run_decompositions().graph):
        ours = [str(n.target) for n in graph.nodes if str(n.target).startswith("dilconv")]
        assert sorted(ours) == ["dilconv.conv2d.default"] * 5 + [
            "dilconv.conv2d_grad_input.default"
        ]


def test_export_of_a_training_step() -> None:
    """A graph with forward and backward in it: all three ops, with fake kernels alone."""
    net = dc.convert(network())
    names = [name for name, _ in net.named_parameters()]

    def loss_and_gradients(parameters: tuple[Tensor, ...], x: Tensor) -> Any:
        def loss(values: tuple[Tensor, ...]) -> Tensor:
            named = dict(zip(names, values, strict=True))
            return torch.func.functional_call(net, named, (x,)).square().mean()

        return torch.func.grad_and_value(loss)(parameters)

    parameters = tuple(p.detach() for p in net.parameters())
    x = torch.randn(IMAGE)
    graph = torch.fx.experimental.proxy_tensor.make_fx(loss_and_gradients, tracing_mode="symbolic")(
        parameters, x
    )
    targets = {str(node.target) for node in graph.graph.nodes}
    assert {f"dilconv.{op}.default" for op in OPS} <= targets
    other = torch.randn(3, 4, 12, 22)
    actual, expected = graph(parameters, other), loss_and_gradients(parameters, other)
    leaves = [torch.utils._pytree.tree_leaves(result) for result in (actual, expected)]
    for ours, eager in zip(*leaves, strict=True):
        assert relative_error(ours, eager) < 1e-5


def symbolic(tensor: Tensor, mode: Any) -> Tensor:
    """A fake tensor all of whose sizes and strides are symbols, with the real ones as hints."""
    from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

    context = StatelessSymbolicContext([DimDynamic.DYNAMIC] * tensor.dim())
    return mode.from_tensor(tensor, symbolic_context=context)


FAST = ("dilated_per_axis", "pad_negative_strided", "1d", "unbatched")


@pytest.mark.parametrize(
    "p",
    [
        pytest.param(p, id=p.name, marks=() if p.name in FAST else pytest.mark.slow)
        for p in PROBLEMS
        if not p.slow
    ],
)
def test_symbolic_sizes(p: Problem) -> None:
    """The fake kernels predict size, strides and dtype of the real ones, from symbols alone."""
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    for to_format in (torch.Tensor.contiguous, channels_last):
        t = make_tensors(p, torch.float32).map(to_format)
        for op in OPS:
            call = make_call(op, p, t, bias=True)
            real = call.run()
            mode = FakeTensorMode(shape_env=ShapeEnv())
            fake = call.map(lambda v, mode=mode: symbolic(v, mode)).run()
            assert [int(n) for n in fake.shape] == list(real.shape), op
            assert [int(n) for n in fake.stride()] == list(real.stride()), op
            assert fake.dtype == real.dtype, op


@pytest.mark.slow
def test_deployment_example(tmp_path: Path) -> None:
    """An AOTInductor package is built, and run from Python and from a C++ program without Python.

    The script compares both with the eager model, at sizes other than the exported one.
    """
    script = EXAMPLES / "deployment" / "deploy.py"
    done = subprocess.run(
        [sys.executable, str(script), "--output", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("agrees") == 2
