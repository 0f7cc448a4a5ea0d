"""What only CUDA tensors have: devices that differ, streams, graphs, TF32. Run by --device cuda."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import dilconv_ext as dc
from accuracy import assert_accurate, assert_agrees, relative_error, solve
from calls import KERNELS, OPS, Call, make_call
from dilconv_ext import _C
from problems import make_tensors, problem

P = problem("dilated_per_axis")


def step(x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    """A forward and its three gradients."""
    leaves = [t.detach().requires_grad_() for t in (x, w, b)]
    y = dc.functional.conv2d(*leaves, padding=2, dilation=2)
    return (y.detach(), *torch.autograd.grad(y.square().sum(), leaves))


def layer(*, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    shapes = (2, 16, 24, 25), (24, 16, 3, 3), (24,)
    return tuple(torch.randn(shape).to(dtype) for shape in shapes)


@pytest.mark.parametrize("moved", range(3))
@pytest.mark.parametrize("op", OPS)
def test_tensors_on_different_devices(op: str, moved: int) -> None:
    call = make_call(op, P, make_tensors(P, torch.float32), bias=True)
    tensors = [call.a, call.b, call.bias]
    if tensors[moved] is None:
        return
    tensors[moved] = tensors[moved].cpu()
    mixed = Call(op, *tensors[:2], call.size, tensors[2], call.params)
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same") as error:
        mixed.run()
    assert "cpu" in str(error.value)
    assert "cuda:0" in str(error.value)


def test_without_a_default_device() -> None:
    """As users call: without the mode by which torch keeps a default device."""
    x, w, b = layer()
    expected = dc.functional.conv2d(x, w, b, dilation=2)
    torch.set_default_device(None)
    try:
        assert torch.equal(dc.functional.conv2d(x, w, b, dilation=2), expected)
        with pytest.raises(RuntimeError, match="same device"):
            dc.functional.conv2d(x, w.cpu(), b)
    finally:
        torch.set_default_device("cuda")


def test_runs_on_the_current_stream() -> None:
    """On a side stream, behind work that takes a while there, without waiting for any other."""
    x, w, b = layer()
    expected = step(x, w, b)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = torch.zeros_like(x)
        for _ in range(50):
            late = late + x / 50
        late.copy_(x)
        actual = step(late, w, b)
    torch.cuda.current_stream().wait_stream(stream)
    for a, e in zip(actual, expected, strict=True):
        assert torch.equal(a, e)


def test_a_cuda_graph_captures_a_step() -> None:
    """A call neither waits nor allocates outside torch's pool; a replay computes on new data."""
    x, w, b = layer()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step(x, w, b)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(x, w, b)
    for _ in range(2):
        x.copy_(torch.randn_like(x))
        graph.replay()
        for actual, expected in zip(captured, step(x, w, b), strict=True):
            assert torch.equal(actual, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_runs_on_the_tensors_gpu() -> None:
    tensors = layer()
    expected = step(*tensors)
    for actual, e in zip(step(*(t.to("cuda:1") for t in tensors)), expected, strict=True):
        assert actual.device == torch.device("cuda:1")
        assert_agrees(actual.cpu(), e.cpu())
    assert torch.cuda.current_device() == 0


def test_deterministic_algorithms_without_a_warning() -> None:
    tensors = layer()
    expected = step(*tensors)
    torch.use_deterministic_algorithms(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            actual = step(*tensors)
    finally:
        torch.use_deterministic_algorithms(False)
    for a, e in zip(actual, expected, strict=True):
        assert torch.equal(a, e)


def allow_tf32(call: Call) -> bool:
    """Whether the problem of ``call``, as the kernels get it, allows TF32."""
    fields = torch.ops.dilconv._problem(call.op, call.a, call.b, False, call.size or (), *P.params)
    return bool(fields[3])


@pytest.mark.parametrize("op", OPS)
def test_tf32_as_torch_permits(op: str) -> None:
    """The setting is read in each call; with it, results are as good as 10-bit mantissas."""
    call = make_call(op, P, make_tensors(P, torch.float32))
    exact, _ = solve(call)
    conv = torch.backends.cudnn.conv
    assert conv.fp32_precision == "ieee"
    assert not allow_tf32(call)
    assert_accurate(call, call.run())
    try:
        conv.fp32_precision = "tf32"
        assert allow_tf32(call)
        assert not allow_tf32(call.map(Tensor.double))
        assert relative_error(call.run(), exact) < 2e-3
    finally:
        conv.fp32_precision = "ieee"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast(dtype: torch.dtype) -> None:
    x, w, b = layer()
    with torch.autocast("cuda", dtype):
        y = dc.functional.conv2d(x, w, b)
    assert y.dtype == dtype
    assert torch.equal(y, dc.functional.conv2d(x.to(dtype), w.to(dtype), b.to(dtype)))


def test_the_kernel_table() -> None:
    assert KERNELS[-1] == "reference"
    assert len(set(KERNELS)) == len(KERNELS)


def test_explain_names_what_runs(capfd: pytest.CaptureFixture[str]) -> None:
    """For the GPU that is there, and capped to an older one."""
    x, w, b = layer()
    for isa in ("", _C.isas("cuda")[-1]):
        with dc.options(isa=isa, verbose=True):
            chosen = dc.explain(x, w, b, dilation=2).forward
            dc.functional.conv2d(x, w, b, dilation=2)
        assert f"dilconv: {chosen.kernel}: conv2d" in capfd.readouterr().err
    assert chosen == dc.explain(x, w, b, dilation=2, isa=isa).forward


def test_a_kernel_of_another_device_is_refused() -> None:
    x, w, b = layer()
    with dc.options(kernel="winograd"), pytest.raises(RuntimeError, match=r"cuda.*winograd"):
        dc.functional.conv2d(x, w, b)


def test_convert() -> None:
    net = dc.convert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)))
    assert [type(m) for m in net[::2]] == [dc.DilatedConv2d] * 2
    assert net(torch.randn(1, 3, 8, 8)).is_cuda


@pytest.mark.slow
def test_more_elements_than_32_bits_count() -> None:
    """The last rows of an image of more than 2^31 pixels, against the same rows alone."""
    side = 46342
    if torch.cuda.mem_get_info()[0] < 6 * 2 * side**2:
        pytest.skip("needs 26 GB of GPU memory")
    x = torch.randn(1, 1, side + 2, side, dtype=torch.float16)
    assert x.numel() > 2**31
    w = torch.randn(1, 1, 3, 3, dtype=torch.float16)
    y = dc.functional.conv2d(x, w)
    assert_agrees(y[:, :, -8:], dc.functional.conv2d(x[:, :, -10:].clone(), w))
    dx = torch.ops.dilconv.conv2d_grad_input(y, w, x.shape[2:])
    rows = torch.ops.dilconv.conv2d_grad_input(y[:, :, -10:].clone(), w, (12, side))
    assert_agrees(dx[:, :, -8:], rows[:, :, -8:])
