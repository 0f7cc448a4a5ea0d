"""The kernel kn2row: which layers it takes, and which it leaves to others."""

from __future__ import annotations

import pytest
import torch

from calls import Call, make_call
from dilconv_ext import _C
from problems import Problem, channels_last, make_tensors

FORMATS = pytest.mark.parametrize("to_format", [lambda t: t, channels_last], ids=["", "cl"])
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
# The head of a network, and a first layer whose input's gradient is asked for.
HEAD = Problem("head", 1, 64, 2, (20, 36), (3, 3), padding=(2,) * 4, dilation=(2, 2))
FIRST = Problem("first", 2, 3, 64, (32, 32), (5, 5), (2, 2), (2,) * 4)
WITHOUT_TILES = [isa for isa in _C.isas() if isa != "amx"]


@FORMATS
@DTYPES
@pytest.mark.parametrize("isa", WITHOUT_TILES)
def test_it_is_preferred_for_few_written_channels(dtype: torch.dtype, to_format, isa: str) -> None:
    for op, p in (("conv2d", HEAD), ("conv2d_grad_input", FIRST)):
        call = make_call(op, p, make_tensors(p, dtype).map(to_format))
        assert call.selected(isa) == "kn2row", call


@FORMATS
@DTYPES
@pytest.mark.parametrize(
    "p",
    [
        Problem("many_outputs", 1, 16, 16, (20, 36), (3, 3), padding=(1,) * 4),
        Problem("one_tap", 1, 64, 1, (20, 36), (1, 1)),
    ],
    ids=str,
)
def test_it_declines(p: Problem, dtype: torch.dtype, to_format) -> None:
    call = make_call("conv2d", p, make_tensors(p, dtype).map(to_format))
    assert _declined(call)


@DTYPES
def test_it_declines_what_is_padding_mostly(dtype: torch.dtype) -> None:
    """On channels_last: contiguous, padding costs others as much."""
    p = Problem("padding", 1, 16, 3, (20, 36), (3, 3), padding=(30,) * 4, dilation=(30, 30))
    assert _declined(make_call("conv2d", p, make_tensors(p, dtype).map(channels_last)))


def _declined(call: Call) -> str | None:
    return next(reason for kernel, _, reason, _ in call.verdicts() if kernel == "kn2row")


def test_it_refuses_strided_convolutions_and_weight_gradients() -> None:
    tensors = make_tensors(FIRST, torch.float32)
    assert "stride 1" in str(make_call("conv2d", FIRST, tensors).refusals()["kn2row"])
    gradient = make_call("conv2d_grad_weight", FIRST, tensors)
    assert "conv2d and grad_input" in str(gradient.refusals()["kn2row"])


@pytest.mark.skipif("amx" not in _C.isas(), reason="this CPU has no tiles")
def test_tiles_multiply_bfloat16_faster() -> None:
    call = make_call("conv2d", HEAD, make_tensors(HEAD, torch.bfloat16))
    assert call.selected("amx") == "matrix"
