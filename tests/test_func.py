"""torch.func over our functions against torch.func over torch's; the named autograd Functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import dilconv_ext as dc
from accuracy import assert_agrees
from calls import Call, make_call
from problems import Problem, make_tensors

PAIRS = {
    "conv2d": (dc.functional.conv2d, F.conv2d, (2, 2, 5, 5), (2, 2, 3, 3)),
    "conv1d": (dc.functional.conv1d, F.conv1d, (2, 2, 7), (2, 2, 3)),
    "conv_transpose1d": (
        dc.functional.conv_transpose1d,
        F.conv_transpose1d,
        (2, 2, 5),
        (2, 2, 3),
    ),
    "conv_transpose2d": (
        dc.functional.conv_transpose2d,
        F.conv_transpose2d,
        (2, 2, 4, 3),
        (2, 2, 3, 3),
    ),
}
KWARGS: dict[str, Any] = {"stride": 2, "padding": 1, "dilation": 2}
TRANSFORMS: dict[str, Callable[..., Any]] = {
    "grad": lambda f: grad(lambda x, w, b: (f(x, w, b) ** 3).sum(), argnums=(0, 1, 2)),
    "jacrev": lambda f: jacrev(f, argnums=(0, 1, 2)),
    "jacfwd": lambda f: jacfwd(f, argnums=(0, 1, 2)),
    "hessian": lambda f: hessian(lambda x, w, b: (f(x, w, b) ** 3).sum(), argnums=(0, 1)),
    "jacrev of jacrev": lambda f: jacrev(jacrev(lambda x, w, b: (f(x, w, b) ** 2).sum(), 1), 0),
    "jacfwd of jacfwd": lambda f: jacfwd(jacfwd(lambda x, w, b: (f(x, w, b) ** 2).sum(), 1), 0),
    "vmap of grad": lambda f: vmap(
        grad(lambda x, w, b: (f(x, w, b) ** 2).sum(), argnums=(1, 2)), in_dims=(0, None, None)
    ),
    "grad of vmap": lambda f: grad(
        lambda x, w, b: (vmap(f, in_dims=(0, None, None))(x, w, b) ** 2).sum(), argnums=(0, 1)
    ),
    "vmap of vmap": lambda f: (
        lambda x, w, b: vmap(vmap(f, in_dims=(None, 0, None)), in_dims=(0, None, None))(
            x, torch.stack([w, 2 * w]), b
        )
    ),
    "vmap of jvp": lambda f: (
        lambda x, w, b: vmap(lambda v: jvp(lambda u: f(u, w, b), (x,), (v,))[1])(
            torch.stack([x.sin(), x.cos()])
        )
    ),
    "jvp": lambda f: lambda x, w, b: jvp(f, (x, w, b), (x.sin(), w.cos(), b.exp())),
    "jvp of jvp": lambda f: (
        lambda x, w, b: jvp(
            lambda u, v: jvp(lambda s, t: f(s, t, b), (u, v), (u.sin(), v.cos()))[1],
            (x, w),
            (x.cos(), w.sin()),
        )
    ),
    "vjp": lambda f: lambda x, w, b: vjp(f, x, w, b)[1](f(x, w, b).sin()),
    "jvp of grad": lambda f: (
        lambda x, w, b: jvp(grad(lambda v: (f(x, v, b) ** 3).sum()), (w,), (w.sin(),))
    ),
}


def leaves_of(result: Any) -> list[Tensor]:
    """The tensors of nested tuples, in order."""
    return torch.utils._pytree.tree_leaves(result)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", PAIRS)
def test_transform(name: str, transform: str) -> None:
    ours, theirs, x_shape, w_shape = PAIRS[name]
    double = {"dtype": torch.float64}
    args = torch.randn(x_shape, **double), torch.randn(w_shape, **double), torch.randn(2, **double)
    results = [
        leaves_of(TRANSFORMS[transform](lambda x, w, b, f=f: f(x, w, b, **KWARGS))(*args))
        for f in (ours, theirs)
    ]
    assert results[0]
    for actual, expected in zip(*results, strict=True):
        assert_agrees(actual, expected, f"{transform} of {name}")


def test_per_sample_gradients_of_a_network() -> None:
    """The recipe of torch's tutorial, against one backward per sample."""
    model = torch.nn.Sequential(
        dc.DilatedConv2d(1, 4, 3, padding="same", dilation=2),
        torch.nn.ReLU(),
        dc.DilatedConv2d(4, 6, 3, stride=2, groups=2),
        torch.nn.Flatten(),
        torch.nn.LazyLinear(3),
    ).double()
    x, target = torch.randn(5, 1, 9, 9, dtype=torch.float64), torch.arange(5) % 3
    model(x)
    params = dict(model.named_parameters())

    def loss(params: dict[str, Tensor], x: Tensor, target: Tensor) -> Tensor:
        y = functional_call(model, params, (x.unsqueeze(0),))
        return F.cross_entropy(y, target.unsqueeze(0))

    batched = vmap(grad(loss), in_dims=(None, 0, 0))(params, x, target)
    for i in range(5):
        single = torch.autograd.grad(
            F.cross_entropy(model(x[i : i + 1]), target[i : i + 1]), params.values()
        )
        for name, expected in zip(params, single, strict=True):
            assert_agrees(batched[name][i], expected, name)


FUNCTIONS = {
    "conv2d": dc.autograd.DilatedConv2dFunction,
    "conv2d_grad_input": dc.autograd.GradInputFunction,
    "conv2d_grad_weight": dc.autograd.GradWeightFunction,
}
FUNCTION_PROBLEMS = [
    Problem("plain", 2, 2, 2, (4, 4), (3, 3), padding=(1, 1, 1, 1)),
    Problem("strided", 1, 4, 2, (5, 4), (2, 2), (2, 1), (2, 0, 1, 3), (1, 2), groups=2),
    Problem("1d", 2, 2, 2, (6,), (3,), (1, 2), (0, 0, 2, 1), (1, 2)),
    Problem("unbatched", None, 2, 2, (4, 3), (2, 2)),
]


@pytest.mark.parametrize("p", FUNCTION_PROBLEMS, ids=str)
@pytest.mark.parametrize("op", FUNCTIONS)
def test_named_function(op: str, p: Problem) -> None:
    """``apply`` takes the op's arguments in schema order, gives its result, and differentiates."""
    call = make_call(op, p, make_tensors(p, torch.float64), bias=True)
    apply = FUNCTIONS[op].apply
    assert torch.equal(apply(*call.args), call.run())

    def f(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
        return apply(*Call(op, a, b, call.size, bias, call.params).args)

    tensors = [call.a, call.b, *([] if call.bias is None else [call.bias])]
    leaves = tuple(t.clone().requires_grad_() for t in tensors)
    assert type(f(*leaves).grad_fn).__name__.startswith(FUNCTIONS[op].__name__)
    gradcheck(
        f, leaves, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )
    gradgradcheck(f, leaves, check_fwd_over_rev=True)


@pytest.mark.parametrize("op", FUNCTIONS)
def test_named_function_under_vmap(op: str) -> None:
    p = FUNCTION_PROBLEMS[1]
    call = make_call(op, p, make_tensors(p, torch.float64))
    apply = FUNCTIONS[op].apply

    def f(a: Tensor) -> Tensor:
        return apply(*Call(op, a, call.b, call.size, None, call.params).args)

    batch = torch.stack([call.a, call.a.sin(), call.a.cos()])
    looped = torch.stack([f(a) for a in batch])
    assert_agrees(vmap(f)(batch), looped)
    assert_agrees(
        vmap(grad(lambda a: (f(a) ** 2).sum()))(batch),
        torch.stack([grad(lambda a: (f(a) ** 2).sum())(a) for a in batch]),
    )


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_named_function_has_the_operators_special_cases() -> None:
    """No input channels give zero gradients; complex32 has a bias gradient."""
    for shape, dtype in (((2, 0, 5, 6), torch.float32), ((2, 2, 5, 6), torch.complex32)):
        x = torch.ones(shape, dtype=dtype)
        w = torch.ones(4, shape[1], 3, 3, dtype=dtype)
        bias = torch.ones(4, dtype=dtype)
        gradients = []
        for f in (dc.autograd.DilatedConv2dFunction.apply, torch.ops.dilconv.conv2d):
            leaves = [t.clone().requires_grad_() for t in (x, w, bias)]
            f(*leaves).backward(torch.ones_like(f(*leaves)))
            gradients.append([leaf.grad for leaf in leaves])
        for ours, expected in zip(*gradients, strict=True):
            assert_agrees(ours, expected)
