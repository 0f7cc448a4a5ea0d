"""The kernel matrix: where it runs, and what its instructions do that others do not."""

from __future__ import annotations

import pytest
import torch

import dilconv_ext as dc
from calls import make_call
from dilconv_ext import _C
from problems import Problem, channels_last, make_tensors

NATIVE = [isa for isa in _C.isas() if isa in ("amx", "avx512_bf16")]
OTHERS = [isa for isa in _C.isas() if isa not in NATIVE]
POINTWISE = Problem("pointwise", 2, 24, 40, (9, 7), (1, 1))


@pytest.mark.parametrize("isa", OTHERS)
def test_it_needs_products_of_bfloat16(isa: str) -> None:
    call = make_call("conv2d", POINTWISE, make_tensors(POINTWISE, torch.bfloat16))
    assert "no products of bfloat16" in str(call.refusals(isa)["matrix"])


@pytest.mark.parametrize("isa", NATIVE)
def test_it_is_preferred_to_widening(isa: str) -> None:
    call = make_call("conv2d", POINTWISE, make_tensors(POINTWISE, torch.bfloat16))
    assert call.selected(isa) == "matrix"


@pytest.mark.parametrize("isa", NATIVE)
def test_it_declines_where_most_products_would_be_of_zeros(isa: str) -> None:
    first = Problem("first_layer", 1, 3, 20, (8, 64), (3, 3), padding=(1,) * 4)
    last = Problem("last_layer", 1, 64, 1, (8, 64), (3, 3), padding=(1,) * 4)
    for op, p in (("conv2d", first), ("conv2d", last), ("conv2d_grad_weight", last)):
        call = make_call(op, p, make_tensors(p, torch.bfloat16))
        tiles = isa == "amx"
        if op == "conv2d_grad_weight" or (p is first and tiles):
            expected = "direct"
        else:
            expected = "kn2row" if p is last and not tiles else "matrix"
        assert call.selected(isa) == expected
        assert call.refusals(isa)["matrix"] is None
    tensors = make_tensors(first, torch.bfloat16)
    assert make_call("conv2d_grad_weight", first, tensors).selected(isa) == "matrix"
    forward = make_call("conv2d", first, tensors)
    assert forward.map(channels_last).selected(isa) == "matrix"


@pytest.mark.parametrize("isa", [isa for isa in NATIVE if isa == "amx"])
def test_tiles_decline_few_products_of_few_read_channels(isa: str) -> None:
    pointwise = Problem("few_products", 2, 16, 16, (8, 64), (1, 1))
    first = Problem("first_layer", 2, 1, 32, (8, 64), (3, 3), padding=(1,) * 4)
    for op, p, kernel in (
        ("conv2d", pointwise, "direct"),
        ("conv2d_grad_input", first, "matrix"),
    ):
        assert make_call(op, p, make_tensors(p, torch.bfloat16)).selected(isa) == kernel


@pytest.mark.parametrize("isa", NATIVE)
def test_winograd_must_beat_native_products(isa: str) -> None:
    """Winograd's float32 products pay where they are few enough; here they are not."""
    x, w = torch.randn(1, 32, 33, 33), torch.randn(64, 32, 3, 3)
    wide = {"padding": 12, "dilation": 12, "isa": isa}
    assert _chosen(x, w, **wide) == "winograd"
    assert _chosen(x.bfloat16(), w.bfloat16(), **wide) == "matrix"


def _chosen(x: torch.Tensor, w: torch.Tensor, isa: str, **how: int) -> str:
    with dc.options(isa=isa):
        return dc.explain(x, w, **how).forward.kernel


@pytest.mark.parametrize("isa", NATIVE)
def test_subnormal_numbers_count_as_zero(isa: str) -> None:
    x = torch.full((1, 8, 4, 4), 2.0**-130, dtype=torch.bfloat16)
    w = torch.full((8, 8, 1, 1), 2.0**100, dtype=torch.bfloat16)
    with dc.options(kernel="matrix", isa=isa):
        assert dc.functional.conv2d(x, w).count_nonzero() == 0
        normal = dc.functional.conv2d(x * 2.0**10, w)
    assert (normal == 8 * 2.0**-20).all()
