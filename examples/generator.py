"""Repair and enlarge: a damaged 14×14 digit and 100 random numbers in, a whole 28×28 digit out.

The input is a digit at half size, with noise over it and a square of it missing. Below the missing
square there is no one right answer, and that is what the random numbers are for: each draw paints
one possible digit. The network learns this without an adversary, from the energy score of two draws
a, b and the truth t, which is least where draws are distributed as the truth is:

    ½ (‖a − t‖ + ‖b − t‖) − ½ ‖a − b‖

Compares the peak signal-to-noise ratio with bilinear and cubic enlargement, and draws a sheet of
samples.
"""

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import Split, digits, parser, predict, prepare, report, train
from comparison import comparison_rows
from nets import DILCONV, Generator
from pictures import image_sheet, learning_curve

SIZE = 14
NOISE = 100
HOLE = 5  # height and width of the missing square
SPECKLE = 0.1  # standard deviation of the noise over the input
MISSING = -1.0  # what a missing pixel holds

# --- data ---


def damaged(truth: Tensor) -> Tensor:
    """(N, 1, 28, 28) → (N, 1, 14, 14): halved, speckled, a square of it set to `MISSING`."""
    images = F.avg_pool2d(truth, 2)
    images = images + SPECKLE * torch.randn_like(images)
    corner = torch.randint(2, SIZE - HOLE - 1, (2, len(images), 1), device=truth.device)
    position = torch.arange(SIZE, device=truth.device)
    rows, columns = (position >= corner) & (position < corner + HOLE)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], MISSING)


def inked(images: Tensor) -> Tensor:
    """Grey pushed towards black and white, so that strokes have edges that a blur would lose."""
    return (12 * (images - 0.5)).sigmoid()


# --- training and measuring ---


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean over images of the Euclidean distance at full, half and quarter resolution, summed.

    On the coarser ones speckles average out, so that draws have to differ in shape.
    """
    total = a.new_zeros(())
    for scale in (1, 2, 4):
        difference = scale * F.avg_pool2d(a - b, scale)
        # The small addend keeps the square root's gradient finite where two images are the same.
        total = total + (difference.square().flatten(1).sum(1) + 1e-6).sqrt().mean()
    return total


def loss(network: nn.Module, images: Tensor, truth: Tensor) -> Tensor:
    """The energy score of two draws per image."""
    noise = torch.randn(2 * len(images), NOISE, dtype=images.dtype, device=images.device)
    first, second = network(images.repeat(2, 1, 1, 1), noise).chunk(2)
    return (distance(first, truth) + distance(second, truth) - distance(first, second)) / 2


def draws(network: nn.Module, images: Tensor, count: int) -> Tensor:
    """(count, N, 1, 28, 28): what the network makes of each image with `count` different noises."""
    noise = torch.randn(count, len(images), NOISE, device=images.device)
    return torch.stack([predict(network, images, one) for one in noise])


def psnr(images: Tensor, truth: Tensor, where: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, of values in [0, 1], over the pixels of mask `where`."""
    error = (images - truth).square()[where.expand_as(truth)].mean()
    return -10 * error.log10().item()


def enlarged(images: Tensor, mode: str) -> Tensor:
    """Twice the size by interpolation, missing pixels taken as empty, in [0, 1]."""
    return F.interpolate(images.clamp(min=0), scale_factor=2, mode=mode).clamp(0, 1)


def main() -> None:
    """Train, measure, compare, draw."""
    options = parser(__doc__, "generator", epochs=16).parse_args()
    prepare(options)
    plain = digits(options)
    train_truth, test_truth = inked(plain.train[0]), inked(plain.test[0])
    data = Split((damaged(train_truth), train_truth), (damaged(test_truth), test_truth))
    images, truth = data.test
    hidden = F.interpolate((images == MISSING).float(), scale_factor=2).bool()
    everywhere = torch.ones_like(hidden)

    network = Generator(DILCONV, noise=NOISE, size=SIZE).to(options.device)
    history = train(
        network,
        data.train,
        loss,
        lambda net: psnr(draws(net, images, 1)[0], truth, everywhere),
        epochs=options.epochs,
        rate=2e-3,
        batch_size=32,
        score_name="PSNR",
    )

    several = draws(network, images, 8)
    candidates = {
        "bilinear": enlarged(images, "bilinear"),
        "cubic": enlarged(images, "bicubic"),
        "one draw": several[0],
        "mean of 8 draws": several.mean(0),
    }
    rows: dict[str, object] = {
        f"PSNR, {name}": f"{psnr(image, truth, everywhere):5.2f} dB; where seen "
        f"{psnr(image, truth, ~hidden):5.2f} dB, where missing {psnr(image, truth, hidden):5.2f} dB"
        for name, image in candidates.items()
    }
    spread = several.std(0)
    rows["spread of draws"] = (
        f"{spread[~hidden].mean():.3f} where seen, {spread[hidden].mean():.3f} where missing"
    )
    rows["training"] = f"{history.seconds:.1f} s, {options.epochs} × {len(train_truth)} images"
    rows |= comparison_rows(
        lambda layers: Generator(layers, noise=NOISE, size=SIZE),
        [tensor[:32] for tensor in data.train],
        loss,
        options,
    )

    learning_curve(
        {"": history}, options, "Repairing digits", "training energy score", "held-out PSNR (dB)"
    )
    draw_samples(images, candidates["cubic"], several, truth, plain.test[1], options)
    report("Conditional generator", rows, options)


def draw_samples(
    images: Tensor,
    cubic: Tensor,
    several: Tensor,
    truth: Tensor,
    labels: Tensor,
    options: argparse.Namespace,
) -> None:
    """Draw input, cubic enlargement, five draws and truth of the first image of every digit."""
    chosen = [int((labels == digit).nonzero()[0]) for digit in range(10)]
    sheet = [
        [images[i, 0].masked_fill(images[i, 0] == MISSING, torch.nan), cubic[i, 0]]
        + [draw[i, 0] for draw in several[:5]]
        + [truth[i, 0]]
        for i in chosen
    ]
    columns = ["input", "cubic", *(f"draw {i}" for i in range(1, 6)), "truth"]
    image_sheet(
        sheet,
        columns,
        options,
        "samples",
        "Damaged 14×14 input (red: missing) to 28×28, five noises each",
    )


if __name__ == "__main__":
    main()
