"""The kernel grouped: which groups it takes, and when it is passed over."""

from __future__ import annotations

import pytest
import torch

from calls import OPS, make_call
from dilconv_ext import _C
from problems import Problem, channels_last, make_tensors

LONG_VECTORS = [isa for isa in _C.isas() if isa not in ("sse2", "generic")]
RESNEXT = Problem("resnext", 1, 32, 32, (14, 14), (3, 3), padding=(1,) * 4, groups=8)


@pytest.mark.parametrize("isa", LONG_VECTORS)
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_it_is_preferred_for_groups_of_four(dtype: torch.dtype, op: str, isa: str) -> None:
    call = make_call(op, RESNEXT, make_tensors(RESNEXT, dtype))
    native = isa == "avx512_bf16" and dtype == torch.bfloat16 and op != "conv2d_grad_weight"
    assert call.selected(isa) == ("matrix" if native else "grouped")
    assert call.map(channels_last).selected(isa) == "grouped"


@pytest.mark.parametrize(
    ("channels", "groups"), [((12, 12), 4), ((8, 16), 2), ((64, 64), 4), ((8, 8), 1)]
)
def test_it_refuses_other_groups(channels: tuple[int, int], groups: int) -> None:
    p = Problem("others", 1, *channels, (6, 6), (3, 3), groups=groups)
    call = make_call("conv2d", p, make_tensors(p, torch.float32))
    assert "a power of two" in str(call.refusals()["grouped"])


def test_it_declines_where_vectors_of_pixels_are_fuller() -> None:
    for p in (
        Problem("pointwise", 1, 32, 32, (14, 14), (1, 1), groups=8),
        Problem("few_channels", 1, 4, 4, (14, 14), (3, 3), groups=2),
    ):
        call = make_call("conv2d", p, make_tensors(p, torch.float32))
        assert call.selected() == "direct"
        assert call.map(channels_last).selected() == "grouped"
