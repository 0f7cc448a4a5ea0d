"""Move the convolutions of a model to this package's layers, and back."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from . import _C
from .modules import Conv1x1, DilatedConv1d, DilatedConv2d, DilatedConvTranspose2d

logger = logging.getLogger("dilconv_ext")

Model = TypeVar("Model", bound=nn.Module)

_OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: DilatedConv1d,
    nn.Conv2d: DilatedConv2d,
    nn.ConvTranspose2d: DilatedConvTranspose2d,
}
_TORCHS = {ours: torchs for torchs, ours in _OURS.items()} | {Conv1x1: nn.Conv2d}
_DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.complex32,
    torch.complex64,
    torch.complex128,
)


@dataclass
class Conversion:
    """What ``convert`` or ``revert`` did to a model.

    Attributes:
        converted: (name of the module, name of its new class).
        left: (name of the module, name of its class, why it was left), for every other convolution.
    """

    converted: list[tuple[str, str]] = field(default_factory=list)
    left: list[tuple[str, str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{len(self.converted)} convolutions converted, {len(self.left)} left"]
        lines += [f"  {name}: now {new}" for name, new in self.converted]
        lines += [f"  {name}: left as {old}: {reason}" for name, old, reason in self.left]
        return "\n".join(lines)


def convert(model: Model) -> Model:
    """Make the ``nn.Conv1d``, ``nn.Conv2d`` and ``nn.ConvTranspose2d`` in ``model`` this package's.

    It works in place: only the class of each layer changes, so that parameters, buffers, hooks,
    parametrizations, ``state_dict`` and optimisers that hold the parameters stay as they are.
    Subclasses, lazy and quantised layers, dtypes and devices without kernels are left alone. A
    report of both goes to the logger ``dilconv_ext`` at level INFO, as an object:
    ``record.args[0]`` is a ``Conversion``.

    Args:
        model: any module, also a single convolution.

    Returns:
        ``model`` itself.
    """
    return _swap(model, _OURS)


def revert(model: Model) -> Model:
    """Undo ``convert``: this package's layers become torch.nn's.

    Layers with a ``padding`` that torch.nn lacks are left alone. The report is logged as by
    ``convert``.

    Args:
        model: any module, also a single convolution.

    Returns:
        ``model`` itself.
    """
    return _swap(model, _TORCHS)


def _swap(model: Model, classes: dict[type[nn.Module], type[nn.Module]]) -> Model:
    report = Conversion()
    done = _TORCHS if classes is _OURS else _OURS
    for name, module in model.named_modules():
        if not _is_convolution(module) or _plain_class(module) in done:
            continue
        name = name or "(the model)"
        reason = _reason_to_leave(module, classes)
        if reason is not None:
            report.left.append((name, type(module).__name__, reason))
            continue
        _set_class(module, classes[_plain_class(module)])
        report.converted.append((name, type(module).__name__))
    logger.info("%s", report)
    return model


def _is_convolution(module: nn.Module) -> bool:
    if isinstance(module, _ConvNd):
        return True
    # Quantised convolutions, for one, derive from something else.
    return "conv" in type(module).__name__.lower() and next(module.children(), None) is None


def _plain_class(module: nn.Module) -> type[nn.Module]:
    """Return the module's class without what ``torch.nn.utils.parametrize`` put on top."""
    return type(module).__bases__[0] if parametrize.is_parametrized(module) else type(module)


def _reason_to_leave(
    module: nn.Module, classes: dict[type[nn.Module], type[nn.Module]]
) -> str | None:
    plain = _plain_class(module)
    if isinstance(module, nn.modules.lazy.LazyModuleMixin):
        return "it is lazy and has no weight yet: run the model once, then convert"
    if plain not in classes:
        known = ", ".join(cls.__name__ for cls in classes)
        return f"its class is not exactly one of {known}, and may compute something else"
    if any(method in vars(module) for method in ("forward", "_conv_forward")):
        return "its forward was replaced on the instance"
    if plain in _TORCHS:
        return _reason_against_torch(module)
    weight = module.weight
    if not isinstance(weight, torch.Tensor) or weight.layout is not torch.strided:
        return "its weight is not a dense tensor"
    if weight.dtype not in _DTYPES:
        return f"there are no kernels for {weight.dtype}"
    if not weight.is_meta and not _C.kernels(weight.device.type):
        return f"there are no kernels for device '{weight.device.type}' in this build"
    return None


def _reason_against_torch(module: nn.Module) -> str | None:
    padding = module.padding
    if isinstance(padding, str):
        return None if padding in ("valid", "same") else f"torch.nn has no padding={padding!r}"
    if isinstance(padding, tuple) and len(padding) > len(module.kernel_size):  # type: ignore[arg-type]
        return f"torch.nn has no padding={padding}"
    return None


def _set_class(module: nn.Module, new: type[nn.Module]) -> None:
    if parametrize.is_parametrized(module):
        # parametrize derives a class of its own for each module and hangs the properties on it; the
        # same on top of the new class keeps them, and lets remove_parametrizations find the new
        # class below.
        own = {k: v for k, v in vars(type(module)).items() if k not in ("__dict__", "__weakref__")}
        new = type(f"Parametrized{new.__name__}", (new,), own)
    module.__class__ = new
