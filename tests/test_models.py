"""convert on other people's models: the same outputs, and the same gradients of everything."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import dilconv_ext as dc
from third_party import ROWS

# Importing and building them is none of our business.
pytestmark = pytest.mark.filterwarnings("ignore")


def step(net: nn.Module, x: Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
    """All outputs, and the gradients of the input and of every parameter."""
    torch.manual_seed(1)  # some draw masks
    leaf = x.clone().requires_grad_()
    outputs = [
        output
        for output in pytree.tree_leaves(net(leaf))
        if isinstance(output, Tensor) and output.is_floating_point()
    ]
    assert outputs
    loss = torch.stack([output.square().mean() for output in outputs]).sum()
    return outputs, list(torch.autograd.grad(loss, [leaf, *net.parameters()], allow_unused=True))


def assert_same(actual: Any, expected: Any) -> None:
    """In float64, relative to the largest of them: some gradients are zero but for rounding."""
    assert [t is None for t in actual] == [t is None for t in expected]
    pairs = [(a, e) for a, e in zip(actual, expected, strict=True) if e is not None]
    largest = max(e.norm().item() for _, e in pairs)
    for a, e in pairs:
        assert a.shape == e.shape
        assert (a - e).norm().item() <= 1e-10 * e.norm().item() + 1e-12 * largest


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if row.fast else pytest.mark.slow) for n, row in ROWS.items()]
)
def test_model(name: str, caplog: pytest.LogCaptureFixture) -> None:
    row = ROWS[name]
    net = row()
    ours = row()
    with caplog.at_level(logging.INFO, logger="dilconv_ext"):
        dc.convert(ours, **row.options())
    report = next(r.args[0] for r in caplog.records if r.name == "dilconv_ext")
    assert len(report.converted) == row.converted
    assert {old for _, old, _ in report.left} == row.left
    assert list(ours.state_dict()) == list(net.state_dict())

    x = torch.randn(row.shape, dtype=torch.float64)
    outputs, gradients = step(net, x)
    our_outputs, our_gradients = step(ours, x)
    assert_same(our_outputs, outputs)
    assert_same(our_gradients, gradients)

    dc.revert(ours)
    assert [type(m).__name__ for m in ours.modules()] == [type(m).__name__ for m in net.modules()]
    assert_same(step(ours, x)[0], outputs)


@pytest.mark.parametrize("name", ["smp DeepLabV3Plus", "timm resnet18"])
def test_training_steps(name: str) -> None:
    """Batch norm in training mode, an optimiser that was there before, a copy of the model."""
    row = ROWS[name]
    x = torch.randn(2, *row.shape[1:], dtype=torch.float64)
    finals = []
    for swap in (False, True):
        net = row().train()
        optimiser = torch.optim.AdamW(net.parameters(), 1e-3)
        if swap:
            dc.convert(net)
        for _ in range(2):
            optimiser.zero_grad()
            net(x).square().mean().backward()
            optimiser.step()
        finals.append(list(copy.deepcopy(net).state_dict().values()))
    for actual, expected in zip(*finals, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-8)
