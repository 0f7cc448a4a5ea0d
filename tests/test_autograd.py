"""Derivatives: any order, forward and backward, batched, and no more work than was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

import dilconv_ext as dc
import torch_peer
from accuracy import assert_agrees
from calls import OPS, Call, make_call
from problems import Problem, make_tensors

# Small enough for numerical differentiation, and between them every parameter and both ranks.
TINY = [
    Problem("plain", 2, 2, 2, (4, 4), (3, 3), padding=(1, 1, 1, 1)),
    Problem("strided", 1, 2, 3, (5, 4), (2, 3), (2, 1), (2, 0, 1, 3), (1, 2)),
    Problem("dilated", 1, 2, 2, (5, 5), (3, 2), padding=(2, 2, 1, 0), dilation=(2, 3)),
    Problem("negative_pad", 1, 1, 2, (5, 6), (2, 2), padding=(-1, 0, 1, -1)),
    Problem("groups", 2, 4, 2, (4, 3), (2, 2), padding=(1, 0, 0, 1), groups=2),
    Problem("depthwise", 1, 2, 4, (4, 4), (3, 3), (2, 2), (2, 2, 2, 2), (2, 2), groups=2),
    Problem("unbatched", None, 2, 2, (4, 3), (2, 2)),
    Problem("1d", 2, 2, 2, (6,), (3,), (1, 2), (0, 0, 2, 1), (1, 2)),
    Problem("1d_unbatched", None, 2, 2, (5,), (2,)),
]
GRADCHECK_DTYPES = (torch.float64, torch.complex128)


def differentiable(call: Call) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """``call`` as a function of its tensors alone, and those tensors, requiring gradients."""
    tensors = [call.a, call.b, *([] if call.bias is None else [call.bias])]

    def f(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
        return Call(call.op, a, b, call.size, bias, call.params).run()

    return f, tuple(t.clone().requires_grad_() for t in tensors)


@pytest.mark.parametrize("dtype", GRADCHECK_DTYPES, ids=str)
@pytest.mark.parametrize("p", TINY, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_gradcheck(op: str, p: Problem, dtype: torch.dtype) -> None:
    f, tensors = differentiable(make_call(op, p, make_tensors(p, dtype), bias=True))
    gradcheck(
        f,
        tensors,
        check_forward_ad=True,
        check_backward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )


@pytest.mark.parametrize(
    "dtype", [torch.float64, pytest.param(torch.complex128, marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize("p", TINY, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_gradgradcheck(op: str, p: Problem, dtype: torch.dtype) -> None:
    f, tensors = differentiable(make_call(op, p, make_tensors(p, dtype), bias=True))
    gradgradcheck(
        f, tensors, check_fwd_over_rev=True, check_rev_over_rev=True, check_batched_grad=True
    )


@pytest.mark.parametrize("op", OPS)
def test_third_order(op: str) -> None:
    """The gradient of a gradient's norm, checked to second order."""
    p = TINY[2]
    f, tensors = differentiable(make_call(op, p, make_tensors(p, torch.float64), bias=True))

    def gradient_norm(*args: Tensor) -> Tensor:
        gradients = torch.autograd.grad((f(*args) ** 2).sum(), args, create_graph=True)
        return sum((g**2).sum() for g in gradients)

    gradgradcheck(gradient_norm, tensors)


@pytest.mark.parametrize("p", TINY, ids=str)
def test_third_order_as_torch(p: Problem) -> None:
    t = make_tensors(p, torch.float64)

    def third(conv2d: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        leaves = [v.clone().requires_grad_() for v in (t.x, t.w, t.bias)]
        loss = (conv2d(*leaves, *p.params) ** 3).sum()
        for _ in range(3):
            gradients = torch.autograd.grad(loss, leaves, create_graph=True)
            loss = sum((g**2).sum() for g in gradients)
        return gradients

    for ours, theirs in zip(third(torch.ops.dilconv.conv2d), third(torch_peer.conv2d), strict=True):
        assert_agrees(ours, theirs)


class Recorder(TorchDispatchMode):
    """The names of the dilconv ops that run inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[str] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func.namespace == "dilconv":
            self.ops.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


# For each op: what computes the gradient of its first and of its second argument.
CLOSURE = {
    "conv2d": ("conv2d_grad_input", "conv2d_grad_weight"),
    "conv2d_grad_input": ("conv2d", "conv2d_grad_weight"),
    "conv2d_grad_weight": ("conv2d", "conv2d_grad_input"),
}


# Every choice of arguments that require gradients; conv2d_grad_weight has no third (the bias).
NEEDED = [
    (op, needed)
    for op in OPS
    for needed in ((), (0,), (1,), (0, 1), (2,), (0, 2), (0, 1, 2))
    if 2 not in needed or op != "conv2d_grad_weight"
]


@pytest.mark.parametrize(("op", "needed"), [case for case in NEEDED if case[1]])
def test_backward_computes_only_what_is_needed(op: str, needed: tuple[int, ...]) -> None:
    p = TINY[0]
    call = make_call(op, p, make_tensors(p, torch.float64), bias=True)
    tensors = [call.a, call.b, *([] if call.bias is None else [call.bias])]
    for i in needed:
        tensors[i].requires_grad_()
    with Recorder() as forward:
        y = Call(op, *tensors[:2], call.size, call.bias, call.params).run()
    assert forward.ops == [op]
    with Recorder() as backward:
        y.backward(torch.ones_like(y))
    assert sorted(backward.ops) == sorted(CLOSURE[op][i] for i in needed if i < 2)
    for i, t in enumerate(tensors):
        assert (t.grad is not None) == (i in needed)


@pytest.mark.parametrize("op", OPS)
def test_backward_of_one_of_two_inputs(op: str) -> None:
    """autograd.grad(y, a) where b requires a gradient too: b's is not computed."""
    p = TINY[0]
    f, tensors = differentiable(make_call(op, p, make_tensors(p, torch.float64)))
    for i in range(2):
        y = f(*tensors)
        with Recorder() as backward:
            torch.autograd.grad(y.sum(), tensors[i])
        assert backward.ops == [CLOSURE[op][i]]


@pytest.mark.parametrize(("op", "needed"), NEEDED)
def test_only_what_is_needed_is_saved(op: str, needed: tuple[int, ...]) -> None:
    p = TINY[0]
    call = make_call(op, p, make_tensors(p, torch.float64), bias=True)
    tensors = [call.a, call.b, *([] if call.bias is None else [call.bias])]
    for i in needed:
        tensors[i].requires_grad_()
    saved: list[int] = []

    def pack(t: Tensor) -> Tensor:
        saved.append(t.data_ptr())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = Call(op, *tensors[:2], call.size, call.bias, call.params).run()
    # The gradient of the first argument reads the second, and the other way round; bias reads none.
    expected = {tensors[1 - i].data_ptr() for i in needed if i < 2}
    assert sorted(saved) == sorted(expected)
    assert y.requires_grad == bool(needed)


@pytest.mark.parametrize("changed", [0, 1])
@pytest.mark.parametrize("op", OPS)
def test_changing_a_saved_tensor_raises(op: str, changed: int) -> None:
    p = TINY[0]
    call = make_call(op, p, make_tensors(p, torch.float64))
    tensors = [call.a, call.b]
    tensors[1 - changed].requires_grad_()
    y = Call(op, *tensors, call.size, None, call.params).run()
    tensors[changed].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_backward_twice_needs_retain_graph() -> None:
    p = TINY[0]
    f, tensors = differentiable(make_call("conv2d", p, make_tensors(p, torch.float64)))
    y = f(*tensors).sum()
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_no_graph_where_none_is_wanted() -> None:
    p = TINY[0]
    f, tensors = differentiable(make_call("conv2d", p, make_tensors(p, torch.float64)))
    with torch.no_grad():
        assert not f(*tensors).requires_grad
    with torch.inference_mode():
        assert f(*tensors).is_inference()
    assert f(*tensors).grad_fn is not None
    integers = [t.detach().to(torch.int64) for t in tensors]
    assert not f(*integers).requires_grad


@pytest.mark.parametrize("op", OPS)
def test_undefined_tangents_and_gradients(op: str) -> None:
    """A tangent on one argument alone, and a gradient that reaches one output among several."""
    p = TINY[1]
    f, tensors = differentiable(make_call(op, p, make_tensors(p, torch.float64)))
    a, b = (t.detach() for t in tensors)
    tangent = torch.randn_like(a)
    with forward_ad.dual_level():
        dual = f(forward_ad.make_dual(a, tangent), b)
        primal, derivative = forward_ad.unpack_dual(dual)
    assert_agrees(primal, f(a, b))
    assert_agrees(derivative, f(tangent, b))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.complex128], ids=str)
@pytest.mark.parametrize("p", TINY, ids=str)
def test_same_gradients_as_torch(p: Problem, dtype: torch.dtype) -> None:
    t = make_tensors(p, dtype)
    results = []
    for namespace in (torch.ops.dilconv, torch_peer):
        leaves = [v.clone().requires_grad_() for v in (t.x, t.w, t.bias)]
        y = namespace.conv2d(*leaves, *p.params)
        results.append((y, *torch.autograd.grad(y, leaves, t.g)))
    for ours, theirs in zip(*results, strict=True):
        assert_agrees(ours, theirs, p)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64]
)
@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("lower", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(lower: torch.dtype, enabled: bool, dtype: torch.dtype) -> None:
    """Under autocast the ops follow torch's: the dtypes of results and gradients are its own."""
    functional = torch.nn.functional
    pairs = (
        (dc.functional.conv2d, functional.conv2d, (2, 4, 5, 5), (4, 4, 3, 3)),
        (dc.functional.conv1d, functional.conv1d, (2, 4, 5), (4, 4, 3)),
        (dc.functional.conv_transpose2d, functional.conv_transpose2d, (2, 4, 5, 5), (4, 4, 3, 3)),
    )
    for ours, theirs, x_shape, w_shape in pairs:
        x = torch.randn(x_shape).to(dtype)
        outcomes = []
        for f in (ours, theirs):
            leaves = [v.to(dtype).requires_grad_() for v in (x, torch.ones(w_shape), torch.ones(4))]
            with torch.autocast("cpu", lower, enabled):
                y = f(*leaves)
            y.abs().float().sum().backward()
            outcomes.append((y.dtype, [v.grad.dtype for v in leaves]))
        assert outcomes[0] == outcomes[1], ours.__name__


def test_autocast_mixes_dtypes() -> None:
    """As F.conv2d: under autocast a float32 input meets a bfloat16 weight; outside it must not."""
    x, w = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert dc.functional.conv2d(x, w).dtype == torch.bfloat16
        for op in OPS:
            p = Problem("any", 1, 2, 3, (5, 5), (3, 3))
            assert make_call(op, p, make_tensors(p, torch.float32)).run().dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="weight"):
        dc.functional.conv2d(x, w)
