"""Several gloo processes against one: DDP, FSDP2, DTensor, and images spread over processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import dilconv_ext as dc
from accuracy import relative_error
from problems import channels_last

pytestmark = [
    pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo"),
    pytest.mark.filterwarnings("ignore"),  # of torch.distributed, in its own modules
]

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "distributed.py"


def _enter(rank: int, world: int, file: str, body: Callable[..., None], arguments: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    torch.manual_seed(0)  # the same numbers on every rank
    try:
        body(*arguments)
    finally:
        dist.destroy_process_group()


def in_processes(world: int, tmp_path: Path, body: Callable[..., None], *arguments: Any) -> None:
    """Run ``body(*arguments)`` on every rank of a group of processes; it asserts."""
    file = str(tmp_path / "rendezvous")
    torch.multiprocessing.spawn(_enter, (world, file, body, arguments), nprocs=world)


def network() -> nn.Module:
    torch.manual_seed(1)
    return dc.convert(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1),
            nn.Conv2d(6, 2, 3, 2, groups=2),
        )
    ).double()


def train(net: nn.Module, images: Tensor) -> None:
    """Two steps; the loss is the mean over samples, as data parallelism has it."""
    optimiser = torch.optim.AdamW(net.parameters(), 1e-2)
    for _ in range(2):
        optimiser.zero_grad()
        net(images).square().mean().backward()
        optimiser.step()


def assert_equal_parameters(actual: list[Tensor], expected: nn.Module) -> None:
    for ours, exact in zip(actual, expected.parameters(), strict=True):
        assert relative_error(ours.detach(), exact.detach()) < 1e-9


def _data_parallel(kind: str) -> None:
    images = torch.randn(4, 3, 10, 12, dtype=torch.float64)
    alone = network()
    train(alone, images)
    mine = images.chunk(dist.get_world_size())[dist.get_rank()]
    net = network()
    if kind == "ddp":
        parallel = nn.parallel.DistributedDataParallel(net)
        train(parallel, mine)
        assert_equal_parameters(list(net.parameters()), alone)
    else:
        from torch.distributed.fsdp import fully_shard

        for layer in net:
            fully_shard(layer)
        fully_shard(net)
        train(net, mine)
        assert isinstance(net[0], dc.DilatedConv2d)
        assert_equal_parameters([p.full_tensor() for p in net.parameters()], alone)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_data_parallel_training(kind: str, tmp_path: Path) -> None:
    """The same parameters as one process has after the whole batch."""
    in_processes(2, tmp_path, _data_parallel, kind)


def _dtensor() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Partial, Replicate, Shard, distribute_tensor
    from torch.distributed.tensor.debug import CommDebugMode

    mesh = init_device_mesh("cpu", (2,))
    x = torch.randn(4, 6, 9, 8, dtype=torch.float64)
    w = torch.randn(4, 6, 3, 3, dtype=torch.float64)
    bias = torch.randn(4, dtype=torch.float64)

    def check(placements: tuple[Any, ...], result: Any, with_bias: bool, stride: int) -> None:
        """Forward and backward, against one process; no communication in the forward."""
        tensors = [x, w, bias][: 2 + with_bias]
        leaves = [t.clone().requires_grad_() for t in tensors]
        shards = [
            distribute_tensor(t, mesh, [p]).requires_grad_()
            for t, p in zip(tensors, placements, strict=True)
        ]
        expected = dc.functional.conv2d(*leaves, stride=stride, dilation=2)
        with CommDebugMode() as comm:
            y = dc.functional.conv2d(*shards, stride=stride, dilation=2)
        assert comm.get_total_counts() == 0
        assert y.placements == (result,)
        assert relative_error(y.full_tensor().detach(), expected.detach()) < 1e-12
        g = torch.ones_like(expected)
        expected.backward(g)
        y.full_tensor().backward(g)
        for shard, leaf in zip(shards, leaves, strict=True):
            assert relative_error(shard.grad.full_tensor(), leaf.grad) < 1e-12

    whole = Replicate()
    for stride in (1, 2):  # the second stride must not get the first one's remembered sizes
        check((Shard(0), whole, whole), Shard(0), True, stride)
        check((whole, Shard(0), Shard(0)), Shard(1), True, stride)
    check((Shard(1), Shard(1)), Partial(), False, 1)

    # The gradients of a sharded batch: the input's stays sharded, the weight's is a partial sum.
    xs = distribute_tensor(x, mesh, [Shard(0)]).requires_grad_()
    ws = distribute_tensor(w, mesh, [whole]).requires_grad_()
    with CommDebugMode() as comm:
        y = dc.functional.conv2d(xs, ws, padding=1)
        gx, gw = torch.autograd.grad(y, (xs, ws), torch.ones_like(y))
    assert comm.get_total_counts() == 0
    assert gx.placements == (Shard(0),)
    assert gw.placements == (Partial(),)


@pytest.mark.slow
def test_dtensor_needs_no_communication(tmp_path: Path) -> None:
    in_processes(2, tmp_path, _dtensor)


def _few_channels() -> None:
    """5 channels over 4 ranks leave the last with none: written, read, and of transposed layers."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (4,))
    whole = Replicate()
    for function, x, w, placements in (
        (dc.functional.conv2d, _randn(2, 3, 7, 7), _randn(5, 3, 3, 3), (whole, Shard(0))),
        (dc.functional.conv2d, _randn(2, 5, 7, 7), _randn(4, 5, 3, 3), (Shard(1), Shard(1))),
        (dc.functional.conv_transpose2d, _randn(2, 3, 7, 7), _randn(3, 5, 3, 3), (whole, Shard(1))),
    ):
        leaves = [t.clone().requires_grad_() for t in (x, w)]
        pairs = zip((x, w), placements, strict=True)
        shards = [distribute_tensor(t, mesh, [p]).requires_grad_() for t, p in pairs]
        expected, y = function(*leaves), function(*shards).full_tensor()
        assert relative_error(y.detach(), expected.detach()) < 1e-12
        expected.square().sum().backward()
        y.square().sum().backward()
        for shard, leaf in zip(shards, leaves, strict=True):
            assert relative_error(shard.grad.full_tensor(), leaf.grad) < 1e-12


@pytest.mark.slow
def test_dtensor_with_fewer_channels_than_shares(tmp_path: Path) -> None:
    in_processes(4, tmp_path, _few_channels)


# (rows of the image, kernel, stride, padding, dilation, groups, dim, rows per rank or None)
SPATIAL: list[tuple[Any, ...]] = [
    ((16, 9), (3, 3), 1, 1, 1, 1, -2, None),
    ((17, 9), (3, 3), 1, "same", (4, 2), 2, -2, None),
    ((16, 9), (3, 3), 1, "same", (7, 1), 1, -2, None),  # the halo is longer than a slab
    ((19, 9), (3, 2), 2, (3, 0), (2, 1), 1, -2, None),
    ((19, 9), (4, 3), (3, 1), "same_upper", 1, 1, -2, None),
    ((16, 8), (3, 3), 1, 0, (5, 1), 1, -2, None),  # some ranks have no output
    ((9, 21), (3, 5), (1, 2), (1, 2, 5, 3), (1, 2), 1, -1, None),
    ((16, 9), (3, 3), 2, 1, 1, 1, -2, "uneven"),
    ((12, 5), (1, 1), 1, 0, 1, 1, -2, None),
    ((8, 5), (3, 3), 1, (9, 1), 1, 1, -2, None),  # whole outputs in the padding
]


# The same in 1-D: (samples, kernel, stride, padding, dilation, groups, samples per rank or None)
LINES: list[tuple[Any, ...]] = [
    (40, 3, 1, (8, 0), 4, 1, None),  # causal
    (41, 5, 1, "same", 9, 2, None),  # the halo is longer than a part
    (37, 4, (3,), "same_lower", (2,), 1, None),
    (32, 8, 4, 2, 1, 1, "uneven"),
    (9, 1, 1, 0, 1, 1, None),
]

# Transposed: as SPATIAL, with output_padding after padding; 1-D where the size is a number
TRANSPOSED: list[tuple[Any, ...]] = [
    ((9, 5), (3, 3), 2, 1, 1, 1, 1, -2, None),
    ((8, 5), (3, 2), (3, 1), (2, 0, 1, 0), 0, (2, 1), 2, -2, None),
    ((8, 5), (2, 2), 3, "same_upper", 0, 1, 1, -2, None),  # rows that no tap reaches
    ((5, 9), (3, 3), (1, 2), 0, (0, 1), (1, 5), 1, -1, None),  # the halo is longer than a slab
    ((8, 5), (3, 3), 1, (7, 2), 0, (4, 1), 1, -2, None),  # some ranks have no output
    ((9, 5), (4, 4), 2, 1, 0, 1, 1, -2, "uneven"),
    ((8, 5), (1, 1), 1, 0, 0, 1, 1, -2, None),
    (11, 8, 4, 2, 0, 1, 1, -1, None),
    (12, 3, (2,), (0, 3), 1, (2,), 2, -1, "uneven"),
    (9, 7, 5, "same_lower", 0, 1, 1, -1, None),
]


def slabs(size: int, kind: str | None) -> list[int]:
    world = dist.get_world_size()
    if kind is None or world == 1:
        return [len(part) for part in torch.arange(size).tensor_split(world)]
    return [0, *[1] * (world - 2), size - (world - 2)]


def _against_one_process(
    name: str,
    tensors: tuple[Tensor, Tensor, Tensor],
    options: dict[str, Any],
    sizes: list[int],
    dim: int,
) -> None:
    """Values, first and second derivatives of a function of ``distributed``."""
    from dilconv_ext import distributed

    x, w, bias = tensors
    spread = getattr(distributed, name)
    where = {"dim": dim} if name.endswith("2d") else {}
    leaves = [t.clone().requires_grad_() for t in tensors]
    mine = x.split(sizes, dim)[dist.get_rank()]
    ours = [t.clone().requires_grad_() for t in (mine, w, bias)]
    expected = getattr(dc.functional, name)(*leaves, **options)
    y = spread(*ours, **where, **options)
    known = spread(*ours, sizes=sizes, **where, **options)
    assert torch.equal(y, known)
    what = (name, x.shape, w.shape, options)
    assert relative_error(distributed.gather(y, dim), expected.detach()) < 1e-12, what
    # A loss that is not linear, so that the gradients depend on where a value went.
    first = torch.autograd.grad(expected.pow(3).sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
    # The ranks' losses add up; the replicated gradients must be counted once.
    our_first = torch.autograd.grad(y.pow(3).sum(), ours, create_graph=True)
    share = our_first[0].square().sum() + sum(g.square().sum() for g in our_first[1:])
    our_second = torch.autograd.grad(share, ours)
    for actual, exact in ((our_first, first), (our_second, second)):
        whole = distributed.gather(actual[0], dim)
        assert relative_error(whole, exact[0].detach()) < 1e-10, what
        for a, e in zip(actual[1:], exact[1:], strict=True):
            assert relative_error(a.detach(), e.detach()) < 1e-10, what


def _randn(*size: int) -> Tensor:
    return torch.randn(size, dtype=torch.float64)


def _spatial() -> None:
    for size, kernel, stride, padding, dilation, groups, dim, kind in SPATIAL:
        tensors = (_randn(2, 4, *size), _randn(6, 4 // groups, *kernel), _randn(6))
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        _against_one_process("conv2d", tensors, options, slabs(size[dim], kind), dim)
    for length, kernel, stride, padding, dilation, groups, kind in LINES:
        tensors = (_randn(2, 4, length), _randn(6, 4 // groups, kernel), _randn(6))
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        _against_one_process("conv1d", tensors, options, slabs(length, kind), -1)


def _spatial_transposed() -> None:
    for size, kernel, stride, padding, extra, dilation, groups, dim, kind in TRANSPOSED:
        line = isinstance(size, int)
        lengths, taps = ((size,), (kernel,)) if line else (size, kernel)
        tensors = (_randn(2, 4, *lengths), _randn(4, 6 // groups, *taps), _randn(6))
        options = {"stride": stride, "padding": padding, "output_padding": extra}
        options |= {"dilation": dilation, "groups": groups}
        name = "conv_transpose1d" if line else "conv_transpose2d"
        _against_one_process(name, tensors, options, slabs(lengths[dim], kind), dim)


def _image_network(dilated: dict[str, Any]) -> nn.Module:
    return nn.Sequential(
        dilated["Conv2d"](3, 8, 3, padding=1),
        nn.ReLU(),
        dilated["Conv2d"](8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        dilated["ConvTranspose2d"](8, 6, 3, stride=2, padding=1),
        dilated["Conv2d"](6, 4, 3, padding="same", dilation=4, bias=False),
    )


def _audio_network(dilated: dict[str, Any]) -> nn.Module:
    return nn.Sequential(
        dilated["Conv1d"](3, 8, 8, stride=4, padding=2),
        nn.ReLU(),
        dilated["Conv1d"](8, 8, 3, padding=(18, 0), dilation=9),
        nn.ReLU(),
        dilated["ConvTranspose1d"](8, 4, 8, stride=4, padding=2),
    )


def _spatial_network() -> None:
    """Layers follow one another, and every rank ends with the parameters of one process."""
    from dilconv_ext import distributed

    kinds = ("Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d")
    alone_layers = {kind: getattr(dc, f"Dilated{kind}") for kind in kinds}
    spread_layers = {kind: getattr(distributed, f"Spatial{kind}") for kind in kinds}
    image = channels_last(_randn(1, 3, 33, 20))
    for build, x, dim in ((_image_network, image, -2), (_audio_network, _randn(2, 3, 80), -1)):
        torch.manual_seed(2)
        alone, spread = build(alone_layers).double(), build(spread_layers).double()
        spread.load_state_dict(alone.state_dict())
        for net, part in ((alone, x), (spread, distributed.shard(x, dim))):
            optimiser = torch.optim.SGD(net.parameters(), 1e-3)
            for _ in range(2):
                optimiser.zero_grad()
                y = net(part)
                y.square().sum().backward()
                optimiser.step()
        assert y.is_contiguous(memory_format=torch.channels_last) == (dim == -2)
        assert_equal_parameters(list(spread.parameters()), alone)


def _output_size() -> None:
    """Which of the sizes, of the whole: the ranks' parts alone would not tell."""
    from dilconv_ext import distributed

    x = _randn(1, 2, 9)
    alone = dc.DilatedConvTranspose1d(2, 3, 3, 2, 1).double()
    spread = distributed.SpatialConvTranspose1d(2, 3, 3, 2, 1).double()
    spread.load_state_dict(alone.state_dict())
    for length in (17, 18):
        y = distributed.gather(spread(distributed.shard(x, -1), [length]), -1)
        assert relative_error(y, alone(x, [length]).detach()) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("body", [_spatial, _spatial_transposed, _output_size])
def test_images_over_processes(body: Callable[[], None], world: int, tmp_path: Path) -> None:
    in_processes(world, tmp_path, body)


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_a_network_over_processes(world: int, tmp_path: Path) -> None:
    in_processes(world, tmp_path, _spatial_network)


def test_one_process_is_a_group_too(tmp_path: Path) -> None:
    """The same code in one process, without a second one to talk to."""
    from dilconv_ext import distributed

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/one", rank=0, world_size=1)
    try:
        _spatial_network()
        _spatial_transposed()
        with pytest.raises(ValueError, match="dim must be -2"):
            distributed.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1), dim=0)
        with pytest.raises(ValueError, match="padding_mode must be 'zeros'"):
            distributed.SpatialConv2d(1, 1, 3, padding_mode="reflect")
        with pytest.raises(RuntimeError, match="output size along the split axis is -1"):
            distributed.conv_transpose1d(torch.ones(1, 1, 1), torch.ones(1, 1, 1), padding=1)
        with pytest.raises(RuntimeError, match="Kernel size 5 can't be greater"):
            distributed.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3), dilation=(2, 1))
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_torchrun_example() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(EXAMPLE), "--quick"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same as one process" in done.stdout
