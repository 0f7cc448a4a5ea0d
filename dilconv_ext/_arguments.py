"""Check and normalise the arguments that the public functions share.

The operators take pairs of integers; the public functions take what ``torch.nn.functional`` takes.
The common cases (an ``int``, a tuple of the right length) are decided by the first lines of each
function, because they run on every call.
"""

from __future__ import annotations

import operator
from typing import Any, NoReturn

import torch
from torch import Tensor

IntOrPair = int | tuple[int, ...] | list[int]


def integer(name: str, value: Any) -> Any:
    """Return ``value`` as an ``int`` (or untouched ``torch.SymInt``).

    Raises:
        TypeError: ``value`` is no integer. As in torch, a ``bool`` is none.
    """
    if type(value) is int or isinstance(value, torch.SymInt):
        return value
    if not isinstance(value, bool):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(
        f"argument '{name}' must be an int or a tuple of ints, but got {name}={value!r} "
        f"({type(value).__name__})"
    )


def pair(name: str, value: Any) -> tuple[int, int]:
    """Return ``(height, width)`` from an int, a sequence of one or a sequence of two ints.

    Raises:
        TypeError: ``value`` holds something else than integers.
        RuntimeError: ``value`` is a sequence of another length.
    """
    if type(value) is int:
        return (value, value)
    if type(value) is tuple and len(value) == 2:
        first, second = value
        if type(first) is int and type(second) is int:
            return value
    items = _items(name, value, 2)
    return (items[0], items[-1])


def single(name: str, value: Any) -> int:
    """Return the int of an int or of a sequence of one int; raises as ``pair`` does."""
    if type(value) is tuple and len(value) == 1:
        value = value[0]
    if type(value) is int:
        return value
    return _items(name, value, 1)[0]


def per_axis(name: str, value: Any, axes: int) -> tuple[int, ...]:
    """Return an int for each axis, of which there are one or two; raises as ``pair`` does."""
    return pair(name, value) if axes == 2 else (single(name, value),)


def _items(name: str, value: Any, axes: int) -> list[int]:
    if not isinstance(value, (tuple, list)):
        return [integer(name, value)]
    items = [integer(name, item) for item in value]
    if len(items) not in (1, axes):
        raise RuntimeError(
            f"expected {name} to be a single integer value or a list of {axes} values to match the "
            f"convolution dimensions, but got {name}={items}"
        )
    return items


def raise_for_rank(function: str, input: Tensor, weight: Tensor, axes: int) -> NoReturn:
    """Raise the RuntimeError for an input or a weight with the wrong number of dimensions."""
    if weight.dim() < 3:
        raise RuntimeError(
            f"weight should have at least three dimensions, but got weight of size "
            f"{list(weight.shape)}"
        )
    if weight.dim() != axes + 2:
        raise RuntimeError(
            f"Expected {weight.dim()}-dimensional input for {weight.dim()}-dimensional weight "
            f"{list(weight.shape)}, but got {input.dim()}-dimensional input of size "
            f"{list(input.shape)} instead: {function}() takes a {axes + 2}-dimensional weight"
        )
    raise RuntimeError(
        f"Expected {axes + 1}D (unbatched) or {axes + 2}D (batched) input to {function}, but got "
        f"input of size: {list(input.shape)}"
    )


def raise_for_arguments(
    function: str, input: Any, weight: Any, bias: Any, groups: Any, **numbers: Any
) -> None:
    """Raise what torch raises for arguments that no operator takes; return if there are none.

    The operators' own parser and dispatcher report these in other types and words. So this runs
    after an operator refused its arguments, and costs nothing when it did not.

    Raises:
        TypeError: a tensor is no Tensor, or ``groups`` is no int.
        RuntimeError: a tensor is not dense.
        ValueError: ``groups`` or an int in ``numbers`` (ints, sequences of them) exceeds 64 bits.
    """
    for name, value in (("input", input), ("weight", weight), ("bias", bias)):
        if name == "bias" and value is None:
            continue
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{function}(): argument '{name}' must be Tensor, but got {name}={value!r} "
                f"({type(value).__name__})"
            ) from None
        if value.layout is not torch.strided:
            raise RuntimeError(
                f"{function}(): argument '{name}' must be a dense tensor, but got layout "
                f"{value.layout}"
            ) from None
    if not isinstance(groups, (int, torch.SymInt)) or isinstance(groups, bool):
        raise TypeError(
            f"{function}(): argument 'groups' must be int, but got groups={groups!r} "
            f"({type(groups).__name__})"
        ) from None
    for name, value in {"groups": groups, **numbers}.items():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if type(item) is int and not -(2**63) <= item < 2**63:
                raise ValueError(
                    f"{function}(): argument '{name}' must fit in 64 bits, but got {name}={value}"
                ) from None
