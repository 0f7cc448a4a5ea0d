"""Move the convolutions of a model to this package's layers, and back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from . import _C
from .modules import (
    Conv1x1,
    DilatedConv1d,
    DilatedConv2d,
    DilatedConvTranspose1d,
    DilatedConvTranspose2d,
)

logger = logging.getLogger("dilconv_ext")

Model = TypeVar("Model", bound=nn.Module)
Where = Callable[[str, nn.Module], bool]
ModuleClass = type[nn.Module]

_OURS: dict[ModuleClass, ModuleClass] = {
    nn.Conv1d: DilatedConv1d,
    nn.Conv2d: DilatedConv2d,
    nn.ConvTranspose1d: DilatedConvTranspose1d,
    nn.ConvTranspose2d: DilatedConvTranspose2d,
}
_TORCHS = {ours: torchs for torchs, ours in _OURS.items()} | {Conv1x1: nn.Conv2d}
_LAYERS = tuple(_TORCHS)
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


def convert(
    model: Model, where: Where | None = None, subclasses: tuple[ModuleClass, ...] = ()
) -> Model:
    """Make the convolutions in ``model`` this package's, where it has the layer.

    These are ``nn.Conv1d``, ``nn.Conv2d``, ``nn.ConvTranspose1d`` and ``nn.ConvTranspose2d``.

    It works in place: only the class of each layer changes, so that parameters, buffers, hooks,
    parametrizations, ``state_dict`` and optimisers that hold the parameters stay as they are.
    Subclasses, lazy and quantised layers, dtypes and devices without kernels are left alone. A
    report of both goes to the logger ``dilconv_ext`` at level INFO, as an object:
    ``record.args[0]`` is a ``Conversion``.

    Args:
        model: any module, also a single convolution.
        where: called with each convolution's name and module; those for which it returns False are
            left alone. ``lambda name, module: max(module.dilation) > 1``, for example. Default:
            None, all of them.
        subclasses: classes derived from one of the four that add to it but leave the convolution
            itself to ``super().forward`` or ``self._conv_forward``, as a causal layer that pads
            first. A layer of such a class gets a class of the same name with this package's layer
            below it. A class that calls ``F.conv2d`` itself stays with torch. Default: ().

    Returns:
        ``model`` itself.

    Raises:
        TypeError: an item of ``subclasses`` is not derived from one of the four.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, dilation=2))
        >>> convert(model, where=lambda name, module: max(module.dilation) > 1)
        Sequential(
          (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
          (1): DilatedConv2d(8, 8, kernel_size=(3, 3), stride=(1, 1), dilation=(2, 2))
        )
    """
    classes = _OURS | {cls: _adopted(cls) for cls in subclasses}
    return _swap(model, classes.get, where, reverting=False)


def revert(model: Model, where: Where | None = None) -> Model:
    """Undo ``convert``: this package's layers become torch.nn's.

    Layers with a ``padding`` that torch.nn lacks are left alone. The report is logged as by
    ``convert``.

    Args:
        model: any module, also a single convolution.
        where: as for ``convert``. Default: None, all of them.

    Returns:
        ``model`` itself.
    """
    return _swap(model, lambda cls: _adopts(cls) or _TORCHS.get(cls), where, reverting=True)


class _Adopted:
    """Marks the classes that ``_adopted`` makes, which pickle cannot find by name."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (_adopts(type(self)),), vars(self)


_adopted_classes: dict[ModuleClass, ModuleClass] = {}


def _adopted(cls: ModuleClass) -> ModuleClass:
    """Return the class that is as ``cls``, but convolves by this package's layer.

    Raises:
        TypeError: ``cls`` is not derived from a torch.nn class that this package has a layer for.
    """
    for theirs, ours in _OURS.items():
        if isinstance(cls, type) and issubclass(cls, theirs) and cls is not theirs:
            new = type(cls.__name__, (_Adopted, cls, ours), {"__module__": cls.__module__})
            return _adopted_classes.setdefault(cls, new)
    known = ", ".join(theirs.__name__ for theirs in _OURS)
    raise TypeError(f"subclasses must be derived from {known}, but got {cls!r}")


def _adopts(cls: type) -> ModuleClass | None:
    """Return the class from which ``_adopted`` made ``cls``; None if it did not."""
    return cls.__mro__[cls.__mro__.index(_Adopted) + 1] if issubclass(cls, _Adopted) else None


def _rebuild(cls: ModuleClass) -> nn.Module:
    new = _adopted(cls)
    return new.__new__(new)


def _swap(
    model: Model,
    counterpart: Callable[[ModuleClass], ModuleClass | None],
    where: Where | None,
    *,
    reverting: bool,
) -> Model:
    report = Conversion()
    for name, module in model.named_modules():
        if not _is_convolution(module) or isinstance(module, _LAYERS) != reverting:
            continue
        name = name or "(the model)"
        new = counterpart(_plain_class(module))
        reason = _reason_to_leave(module, new)
        if reason is None and where is not None and not where(name, module):
            reason = "'where' excludes it"
        if new is None or reason is not None:
            report.left.append((name, type(module).__name__, reason or ""))
            continue
        _set_class(module, new)
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


def _reason_to_leave(module: nn.Module, new: ModuleClass | None) -> str | None:
    if isinstance(module, nn.modules.lazy.LazyModuleMixin):
        return "it is lazy and has no weight yet: run the model once, then convert"
    if new is None:
        classes = _TORCHS if isinstance(module, _LAYERS) else _OURS
        known = ", ".join(cls.__name__ for cls in classes)
        return f"its class is not exactly one of {known}, and may compute something else"
    if any(method in vars(module) for method in ("forward", "_conv_forward")):
        return "its forward was replaced on the instance"
    if isinstance(module, _LAYERS):
        return _reason_against_torch(module)
    weight = module.weight
    if not isinstance(weight, torch.Tensor) or weight.layout is not torch.strided:
        return "its weight is not a dense tensor"
    if is_traceable_wrapper_subclass(weight) and type(weight).__name__ != "DTensor":
        return f"its weight is a {type(weight).__name__}, which may multiply in a way of its own"
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
