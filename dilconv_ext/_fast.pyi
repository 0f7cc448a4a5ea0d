"""The compiled short cut to the operators, for plain tensors and plain numbers."""

from typing import Any

def conv2d(
    input: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    /,
) -> Any:
    """Return what ``functional.conv2d`` returns, or NotImplemented where its general path must."""

def conv1d(
    input: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    /,
) -> Any:
    """Return what ``functional.conv1d`` returns, or NotImplemented where its general path must."""
