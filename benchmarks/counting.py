"""How much work a layer is: the products that it cannot avoid, and the bytes that it must move.

A convolution is a sum of input × weight × grad_output over (output position, tap) pairs. The three
directions contract the same pairs, so they need the same number of products. A pair whose tap falls
into the padding multiplies by zero, and is not counted, whether a library computes it or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from shapes import Shape


def _axes(shape: Shape) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Per axis: image size, grid size, kernel, stride, padding in front, dilation."""
    sizes = (shape.image_size, shape.grid_size)
    return zip(*sizes, shape.kernel, shape.stride, shape.padding, shape.dilation, strict=True)


def _pixels(image: int, grid: int, kernel: int, stride: int, pad: int, dilation: int) -> list[int]:
    """The pixel of each (grid position, tap) pair on one axis whose tap is not in the padding."""
    reached = (at * stride + tap * dilation - pad for at in range(grid) for tap in range(kernel))
    return [pixel for pixel in reached if 0 <= pixel < image]


def useful_products(shape: Shape) -> int:
    """Multiplications of any one direction, those with padding left out."""
    channels = shape.n * shape.c_in * shape.c_out // shape.groups
    return channels * prod(len(_pixels(*axis)) for axis in _axes(shape))


def useful_flops(shape: Shape, direction: str) -> int:
    """A multiplication and an addition for each useful product; a step is the three directions."""
    return 2 * useful_products(shape) * (3 if direction == "step" else 1)


def touched_pixels(shape: Shape) -> int:
    """Pixels of the image, per sample and channel, that any tap reaches."""
    return prod(len(set(_pixels(*axis))) for axis in _axes(shape))


def least_bytes(shape: Shape, direction: str, item: int) -> int:
    """Bytes moved if either operand is read once and the result written once.

    Args:
        shape: the layer.
        direction: 'forward', 'grad_input', 'grad_weight' or 'step' (the sum of the three).
        item: the bytes of one number.

    Pixels that no tap reaches need not be read; but a gradient's zeros there must be written.
    """
    if direction == "step":
        return sum(
            least_bytes(shape, one, item) for one in ("forward", "grad_input", "grad_weight")
        )
    writes_image = direction == ("forward" if shape.transposed else "grad_input")
    image_channels, grid_channels = shape.c_in, shape.c_out
    if shape.transposed:
        image_channels, grid_channels = grid_channels, image_channels
    pixels = prod(shape.image_size) if writes_image else touched_pixels(shape)
    image = shape.n * image_channels * pixels
    grid = shape.n * grid_channels * prod(shape.grid_size)
    return item * (image + grid + prod(shape.weight_shape))
