"""What the transposed layers of ``dilconv_ext.modules`` share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import functional
from ._arguments import IntOrPair
from ._transposed import transposed_geometry
from .padding import TRANSPOSED_STRINGS, Padding, PaddingMode, unknown_string


@torch.fx.wrap  # a traced graph calls it: it cannot be traced, since sizes decide
def output_padding_for(
    output_size: Sequence[int],
    rank: int,
    input_size: Sequence[int],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: str | tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[int, ...]:
    """Return the output_padding for an ``output_size``, by torch's rule, for any padding."""
    axes = len(kernel)
    if len(output_size) not in (axes, rank):
        raise ValueError(
            f"ConvTranspose{axes}D: for {rank}D input, output_size must have {axes} or "
            f"{rank} elements (got {len(output_size)})"
        )
    smallest, *_ = transposed_geometry(input_size, kernel, stride, padding, 0, dilation)
    fixed = isinstance(padding, str)
    largest = [
        size if fixed else size + step - 1 for size, step in zip(smallest, stride, strict=True)
    ]
    wanted = output_size[-axes:]
    if any(not a <= n <= b for a, n, b in zip(smallest, wanted, largest, strict=True)):
        raise ValueError(
            f"requested an output size of {output_size}, but valid sizes range from "
            f"{list(smallest)} to {largest} (for an input of {input_size})"
        )
    return tuple(n - size for n, size in zip(wanted, smallest, strict=True))


class TransposedLayer(nn.Module):
    """A transposed layer, but for the torch.nn class, which comes after it in the layer's bases."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int
    padding_mode: Any
    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: Padding = 0,
        output_padding: IntOrPair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: IntOrPair = 1,
        padding_mode: PaddingMode = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if isinstance(padding, str) and padding not in TRANSPOSED_STRINGS:
            raise TypeError(unknown_string(padding, TRANSPOSED_STRINGS))
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            0 if isinstance(padding, str) else padding,
            output_padding,
            groups,
            bias,
            dilation,
            padding_mode,
            device,
            dtype,
        )
        if isinstance(padding, str):
            self.padding = padding

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the transposed convolution of ``input``.

        Args:
            input: (N, C, H, W) or (C, H, W); (N, C, L) or (C, L) in 1-D.
            output_size: (H', W') or (L',), or with the leading sizes too: which of the sizes that a
                convolution with this stride would map to the input's; it stands in for
                ``output_padding``. Default: None.

        Raises:
            ValueError: ``output_size`` is none of those sizes.
            RuntimeError: as the function of ``dilconv_ext.functional``.
        """
        if self.padding_mode != "zeros":
            raise ValueError(
                f"Only `zeros` padding mode is supported for ConvTranspose{len(self.kernel_size)}d"
            )
        extra = self.output_padding
        if output_size is not None:
            geometry = (self.kernel_size, self.stride, self.padding, self.dilation)
            size = self._input_size(input)
            extra = output_padding_for(output_size, input.dim(), size, *geometry)
        return self._transpose(input, extra)

    def _transpose(self, input: Tensor, output_padding: tuple[int, ...]) -> Tensor:
        convolve = (functional.conv_transpose1d, functional.conv_transpose2d)
        return convolve[len(self.kernel_size) - 1](
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            output_padding,
            self.groups,
            self.dilation,
        )

    def _input_size(self, input: Tensor) -> Sequence[int]:
        return input.shape[-len(self.kernel_size) :]
