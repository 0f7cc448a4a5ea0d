"""A dilconv_ext network beside the identical torch.nn network: outputs, gradients and step time."""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from common import Loss, optimiser, step
from nets import DILCONV, TORCH, Layers


@dataclass
class Difference:
    """How far two networks are apart: in outputs and in gradients, at most."""

    dtype: torch.dtype
    output: float
    gradient: float
    relative: float
    """Largest ‖difference‖ / ‖gradient‖ of any parameter or input."""


def compare(
    build: Callable[[Layers], nn.Module], batch: Sequence[Tensor], loss: Loss, seed: int = 0
) -> list[Difference]:
    """Outputs and all gradients with dilconv_ext beside torch.nn's, of the same weights and batch.

    Both precisions are reported, and float64 decides: there two implementations that agree differ
    by some 1e-15, while in float32 the sign of a nearly zero activation, and with it a piece of the
    gradient, may honestly differ.

    Args:
        build: makes the network from layer classes.
        batch: what `loss` takes after the network; gradients of its floating tensors are compared
            too.
        loss: `loss(network, *batch)` → scalar; torch is seeded before each call, so it may draw
            noise.
        seed: of that noise.

    Raises:
        AssertionError: if a float64 gradient is further than 1e-10, relatively, from torch.nn's.
    """
    reference = build(TORCH)
    differences = []
    for dtype in (torch.float32, torch.float64):
        results = []
        for layers in (TORCH, DILCONV):
            network = build(layers)
            network.load_state_dict(reference.state_dict())
            network.to(batch[0].device, dtype)
            torch.manual_seed(seed)
            results.append(_outputs_and_gradients(network, batch, loss, dtype))
        (theirs, their_gradients), (ours, our_gradients) = results
        pairs = list(zip(our_gradients, their_gradients, strict=True))
        differences.append(
            Difference(
                dtype,
                output=_largest(ours - theirs),
                gradient=max(_largest(a - b) for a, b in pairs),
                relative=max(((a - b).norm() / b.norm()).item() for a, b in pairs if b.norm() > 0),
            )
        )
    assert differences[-1].relative < 1e-10, f"gradients differ from torch.nn's: {differences[-1]}"
    return differences


def _largest(difference: Tensor) -> float:
    return difference.abs().max().item()


def _outputs_and_gradients(
    network: nn.Module, batch: Sequence[Tensor], loss: Loss, dtype: torch.dtype
) -> tuple[Tensor, list[Tensor]]:
    """All that the network put out while the loss was computed, and the loss's gradients."""
    cast = [
        tensor.detach().to(dtype).requires_grad_() if tensor.is_floating_point() else tensor
        for tensor in batch
    ]
    outputs: list[Tensor] = []
    network.register_forward_hook(
        lambda _module, _inputs, output: outputs.append(output.detach().flatten())
    )
    loss(network, *cast).backward()
    leaves = [*network.parameters(), *cast]
    return torch.cat(outputs), [leaf.grad for leaf in leaves if leaf.grad is not None]


def step_times(
    build: Callable[[Layers], nn.Module], batch: Sequence[Tensor], loss: Loss, steps: int
) -> tuple[float, float]:
    """Median seconds of a training step (forward, backward, Adam): dilconv_ext's and torch.nn's.

    The two take turns, so that whatever else the machine does disturbs both alike. Three steps warm
    each up.
    """
    networks = [build(layers).to(batch[0].device) for layers in (DILCONV, TORCH)]
    optimizers = [optimiser(network, 1e-4) for network in networks]
    times: list[list[float]] = [[], []]
    for _ in tqdm(range(steps + 3), desc="timing steps", unit="pair", dynamic_ncols=True):
        for network, optimizer, record in zip(networks, optimizers, times, strict=True):
            start = time.perf_counter()
            step(network, optimizer, loss, batch)
            record.append(time.perf_counter() - start)
    ours, theirs = (statistics.median(record[3:]) for record in times)
    return ours, theirs


def comparison_rows(
    build: Callable[[Layers], nn.Module],
    batch: Sequence[Tensor],
    loss: Loss,
    options: argparse.Namespace,
    check_samples: int = 8,
) -> dict[str, Any]:
    """Table rows of `step_times` on the batch and of `compare` on its first few samples."""
    ours, theirs = step_times(build, batch, loss, steps=2 if options.quick else 15)
    rows: dict[str, Any] = {
        f"training step of {len(batch[0])}, dilconv_ext": f"{ours * 1e3:.1f} ms",
        f"training step of {len(batch[0])}, torch.nn": f"{theirs * 1e3:.1f} ms",
        "speed-up over torch.nn": f"{theirs / ours:.2f} ×",
    }
    few = [tensor[:check_samples] for tensor in batch]
    for difference in compare(build, few, loss, options.seed):
        name = str(difference.dtype).removeprefix("torch.")
        rows[f"largest output difference, {name}"] = f"{difference.output:.1e}"
        rows[f"largest gradient difference, {name}"] = (
            f"{difference.gradient:.1e} ({difference.relative:.0e} relative)"
        )
    return rows
