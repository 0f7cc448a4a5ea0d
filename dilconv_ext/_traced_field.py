"""The receptive field of any module, found by running it: branches, skips, upsampling included.

The theoretical field marks which inputs an output *can* depend on. A NaN in one row of the input
marks them: NaN times zero is NaN, so it passes through every linear layer whatever the weights, and
through activations, sums, products, maxima, concatenation and interpolation. One forward pass of a
batch in which sample i has row i poisoned shows every row's reach at once.

The effective field weighs inputs by how much they matter, by the gradient of an output. Source:
W. Luo, Y. Li, R. Urtasun and R. Zemel, "Understanding the Effective Receptive Field in Deep
Convolutional Neural Networks", NIPS 2016.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ._options import options
from ._receptive_field import ReceptiveField, Row

_CHUNK = 32  # samples at a time, to bound memory
_NARROW = (torch.bfloat16, torch.float16)


@contextmanager
def _as_measured(model: nn.Module) -> Iterator[None]:
    """Switch to eval mode (batch norm would mix samples), and keep NaN in its window."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with options(winograd=False), torch.backends.nnpack.flags(enabled=False):
            yield
    finally:
        for module, mode in training.items():
            module.training = mode


def _runner(model: nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Any]:
    """Return the model; one of 16-bit types with its tensors in ``dtype`` for the call.

    torch's own 16-bit convolutions spread NaN beyond its window.
    """
    tensors = itertools.chain(model.named_parameters(), model.named_buffers())
    wide = {name: t.to(dtype) for name, t in tensors if t.dtype in _NARROW}
    return (lambda x: torch.func.functional_call(model, wide, (x,))) if wide else model


def _first_tensor(value: Any) -> Tensor:
    """The output that is measured: a module's own, or the first one in it."""
    found = [leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
    if not found:
        raise ValueError(f"the model returned no tensor, but {type(value).__name__}")
    return found[0]


def traced(model: nn.Module, input_size: tuple[int, ...]) -> ReceptiveField:
    """Return the field of ``model`` for inputs of ``input_size``; see ``receptive_field``."""
    axes = len(input_size) - 1
    if axes not in (1, 2) or any(n < 1 for n in input_size):
        raise ValueError(f"input_size must be (C, H, W) or (C, L), but got {input_size}")
    fields = [_reach(model, input_size, axis) for axis in range(axes)]
    names = [name for name in fields[0] if all(name in field for field in fields)]
    rows: list[Row] = []
    for name in names:
        found = [_summary(field[name]) for field in fields]
        if any(axis is None for axis in found):
            break  # from here on an output sees the whole input, or the border
        row = Row(name, *zip(*(axis for axis in found if axis is not None), strict=True))
        if not rows or row[1:] != rows[-1][1:]:
            rows.append(row)
    whole = [_summary(field[""]) for field in fields]
    if any(axis is None for axis in whole):
        raise ValueError(
            f"every output of the model reaches the border of an input of size {input_size}, or "
            "sees all of it (as after global pooling): try a larger input_size"
        )
    size, jump, start = zip(*(axis for axis in whole if axis is not None), strict=True)
    return ReceptiveField(size, jump, start, tuple(rows))


def _reach(model: nn.Module, input_size: tuple[int, ...], axis: int) -> dict[str, Tensor]:
    """For each leaf module, and "" for the model: (input rows, output rows), True where seen."""
    length = input_size[1 + axis]
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    dtype = torch.float32 if dtype in _NARROW else dtype
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    run = _runner(model, dtype)
    marks: dict[str, list[Tensor]] = {}

    def note(name: str, output: Any, samples: int) -> None:
        axes = len(input_size) - 1
        if isinstance(output, Tensor) and output.dim() == axes + 2 and len(output) == samples:
            rows = output.isnan().movedim(2 + axis, 1).flatten(2)
            marks.setdefault(name, []).append(rows.any(dim=2))

    with _as_measured(model), torch.no_grad(), _hooks(model, note):
        for first in range(0, length, _CHUNK):
            count = min(_CHUNK, length - first)
            x = torch.zeros(count, *input_size, dtype=dtype, device=device)
            for sample in range(count):
                x[sample].select(1 + axis, first + sample).fill_(float("nan"))
            note("", _first_tensor(run(x)), count)
    passes = -(-length // _CHUNK)
    return {name: torch.cat(found) for name, found in marks.items() if len(found) == passes}


@contextmanager
def _hooks(model: nn.Module, note: Callable[[str, Any, int], None]) -> Iterator[None]:
    """Tell ``note`` of the output of every module without children (parametrized ones too)."""
    handles = []
    for name, module in model.named_modules():
        children = [n for n, _ in module.named_children() if n != "parametrizations"]
        if name and not children and "parametrizations" not in name:
            handles.append(
                module.register_forward_hook(
                    lambda _module, _inputs, output, name=name: note(
                        name, output, len(output) if isinstance(output, Tensor) else 0
                    )
                )
            )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _summary(reach: Tensor) -> tuple[int, float, float] | None:
    """(size, jump, start) of the outputs that do not see the border; None if all do."""
    length = len(reach)
    spans = []
    for index, column in enumerate(reach.T):
        rows = column.nonzero().flatten()
        if len(rows):
            spans.append((index, int(rows[0]), int(rows[-1]), _longest_step(rows)))
    # With dilation, a field that begins within a step of the border may have lost its first rows.
    inner = [
        (index, first, last)
        for index, first, last, step in spans
        if first >= step and last < length - step
    ]
    # With strides, the last rows of the image may have no output either: take the middle half.
    quarter = len(inner) // 4
    inner = inner[quarter : len(inner) - quarter]
    if len(inner) < 2:
        return None
    size = max(last - first + 1 for _, first, last in inner)
    centres = [(first + last) / 2 for _, first, last in inner]
    jump = (centres[-1] - centres[0]) / (inner[-1][0] - inner[0][0])
    # After upsampling neighbours differ, and the slope over the whole is not quite its mean.
    jump = round(jump) if jump >= 1 and abs(jump - round(jump)) < 0.2 else _unit_fraction(jump)
    starts = [centre - index * jump for centre, (index, _, _) in zip(centres, inner, strict=True)]
    return size, jump, sum(starts) / len(starts)


def _longest_step(rows: Tensor) -> int:
    return int(rows.diff().max()) if len(rows) > 1 else 1


def _unit_fraction(jump: float) -> float:
    """The nearest 1/n: the step of an output that was upsampled n times."""
    return 1 / max(round(1 / jump), 1) if jump > 0 else 0.0


@dataclass(frozen=True)
class EffectiveField:
    """How much each input pixel matters to the middle output, by gradients. ``print`` it.

    Attributes:
        weight: (H, W) or (L,), float64, of sum 1.
        deviation: per axis, the standard deviation in pixels: a Gaussian field's sigma.
        extent: per axis, the shortest span of rows that holds 95 % of the weight.
        holes: per axis, rows of the input without weight that lie between others: gridding.
    """

    weight: Tensor
    deviation: tuple[float, ...]
    extent: tuple[int, ...]
    holes: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        axes = ("height", "width") if len(self.extent) == 2 else ("length",)
        lines = []
        for axis, extent, sigma, holes in zip(
            axes, self.extent, self.deviation, self.holes, strict=True
        ):
            share = f"{axis}: 95 % of the gradient within {extent} pixels"
            lines.append(f"{share}, standard deviation {sigma:.1f}")
            if holes:
                lines.append(f"  {len(holes)} rows in between get none (gridding)")
        return "\n".join(lines)


def effective_field(
    model: nn.Module, input_size: tuple[int, ...], samples: int = 8, seed: int = 0
) -> EffectiveField:
    """Measure which input pixels matter to the output in the middle, and how much.

    The absolute gradients of the middle output, summed over its channels, are averaged over random
    inputs. Trained models have a larger effective field than fresh ones.

    Args:
        model: any module that takes (N, C, H, W) or (N, C, L). It is run in eval mode.
        input_size: (C, H, W) or (C, L).
        samples: random inputs, normal, to average over. Default: 8.
        seed: of these inputs. Default: 0.

    Returns:
        An ``EffectiveField``.

    Raises:
        ValueError: the model returns no tensor of as many dimensions as its input, or no gradient
            reaches the input.
    """
    parameter = next(model.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, *input_size, generator=generator, dtype=torch.float64)
    x = x.to(parameter.device, parameter.dtype).requires_grad_()
    with _as_measured(model):
        y = _first_tensor(model(x))
        if y.dim() != x.dim():
            raise ValueError(f"the model's output has size {list(y.shape)}: it has no middle pixel")
        middle = tuple(n // 2 for n in y.shape[2:])
        for n in middle:
            y = y.select(2, n)
        (gradient,) = torch.autograd.grad(y.sum(), x)
    weight = gradient.abs().double().mean(dim=(0, 1))
    if not weight.sum() > 0:
        raise ValueError("no gradient of the middle output reaches the input")
    weight = weight / weight.sum()
    # A sum over the other axes would be one over all in 1-D, where there are none.
    profiles = [
        weight.movedim(axis, 0).reshape(n, -1).sum(1) for axis, n in enumerate(weight.shape)
    ]
    return EffectiveField(
        weight,
        tuple(map(_deviation, profiles)),
        tuple(map(_extent, profiles)),
        tuple(map(_holes, profiles)),
    )


def _holes(profile: Tensor) -> tuple[int, ...]:
    read = profile.nonzero().flatten()
    between = range(int(read[0]), int(read[-1]) + 1)
    return tuple(sorted(set(between) - set(read.tolist())))


def _deviation(profile: Tensor) -> float:
    places = torch.arange(len(profile), dtype=profile.dtype, device=profile.device)
    mean = (profile * places).sum()
    return float((profile * (places - mean).square()).sum().sqrt())


def _extent(profile: Tensor) -> int:
    """The fewest neighbouring places that hold 95 % of the weight."""
    sums = [0.0, *profile.cumsum(0).tolist()]
    length = len(profile)
    for size in range(1, length + 1):
        if any(sums[i + size] - sums[i] >= 0.95 for i in range(length - size + 1)):
            return size
    return length
