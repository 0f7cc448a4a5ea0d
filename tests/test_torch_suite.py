"""What PyTorch's own tests of convolutions ask, beyond the samples that test_opinfo.py runs.

The cases are those of test/nn/test_convolution.py that concern these modules on the CPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dilconv_ext as dc
from accuracy import assert_agrees

C1, C2 = dc.DilatedConv1d, dc.DilatedConv2d
T1, T2 = dc.DilatedConvTranspose1d, dc.DilatedConvTranspose2d
PEERS: dict[type[nn.Module], type[nn.Module]] = {
    C1: nn.Conv1d,
    C2: nn.Conv2d,
    T1: nn.ConvTranspose1d,
    T2: nn.ConvTranspose2d,
}
DTYPES = [torch.half, torch.bfloat16, torch.float, torch.double, torch.cfloat, torch.cdouble]

pytestmark = pytest.mark.filterwarnings("ignore:Complex modules are a new feature")

# (module, constructor arguments, named ones, input size, torch's words as a pattern)
BAD_CALLS: list[tuple[Any, tuple[int, ...], dict[str, Any], tuple[int, ...], str]] = [
    (
        C1,
        (3, 33, 10),
        {},
        (1, 3, 4),
        r"Calculated padded input size per channel: \(4\). Kernel size: \(10\). "
        "Kernel size can't be greater than actual input size",
    ),
    (
        C2,
        (3, 33, 10),
        {},
        (1, 3, 1, 1),
        r"Calculated padded input size per channel: \(1 x 1\). Kernel size: \(10 x 10\). "
        "Kernel size can't be greater than actual input size",
    ),
    (C2, (1, 1, 3, 2), {"dilation": 2}, (1, 1, 4, 4), "Kernel size can't be greater"),
    (C1, (3, 6, 3, -1), {}, (1, 3, 4), "non-positive stride is not supported"),
    (C1, (3, 6, 3, 0), {}, (1, 3, 4), "non-positive stride is not supported"),
    (C2, (3, 6, 4, -1), {}, (1, 3, 4, 4), "non-positive stride is not supported"),
    (C2, (3, 6, 4, 0), {}, (1, 3, 4, 4), "non-positive stride is not supported"),
    (C1, (3, 6, 3), {"padding": -1}, (1, 3, 4), "negative padding is not supported"),
    (C2, (3, 6, 3), {"padding": (-1, 0)}, (1, 3, 4, 4), "negative padding is not supported"),
    (T1, (3, 6, 3), {"padding": -1}, (1, 3, 4), "negative padding is not supported"),
    (
        C2,
        (1, 6, 5),
        {},
        (1, 10, 1, 28, 28),
        r"Expected 3D \(unbatched\) or 4D \(batched\) input to conv2d, but got input of size: "
        r"\[1, 10, 1, 28, 28\]",
    ),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("module", "args", "kwargs", "size", "words"), BAD_CALLS)
def test_bad_calls(
    module: Any,
    args: tuple[int, ...],
    kwargs: dict[str, Any],
    size: tuple[int, ...],
    words: str,
    dtype: torch.dtype,
) -> None:
    with pytest.raises(RuntimeError, match=words):
        module(*args, **kwargs).to(dtype)(torch.randn(size).to(dtype))


# (how a layer of a class is made, torch's words)
BAD_LAYERS: list[tuple[Callable[[Any], nn.Module], str]] = [
    (lambda c: c(1, 1, 3, groups=0), "groups must be a positive integer"),
    (lambda c: c(1, 1, 3, groups=-1), "groups must be a positive integer"),
    (lambda c: c(3, 6, 3, groups=2), "in_channels must be divisible by groups"),
    (lambda c: c(4, 5, 3, groups=2), "out_channels must be divisible by groups"),
]
BAD_PADDINGS: list[tuple[Callable[[Any], nn.Module], str]] = [
    (lambda c: c(3, 3, 3, padding="foo"), "Invalid padding string"),
    (lambda c: c(3, 3, 3, 2, padding="same"), "padding='same' is not supported for strided"),
    (lambda c: c(3, 3, 3, padding_mode="foo"), "padding_mode must be one of"),
]


@pytest.mark.parametrize(
    ("module", "build", "words"),
    [(module, *case) for module in PEERS for case in BAD_LAYERS]
    + [(module, *case) for module in (C1, C2) for case in BAD_PADDINGS],
)
def test_bad_layers(module: Any, build: Callable[[Any], nn.Module], words: str) -> None:
    for kind in (module, PEERS[module]):
        with pytest.raises(ValueError, match=words):
            build(kind)


def test_output_sizes_around_the_valid_ones() -> None:
    """Each size that a stride of 3 could have come from, and no other."""
    layer, x = T2(3, 4, 3, 3, 0, 2), torch.randn(2, 3, 6, 6)
    for size in itertools.product(range(15, 22), repeat=2):
        if all(18 <= n <= 20 for n in size):
            assert layer(x, output_size=size).shape == (2, 4, *size)
            assert layer(x, output_size=torch.Size((2, 4, *size))).shape == (2, 4, *size)
        else:
            with pytest.raises(ValueError, match="valid sizes range from"):
                layer(x, output_size=size)


def test_a_transposed_layer_undoes_the_size() -> None:
    for h, w, kernel, stride, dilation in itertools.product(
        (5, 8), (6, 9), (1, 2, 3), (1, 2, 3), (1, 2)
    ):
        x = torch.randn(2, 3, h, w)
        small = C2(3, 3, kernel, stride, 1, dilation)(x)
        layer = T2(3, 3, kernel, stride, 1, dilation=dilation)
        assert layer(small, output_size=x.shape).shape == x.shape


def gradients(f: Callable[..., Tensor], *tensors: Tensor) -> list[Tensor]:
    """The output and the gradient of each tensor."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    y = f(*leaves)
    return [y, *torch.autograd.grad(y, leaves, torch.ones_like(y))]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("module", PEERS)
def test_empty_batches_have_gradients(module: Any, groups: int) -> None:
    """Those of the parameters are zero, not missing."""
    axes = 2 if module in (C2, T2) else 1
    layer, peer = module(4, 8, 3, groups=groups), PEERS[module](4, 8, 3, groups=groups)
    x = torch.randn(0, 4, *(9,) * axes, requires_grad=True)
    for net in (layer, peer):
        y = net(x)
        found = torch.autograd.grad(y.sum(), [x, *net.parameters()])
        assert y.shape == (0, 8, *((7,) if module in (C1, C2) else (11,)) * axes)
        assert not any(g.any() for g in found)


@pytest.mark.parametrize("dtype", [torch.float, torch.cfloat], ids=str)
def test_a_weight_of_every_other_column(dtype: torch.dtype) -> None:
    """Sums of exact binary fractions: the number is the same in any order of addition."""
    weight = torch.arange(0, 1, 2**-10).reshape(32, 16, 1, 2).to(dtype)[:, :, :, ::2]
    y = dc.functional.conv2d(torch.ones(64, 16, 16, 16, dtype=dtype), weight)
    assert y.sum() == 4186112


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_groups_are_layers_side_by_side(groups: int, multiplier: int) -> None:
    """Also of channels that are a slice of a wider image's."""
    wide = torch.randn(2, 9, 7, 7, dtype=torch.double)
    weight = torch.randn(8 * multiplier, 8 // groups, 3, 3, dtype=torch.double)

    def together(x: Tensor, w: Tensor) -> Tensor:
        return dc.functional.conv2d(x[:, 1:], w, groups=groups)

    def apart(x: Tensor, w: Tensor) -> Tensor:
        parts = zip(x[:, 1:].chunk(groups, 1), w.chunk(groups), strict=True)
        return torch.cat([F.conv2d(a, b) for a, b in parts], 1)

    for actual, expected in zip(
        gradients(together, wide, weight), gradients(apart, wide, weight), strict=True
    ):
        assert_agrees(actual, expected)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (4, 1), (5, 2), (4, 3)])
@pytest.mark.parametrize("module", [C1, C2])
def test_padding_strings(module: Any, kernel: int, dilation: int, padding: str, mode: str) -> None:
    x = torch.randn(2, 2, *(12, 11)[: 2 if module is C2 else 1], dtype=torch.double)
    options = {"padding": padding, "dilation": dilation, "padding_mode": mode}
    layer = module(2, 3, kernel, **options).double()
    peer = PEERS[module](2, 3, kernel, **options).double()
    peer.load_state_dict(layer.state_dict())
    for actual, expected in zip(gradients(layer, x), gradients(peer, x), strict=True):
        assert_agrees(actual, expected)
