"""The rest of torch's tools: profiler, FLOP counter, grad scaler, checkpointing, ensembles."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import dilconv_ext as dc
from accuracy import assert_agrees, relative_error

IMAGE = (2, 4, 9, 10)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=2, dilation=2),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1),
        nn.Flatten(2),
        nn.Conv1d(6, 3, 3, dilation=4),
    )


def flops(net: nn.Module, x: Tensor) -> dict[str, dict[str, int]]:
    counter = FlopCounterMode(display=False)
    with counter:
        net(x).sum().backward()
    return {
        module: {str(op).rpartition(".")[2]: n for op, n in counts.items()}
        for module, counts in counter.get_flop_counts().items()
    }


def test_flops_per_module() -> None:
    """Forward, and both gradients, of each layer: as many as torch counts for its own."""
    x = torch.randn(IMAGE, requires_grad=True)
    theirs, ours = flops(network(), x), flops(dc.convert(network()), x)
    assert set(ours) == set(theirs)
    for module, counts in ours.items():
        assert sum(counts.values()) == sum(theirs[module].values()) > 0, module
    assert set(ours["Global"]) == {"conv2d", "conv2d_grad_input", "conv2d_grad_weight"}


def test_profiler_names_the_ops_and_their_shapes() -> None:
    net = dc.convert(network())
    x = torch.randn(IMAGE, requires_grad=True)
    with torch.profiler.profile(record_shapes=True, with_flops=False) as profile:
        net(x).sum().backward()
    events = {event.name: event for event in profile.events()}
    for op in ("conv2d", "conv2d_grad_input", "conv2d_grad_weight"):
        assert f"dilconv::{op}" in events
    backward = [name for name in events if "Backward" in name and "evaluate_function" not in name]
    assert {"DilatedConv2dBackward", "GradInputBackward"} <= set(backward)
    first = next(event for event in profile.events() if event.name == "dilconv::conv2d")
    assert first.input_shapes[:2] == [list(IMAGE), [8, 4, 3, 3]]


def test_grad_scaler() -> None:
    """Scaled float16 gradients are unscaled, and a step with infinite ones is skipped."""
    nets = [network(), dc.convert(network())]
    nets[1].load_state_dict(nets[0].state_dict())
    x = torch.randn(IMAGE)
    for net in nets:
        optimiser = torch.optim.SGD(net.parameters(), 0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
        before = copy.deepcopy(net.state_dict())
        with torch.autocast("cpu", torch.float16):
            loss = net(x).float().square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        assert scaler.get_scale() == 2.0**12
        assert not torch.equal(before["0.weight"], net[0].weight)
        after = copy.deepcopy(net.state_dict())
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = net(x).float().mean() * float("inf")
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        assert scaler.get_scale() < 2.0**12
        assert torch.equal(after["0.weight"], net[0].weight)
    for ours, theirs in zip(nets[1].parameters(), nets[0].parameters(), strict=True):
        assert relative_error(ours.detach(), theirs.detach()) < 1e-2


def test_requires_grad_toggles() -> None:
    """Frozen layers get no gradients, and what only they need is not saved."""
    net = dc.convert(network())
    x = torch.randn(IMAGE)
    net[0].requires_grad_(False)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = net[0](x)
        assert not y.requires_grad
        assert saved == []
        z = net(x)
    z.sum().backward()
    assert net[0].weight.grad is None
    assert net[2].weight.grad is not None
    net[0].requires_grad_(True)
    net(x).sum().backward()
    assert net[0].weight.grad is not None


def test_saved_tensor_hooks_see_the_factors() -> None:
    """CPU offloading and compression of activations work by these."""
    layer = dc.DilatedConv2d(4, 6, 3)
    x = torch.randn(IMAGE, requires_grad=True)
    packed: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        packed.append(t)
        return t.double()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t.float()):
        y = layer(x)
    assert sorted(tuple(t.shape) for t in packed) == [IMAGE, (6, 4, 3, 3)]
    y.sum().backward()
    expected = torch.autograd.grad(layer(x).sum(), x)[0]
    assert torch.equal(x.grad, expected)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(reentrant: bool) -> None:
    net = dc.convert(network())
    x = torch.randn(IMAGE, requires_grad=True)
    expected = torch.autograd.grad(net(x).sum(), [x, *net.parameters()])
    y = checkpoint(net, x, use_reentrant=reentrant)
    net.zero_grad()
    y.sum().backward()
    for actual, exact in zip([x.grad, *[p.grad for p in net.parameters()]], expected, strict=True):
        assert torch.equal(actual, exact)


def test_an_ensemble_in_one_call() -> None:
    """vmap over the weights of several networks, as torch's tutorial has it, with gradients."""
    nets = [dc.convert(network()).double() for _ in range(3)]
    parameters, buffers = stack_module_state(nets)
    x = torch.randn(IMAGE, dtype=torch.float64)
    base = copy.deepcopy(nets[0]).to("meta")

    def loss(parameters: Any, buffers: Any, x: Tensor) -> Tensor:
        return functional_call(base, (parameters, buffers), (x,)).square().mean()

    losses = vmap(loss, in_dims=(0, 0, None))(parameters, buffers, x)
    gradients = vmap(grad(loss), in_dims=(0, 0, None))(parameters, buffers, x)
    for i, net in enumerate(nets):
        expected = net(x).square().mean()
        assert_agrees(losses[i].detach(), expected.detach())
        names, values = zip(*net.named_parameters(), strict=True)
        for name, exact in zip(names, torch.autograd.grad(expected, values), strict=True):
            assert_agrees(gradients[name][i].detach(), exact)


def test_parameters_on_meta_materialise() -> None:
    """Deferred initialisation: built on meta, converted there, then given memory."""
    with torch.device("meta"):
        net = dc.convert(network())
    assert isinstance(net[0], dc.DilatedConv2d)
    net.to_empty(device="cpu")
    reference = network()
    net.load_state_dict(reference.state_dict())
    assert_agrees(net(torch.ones(IMAGE)), reference(torch.ones(IMAGE)))
