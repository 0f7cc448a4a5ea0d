"""Train on images too large for one process: each process has some of their rows.

    torchrun --standalone --nproc-per-node=2 examples/distributed.py

A small dilated network learns to blur. Each layer fetches the rows around its own from the
neighbours; afterwards one process repeats the training on whole images, and the parameters are
compared.
"""

import argparse

import torch
import torch.distributed as dist
from torch import Tensor, nn

import dilconv_ext as dc
from dilconv_ext.distributed import SpatialConv2d, shard


def network(convolution: type[nn.Module]) -> nn.Module:
    """The same numbers for the same seed, whatever the class of its layers."""
    torch.manual_seed(0)
    return nn.Sequential(
        convolution(1, 8, 3, padding="same"),
        nn.ReLU(),
        convolution(8, 8, 3, padding="same", dilation=2),
        nn.ReLU(),
        convolution(8, 1, 3, padding="same", dilation=4),
    ).double()


def train(net: nn.Module, images: Tensor, targets: Tensor, pixels: int, steps: int) -> None:
    """Full-batch SGD. The loss is this process's share: summed over processes, it is the mean."""
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = (net(images) - targets).square().sum() / pixels
        loss.backward()
        optimiser.step()


def main() -> None:
    """Train both ways and compare."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="a small image and few steps")
    quick = options.parse_args().quick
    size, steps = (96, 3) if quick else (1024, 20)

    dist.init_process_group("gloo")
    torch.manual_seed(1)
    images = torch.rand(1, 1, size, size, dtype=torch.float64)
    targets = nn.functional.avg_pool2d(images, 9, stride=1, padding=4)
    net = network(SpatialConv2d)
    train(net, shard(images), shard(targets), images.numel(), steps)

    if dist.get_rank() == 0:
        alone = network(dc.DilatedConv2d)
        train(alone, images, targets, images.numel(), steps)
        for mine, theirs in zip(net.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
        print(f"{dist.get_world_size()} processes: the same as one process, to rounding")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
