"""Handwritten digits, read by three dilated 3×3 convolutions: 32 (d=1), 64 (d=2), 128 (d=4).

Trains on three quarters of scikit-learn's digits, measures on the rest, and compares the network
with the identical one of torch.nn: step time, outputs, gradients. Draws the learning curve, the
learned filters at their true spacing, and how the receptive field grows from layer to layer.
"""

import argparse
import time
from functools import partial

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor, nn
from torch.nn import functional as F

import dilconv_ext as dc
from common import accuracy, digits, parser, prepare, report, train
from comparison import comparison_rows
from nets import DILCONV, Classifier
from pictures import learning_curve, save


def shifted(images: Tensor, limit: int = 2) -> Tensor:
    """The images moved alike by up to `limit` random pixels in each direction; zeros move in."""
    top, left = torch.randint(2 * limit + 1, (2,)).tolist()
    height, width = images.shape[-2:]
    return F.pad(images, (limit,) * 4)[..., top : top + height, left : left + width]


def loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the network's logits, in training for randomly shifted images."""
    return F.cross_entropy(network(shifted(images) if network.training else images), labels)


def convolutions(network: Classifier) -> list[nn.Conv2d]:
    """The network's convolutions, first to last."""
    return [module for module in network.features if isinstance(module, nn.Conv2d)]


def spread(kernel: Tensor, dilation: int) -> Tensor:
    """(kh, kw) taps at the spacing at which they touch the input, NaN between them."""
    height, width = ((size - 1) * dilation + 1 for size in kernel.shape)
    canvas = torch.full((height, width), torch.nan)
    canvas[::dilation, ::dilation] = kernel
    return canvas


def draw_filters(network: Classifier, options: argparse.Namespace, count: int = 24) -> None:
    """Draw every layer's strongest kernel planes, spread by their dilation."""
    layers = convolutions(network)
    columns = count // 2
    figure = plt.figure(figsize=(9, 6))
    for part, layer, number in zip(
        figure.subfigures(len(layers), 1), layers, range(1, 4), strict=True
    ):
        planes = layer.weight.detach().cpu().flatten(0, 1)
        strongest = planes[planes.flatten(1).norm(dim=1).argsort(descending=True)[:count]]
        limit = strongest.abs().max().item()
        grid = part.subplots(2, columns)
        colours = plt.get_cmap("RdBu_r").copy()
        colours.set_bad("#e8e8e8")
        for axes, plane in zip(grid.flat, strongest, strict=True):
            axes.imshow(spread(plane, layer.dilation[0]), cmap=colours, vmin=-limit, vmax=limit)
            axes.set_axis_off()
        part.suptitle(
            f"layer {number}, dilation {layer.dilation[0]}: the {count} strongest "
            f"of {len(planes)} kernels",
            fontsize=9,
        )
    figure.suptitle("Learned kernels as they lie on their input (red +, blue −, grey: no tap)")
    save(figure, options, "filters")


def sensitivity(features: nn.Module, images: Tensor) -> Tensor:
    """Mean |gradient| of the centre output, summed over channels, by each input pixel: (H, W)."""
    images = images.clone().requires_grad_()
    output = features(images)
    row, column = output.shape[-2] // 2, output.shape[-1] // 2
    (gradient,) = torch.autograd.grad(output[..., row, column].sum(), images)
    return gradient.abs().mean(dim=(0, 1)).cpu()


def paths(dilations: list[int], size: int) -> Tensor:
    """Number of ways from each pixel to the centre output: `sensitivity` with all weights one."""
    network = nn.Sequential(*(DILCONV.conv(1, 1, 3, dilation=d, bias=False) for d in dilations))
    for parameter in network.parameters():
        nn.init.ones_(parameter)
    return sensitivity(network, torch.zeros(1, 1, size, size))


def draw_field(axes: Axes, image: Tensor, size: int, window: int = 17) -> None:
    """Draw the receptive field of the centre output, `size` wide, in the middle of a panel."""
    start = (image.shape[-1] - size + 1) // 2  # the centre of an output that is size - 1 smaller
    field = image[start : start + size, start : start + size]
    margin = (window - size) // 2
    axes.imshow(F.pad(field / field.max(), (margin,) * 4), cmap="inferno", vmin=0, vmax=1)
    corner = (margin - 0.5, margin - 0.5)
    axes.add_patch(Rectangle(corner, size, size, fill=False, edgecolor="#4fc3f7", linewidth=1.5))
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(f"sees {size}×{size}")


def draw_receptive_field(network: Classifier, images: Tensor, options: argparse.Namespace) -> None:
    """Draw, layer by layer, which input pixels the centre output depends on, and how much."""
    layers = convolutions(network)
    dilations = [layer.dilation[0] for layer in layers]
    figure, grid = plt.subplots(3, len(layers), figsize=(7.2, 8))
    for depth in range(1, len(layers) + 1):
        trained, dilated, undilated = grid[:, depth - 1]
        size = dc.receptive_field(layers[:depth]).size[0]
        draw_field(trained, sensitivity(network.features[: 2 * depth], images), size)
        draw_field(dilated, paths(dilations[:depth], images.shape[-1]), size)
        plain = dc.receptive_field([dc.Layer(kernel_size=3)] * depth).size[0]
        draw_field(undilated, paths([1] * depth, images.shape[-1]), plain)
        trained.set_title(f"layer {depth}, dilation {dilations[depth - 1]}")
    for axes, name in zip(
        grid[:, 0],
        ("trained: mean |gradient|", "paths to the centre", "paths if never dilated"),
        strict=True,
    ):
        axes.set_ylabel(name)
    figure.suptitle(
        "What the centre output sees of the input, layer by layer (box: receptive field)"
    )
    save(figure, options, "receptive_field")


def main() -> None:
    """Train, measure, compare, draw."""
    start = time.perf_counter()
    options_parser = parser(__doc__, "classifier", epochs=6)
    options_parser.add_argument(
        "--dense", type=int, default=0, help="width of an extra dense layer [none]"
    )
    options = options_parser.parse_args()
    prepare(options)
    data = digits(options)

    build = partial(Classifier, dense=options.dense)
    network = build(DILCONV).to(options.device)
    history = train(
        network,
        data.train,
        loss,
        lambda net: accuracy(net, *data.test),
        epochs=options.epochs,
        rate=3e-3,
        batch_size=32,
    )
    rows = {
        "held-out accuracy": f"{history.scores[-1]:.2%} of {len(data.test[0])} images",
        "training": f"{history.seconds:.1f} s, {options.epochs} × {len(data.train[0])} images",
    }
    rows |= comparison_rows(build, [tensor[:64] for tensor in data.train], loss, options)

    learning_curve(
        {"": history}, options, "Digit classifier", "training cross-entropy", "held-out accuracy"
    )
    draw_filters(network, options)
    draw_receptive_field(network, data.test[0], options)
    rows["everything"] = f"{time.perf_counter() - start:.1f} s"
    report("Digit classifier", rows, options)


if __name__ == "__main__":
    main()
