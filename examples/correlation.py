"""Cross-correlation with several channels: the classic worked example, and a layer that learns it.

Two 3×3 channels and a 2×2 kernel for each, small enough to follow by hand:

    X = [[[0,1,2],[3,4,5],[6,7,8]], [[1,2,3],[4,5,6],[7,8,9]]],  K = [[[0,1],[2,3]], [[1,2],[3,4]]]

    0·0 + 1·1 + 3·2 + 4·3  +  1·1 + 2·2 + 4·3 + 5·4  =  19 + 37  =  56

Every printed result is also asserted. Then a layer sees only images and their correlations with K,
K + 1 and K + 2, and gradient descent finds those kernels.
"""

import argparse
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor, nn
from torch.nn import functional as F

from common import Split, parser, prepare, report, train
from comparison import comparison_rows
from dilconv_ext.functional import (
    corr2d,
    corr2d_multi_in,
    corr2d_multi_in_out,
    corr2d_multi_in_out_1x1,
)
from nets import DILCONV, Layers
from pictures import learning_curve, save

X = torch.tensor([[[0, 1, 2], [3, 4, 5], [6, 7, 8]], [[1, 2, 3], [4, 5, 6], [7, 8, 9]]])
K = torch.tensor([[[0, 1], [2, 3]], [[1, 2], [3, 4]]])
STACK = torch.stack([K, K + 1, K + 2])


def show(expression: str, value: Tensor, expected: list[Any]) -> None:
    """Print an expression and its value, which has to be `expected` and made of integers."""
    assert value.dtype == torch.int64, f"{expression}: {value.dtype}"
    assert value.tolist() == expected, f"{expression}: {value}"
    print(f"{expression}\n  {value.tolist()}\n")


def worked_example() -> None:
    """Integers in, integers out: the functions one after the other."""
    show("corr2d(X[0], K[0])", corr2d(X[0], K[0]), [[19, 25], [37, 43]])
    show("corr2d_multi_in(X, K)", corr2d_multi_in(X, K), [[56, 72], [104, 120]])
    show(
        "corr2d_multi_in_out(X, stack of K, K + 1, K + 2)",
        corr2d_multi_in_out(X, STACK),
        [[[56, 72], [104, 120]], [[76, 100], [148, 172]], [[96, 128], [192, 224]]],
    )
    # Dilated by 2, the kernel covers the image's corners:
    # 0·0 + 2·1 + 6·2 + 8·3  +  1·1 + 3·2 + 7·3 + 9·4.
    show("corr2d_multi_in(X, K, dilation=2)", corr2d_multi_in(X, K, dilation=2), [[102]])


def one_by_one(seed: int) -> None:
    """The 1×1 function is the general one, and a matrix product over channels."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(-9, 10, (3, 3, 3), generator=generator)
    kernel = torch.randint(-9, 10, (2, 3, 1, 1), generator=generator)
    product = (kernel[:, :, 0, 0] @ image.flatten(1)).view(2, 3, 3)
    show(
        "corr2d_multi_in_out_1x1 = corr2d_multi_in_out = matrix product over channels",
        corr2d_multi_in_out_1x1(image, kernel),
        product.tolist(),
    )
    assert torch.equal(product, corr2d_multi_in_out(image, kernel))


def layer(layers: Layers) -> nn.Conv2d:
    """A layer that has to find `STACK`: two channels in, three out, 2×2 kernels, no bias."""
    return layers.conv(2, 3, 2, bias=False)


def loss(network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Mean square error."""
    return F.mse_loss(network(images), targets)


def kernel_error(network: nn.Module) -> float:
    """Largest distance of a learned weight from `STACK`."""
    return (network.get_parameter("weight").detach().cpu() - STACK).abs().max().item()


def draw_numbers(
    axes: Axes, values: Tensor, title: str, window: tuple[int, int] | None = None
) -> None:
    """Draw a matrix as a grid of numbers, the first `window` rows and columns marked."""
    axes.imshow(values, cmap="Blues", vmin=0, vmax=2.2 * max(1, int(values.max())))
    for (row, column), value in zip(
        torch.cartesian_prod(*(torch.arange(size) for size in values.shape)).tolist(),
        values.flatten(),
        strict=True,
    ):
        axes.text(column, row, str(int(value)), ha="center", va="center", fontsize=13)
    if window:
        axes.add_patch(
            Rectangle(
                (-0.5, -0.5), window[1], window[0], fill=False, edgecolor="#e65100", linewidth=3
            )
        )
    axes.set(xticks=[], yticks=[], title=title)
    axes.spines[:].set_visible(True)


def draw(options: argparse.Namespace) -> None:
    """Draw the worked example: channel by channel and their sum, the first window marked."""
    figure, grid = plt.subplots(2, 4, figsize=(7.4, 5), width_ratios=(3, 2, 2, 2.6))
    for channel, line in enumerate(grid):
        draw_numbers(line[0], X[channel], f"input channel {channel}", window=(2, 2))
        draw_numbers(line[1], K[channel], f"kernel {channel}")
        draw_numbers(line[2], corr2d(X[channel], K[channel]), f"corr2d {channel}", window=(1, 1))
        line[3].set_axis_off()
    total = figure.add_subplot(grid[0, 3].get_gridspec()[:, 3])
    draw_numbers(total, corr2d_multi_in(X, K), "corr2d_multi_in: their sum", window=(1, 1))
    figure.suptitle("0·0 + 1·1 + 3·2 + 4·3 = 19,   1·1 + 2·2 + 4·3 + 5·4 = 37,   19 + 37 = 56")
    save(figure, options, "worked_example")


def main() -> None:
    """Work the example, learn its kernels, compare, draw."""
    options = parser(__doc__, "correlation", epochs=20).parse_args()
    prepare(options)
    worked_example()
    one_by_one(options.seed)

    images = torch.randn(256, 2, 12, 12)
    targets = torch.stack([corr2d_multi_in_out(image, STACK.float()) for image in images])
    data = Split((images.to(options.device), targets.to(options.device)), ())
    network = layer(DILCONV).to(options.device)
    history = train(
        network,
        data.train,
        loss,
        kernel_error,
        epochs=options.epochs,
        rate=0.2,
        batch_size=16,
        score_name="kernel error",
    )
    rows: dict[str, object] = {
        "worked example": "exact, integers",
        "learned weights": f"at most {history.scores[-1]:.1e} from K, K + 1, K + 2",
    }
    rows |= comparison_rows(layer, data.train, loss, options)
    learning_curve(
        {"": history},
        options,
        "Finding the kernel again",
        "mean square error",
        "largest kernel error",
        scale="log",
    )
    draw(options)
    report("Cross-correlation, several channels", rows, options)


if __name__ == "__main__":
    main()
