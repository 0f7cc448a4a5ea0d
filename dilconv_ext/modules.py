"""Drop-in layers: subclasses of torch.nn's, computed by this package's operators.

Constructor, initialisation (the same numbers for the same seed), parameters, ``state_dict`` and
``repr`` are those of the torch.nn class; ``padding`` takes more forms (see
``dilconv_ext.padding``).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import functional
from ._arguments import IntOrPair
from ._transposed_layer import TransposedLayer
from .padding import STRINGS, Padding, PaddingMode, string_pads, unknown_string

__all__ = [
    "Conv1x1",
    "DilatedConv1d",
    "DilatedConv2d",
    "DilatedConvTranspose1d",
    "DilatedConvTranspose2d",
]


def _known_to_torch(padding: Any) -> Any:
    """Return ``padding`` as the torch.nn constructor may see it: 0 for the strings it lacks."""
    if not isinstance(padding, str) or padding in ("valid", "same"):
        return padding
    if padding not in STRINGS:
        raise ValueError(unknown_string(padding, STRINGS))
    return 0


@torch.fx.wrap  # a traced graph calls it: it cannot be traced, since the input's size decides
def _strided_amounts(
    padding: str,
    input: Tensor,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> list[int]:
    """Return what F.pad takes for 'same_upper' and 'same_lower'."""
    axes = len(kernel)
    sizes = input.shape[-axes:]
    top, bottom, left, right = string_pads(padding, sizes, kernel, stride, dilation)
    return [left, right, top, bottom][: 2 * axes]


def _pad_like_mode(layer: nn.Conv1d | nn.Conv2d, input: Tensor) -> Tensor:
    """Pad ``input`` by the layer's ``padding`` in its ``padding_mode`` (any but 'zeros')."""
    amounts = layer._reversed_padding_repeated_twice
    if layer.padding in ("same_upper", "same_lower"):
        geometry = (layer.kernel_size, layer.stride, layer.dilation)
        amounts = _strided_amounts(layer.padding, input, *geometry)
    return F.pad(input, amounts, mode=layer.padding_mode)


class DilatedConv2d(nn.Conv2d):
    """``nn.Conv2d`` on this package's kernels.

    Equivalent to: ``nn.Conv2d`` with the same arguments; ``padding`` may also be
    (top, bottom, left, right), 'same_upper' or 'same_lower'.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: int or (height, width).
        stride: int or (height, width). Default: 1.
        padding: see ``dilconv_ext.padding``. Default: 0.
        dilation: int or (height, width). Default: 1.
        groups: C and O are split into so many parts that do not meet. Default: 1.
        bias: add a learned (O,) to the output. Default: True.
        padding_mode: 'zeros', 'reflect', 'replicate' or 'circular'. All but 'zeros' make a padded
            copy of the input, as torch does. Default: 'zeros'.
        device: of the parameters. Default: torch's.
        dtype: of the parameters. Default: torch's.

    Shape:
        (N, C, H, W) to (N, O, H', W'), or without N; sizes as in ``dilconv_ext.functional.conv2d``.

    Attributes:
        weight: (O, C / groups, kh, kw).
        bias: (O,) or None.

    Raises:
        ValueError: from the constructor, as torch.nn: groups that do not divide the channels, an
            unknown padding string or mode, 'same' with a stride other than 1.
        RuntimeError: from the call, as ``dilconv_ext.functional.conv2d``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: Padding = 0,
        dilation: IntOrPair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,  # type: ignore[arg-type]
            stride,  # type: ignore[arg-type]
            _known_to_torch(padding),
            dilation,  # type: ignore[arg-type]
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        if isinstance(padding, str):
            self.padding = padding
        elif isinstance(padding, (tuple, list)) and len(padding) == 4:
            top, bottom, left, right = padding
            self._reversed_padding_repeated_twice = [left, right, top, bottom]

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input, padding = _pad_like_mode(self, input), 0
        return functional.conv2d(
            input, weight, bias, self.stride, padding, self.dilation, self.groups
        )


class DilatedConv1d(nn.Conv1d):
    """``nn.Conv1d`` on this package's kernels.

    Equivalent to: ``nn.Conv1d`` with the same arguments; ``padding`` may also be (left, right),
    'same_upper' or 'same_lower'. ``padding=(dilation * (kernel_size - 1), 0)`` makes a causal
    layer.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: int or (int,).
        stride: int or (int,). Default: 1.
        padding: see ``dilconv_ext.padding``. Default: 0.
        dilation: int or (int,). Default: 1.
        groups: C and O are split into so many parts that do not meet. Default: 1.
        bias: add a learned (O,) to the output. Default: True.
        padding_mode: 'zeros', 'reflect', 'replicate' or 'circular'. Default: 'zeros'.
        device: of the parameters. Default: torch's.
        dtype: of the parameters. Default: torch's.

    Shape:
        (N, C, L) to (N, O, L'), or without N; sizes as in ``dilconv_ext.functional.conv1d``.

    Attributes:
        weight: (O, C / groups, k).
        bias: (O,) or None.

    Raises:
        ValueError, RuntimeError: as ``DilatedConv2d``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: Padding = 0,
        dilation: IntOrPair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,  # type: ignore[arg-type]
            stride,  # type: ignore[arg-type]
            _known_to_torch(padding),
            dilation,  # type: ignore[arg-type]
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        if isinstance(padding, str):
            self.padding = padding
        elif isinstance(padding, (tuple, list)) and len(padding) == 2:
            self._reversed_padding_repeated_twice = list(padding)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input, padding = _pad_like_mode(self, input), 0
        return functional.conv1d(
            input, weight, bias, self.stride, padding, self.dilation, self.groups
        )


class DilatedConvTranspose1d(TransposedLayer, nn.ConvTranspose1d):
    """``nn.ConvTranspose1d`` on this package's kernels.

    Equivalent to: ``nn.ConvTranspose1d`` with the same arguments; ``padding`` may also be
    (left, right), 'same_upper' or 'same_lower'. With the last two the output is stride * input in
    length; 'same_upper' is Keras' ``Conv1DTranspose(padding="same")``.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: int or (int,).
        stride: int or (int,). Default: 1.
        padding: how much of the full output is cropped; see ``dilconv_ext.padding``. Default: 0.
        output_padding: int or (int,): samples added at the right. Default: 0.
        groups: C and O are split into so many parts that do not meet. Default: 1.
        bias: add a learned (O,) to the output. Default: True.
        dilation: int or (int,). Default: 1.
        padding_mode: 'zeros' is the only one, as in torch. Default: 'zeros'.
        device: of the parameters. Default: torch's.
        dtype: of the parameters. Default: torch's.

    Shape:
        (N, C, L) to (N, O, L'), or without N; sizes as in
        ``dilconv_ext.functional.conv_transpose1d``.

    Attributes:
        weight: (C, O / groups, k).
        bias: (O,) or None.

    Raises:
        ValueError, TypeError, RuntimeError: as ``DilatedConvTranspose2d``.
    """


class DilatedConvTranspose2d(TransposedLayer, nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` on this package's kernels.

    Equivalent to: ``nn.ConvTranspose2d`` with the same arguments; ``padding`` may also be
    (top, bottom, left, right), 'same_upper' or 'same_lower'. With the last two the output is
    stride * input in size; 'same_upper' is Keras' ``Conv2DTranspose(padding="same")``.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: int or (height, width).
        stride: int or (height, width). Default: 1.
        padding: how much of the full output is cropped; see ``dilconv_ext.padding``. Default: 0.
        output_padding: int or (height, width): rows and columns added at the bottom and right.
            Default: 0.
        groups: C and O are split into so many parts that do not meet. Default: 1.
        bias: add a learned (O,) to the output. Default: True.
        dilation: int or (height, width). Default: 1.
        padding_mode: 'zeros' is the only one, as in torch. Default: 'zeros'.
        device: of the parameters. Default: torch's.
        dtype: of the parameters. Default: torch's.

    Shape:
        (N, C, H, W) to (N, O, H', W'), or without N; sizes as in
        ``dilconv_ext.functional.conv_transpose2d``.

    Attributes:
        weight: (C, O / groups, kh, kw).
        bias: (O,) or None.

    Raises:
        ValueError: from the constructor, as torch.nn: groups that do not divide the channels, a
            padding mode other than 'zeros'.
        TypeError: from the constructor, a padding string other than those two.
        RuntimeError: from the call, as ``dilconv_ext.functional.conv_transpose2d``.
    """


class Conv1x1(DilatedConv2d):
    """1×1 convolution: a linear layer over the channels, at every pixel.

    Equivalent to: ``nn.Conv2d(in_channels, out_channels, 1, bias=bias)``.

    Args:
        in_channels: C.
        out_channels: O.
        bias: add a learned (O,) to the output. Default: True.
        device: of the parameters. Default: torch's.
        dtype: of the parameters. Default: torch's.

    Shape:
        (N, C, H, W) to (N, O, H, W), or without N.

    Attributes:
        weight: (O, C, 1, 1).
        bias: (O,) or None.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias, device=device, dtype=dtype)
