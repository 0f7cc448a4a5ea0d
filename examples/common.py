"""What the example scripts share: their options, data, training loop and final table."""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

Loss = Callable[..., Tensor]
"""`loss(network, *batch)` → a scalar to minimise."""

# --- options ---


def parser(description: str | None, name: str, epochs: int) -> argparse.ArgumentParser:
    """A parser with the options that every example has; `name` is its folder under `output/`."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--output",
        type=Path,
        default=Path("output", name),
        metavar="DIR",
        help="where pictures go [%(default)s]",
    )
    options.add_argument(
        "--epochs", type=int, default=epochs, help="passes over the data [%(default)s]"
    )
    options.add_argument(
        "--seed", type=int, default=0, help="of weights, data and order [%(default)s]"
    )
    options.add_argument(
        "--device", type=torch.device, default="cpu", help="to compute on [%(default)s]"
    )
    options.add_argument(
        "--quick", action="store_true", help="a smoke run of seconds: one epoch of little data"
    )
    return options


def prepare(options: argparse.Namespace) -> None:
    """Seed torch, make the output folder and, for `--quick`, cut the epochs to one."""
    torch.manual_seed(options.seed)
    options.output.mkdir(parents=True, exist_ok=True)
    if options.quick:
        options.epochs = 1


# --- data ---


@dataclass
class Split:
    """Training and held-out tensors, each a tuple whose members agree in their first dimension."""

    train: tuple[Tensor, ...]
    test: tuple[Tensor, ...]

    def head(self, train: int, test: int) -> "Split":
        """Only the first so many samples of each, for smoke runs."""
        return Split(tuple(t[:train] for t in self.train), tuple(t[:test] for t in self.test))


def digits(options: argparse.Namespace, size: int = 28) -> Split:
    """scikit-learn's 1797 handwritten digits, a stratified quarter held out.

    Returns:
        Images (N, 1, size, size), resized from 8×8 by cubic interpolation, in [0, 1]; labels (N,)
        int64.
    """
    data = load_digits()
    images = torch.from_numpy(data.images).float()[:, None] / 16
    images = F.interpolate(images, size=(size, size), mode="bicubic").clamp(0, 1)
    labels = torch.from_numpy(data.target).long()
    train, test = train_test_split(
        torch.arange(len(labels)), test_size=0.25, stratify=labels, random_state=options.seed
    )
    split = Split(
        (images[train].to(options.device), labels[train].to(options.device)),
        (images[test].to(options.device), labels[test].to(options.device)),
    )
    return split.head(256, 128) if options.quick else split


# --- training ---


@dataclass
class History:
    """The loss of every step, the held-out score after every epoch, and the seconds it all took."""

    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    seconds: float = 0.0


def optimiser(network: nn.Module, rate: float) -> torch.optim.Optimizer:
    """The optimiser of all examples, and of their timed steps."""
    return torch.optim.Adam(network.parameters(), lr=rate, fused=True)


def train(
    network: nn.Module,
    data: tuple[Tensor, ...],
    loss: Loss,
    score: Callable[[nn.Module], float],
    *,
    epochs: int,
    rate: float,
    batch_size: int = 64,
    label: str = "training",
    score_name: str = "accuracy",
) -> History:
    """Train `network` by Adam at a learning rate that rises to `rate` and falls to nothing.

    Args:
        network: trained in place, and left in evaluation mode.
        data: tensors that agree in their first dimension; a batch is a slice of each.
        loss: `loss(network, *batch)` → scalar.
        score: measures the network on held-out data after every epoch.
        epochs, rate, batch_size: passes over the data, peak learning rate, samples per step.
        label, score_name: for the progress bar.
    """
    history = History()
    start = time.perf_counter()
    loader = DataLoader(TensorDataset(*data), batch_size, shuffle=True, drop_last=True)
    optimizer = optimiser(network, rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=epochs * len(loader)
    )
    with tqdm(total=epochs * len(loader), desc=label, unit="step", dynamic_ncols=True) as bar:
        for _ in range(epochs):
            network.train()
            for batch in loader:
                history.losses.append(step(network, optimizer, loss, batch))
                schedule.step()
                bar.update()
            network.eval()
            history.scores.append(score(network))
            bar.set_postfix(
                {"loss": f"{history.losses[-1]:.3f}", score_name: f"{history.scores[-1]:.4g}"}
            )
    history.seconds = time.perf_counter() - start
    return history


def step(
    network: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss, batch: Sequence[Tensor]
) -> float:
    """One training step; returns the loss, which also waits for the device."""
    optimizer.zero_grad()
    value = loss(network, *batch)
    value.backward()
    optimizer.step()
    return value.item()


@torch.inference_mode()
def predict(network: nn.Module, *inputs: Tensor, batch_size: int = 128) -> Tensor:
    """The network's outputs for all of `inputs`, computed batch by batch."""
    batches = zip(*(tensor.split(batch_size) for tensor in inputs), strict=True)
    return torch.cat([network(*batch) for batch in batches])


def accuracy(network: nn.Module, *inputs_and_labels: Tensor) -> float:
    """The share of samples whose largest logit is the label's; the labels come last."""
    *inputs, labels = inputs_and_labels
    return (predict(network, *inputs).argmax(1) == labels).double().mean().item()


# --- results ---


def report(title: str, rows: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the final table and write it as `results.json` beside the pictures."""
    (options.output / "results.json").write_text(
        json.dumps(rows, indent=2, ensure_ascii=False) + "\n"
    )
    print(f"\n{title}")
    print(tabulate(rows.items(), tablefmt="rounded_outline", disable_numparse=True))
    print("Pictures:", *sorted(str(path) for path in options.output.glob("*.png")), sep="\n  ")
