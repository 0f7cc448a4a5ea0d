"""What is particular to the kernel winograd: when it runs, its switch, its error, inf and NaN."""

from __future__ import annotations

import pytest
import torch

import dilconv_ext as dc
from accuracy import WINOGRAD_FLOAT32, relative_error
from calls import OPS, make_call
from dilconv_ext import reference
from problems import Problem, channels_last, make_tensors

# Layers on which its tiles pay, and layers on which none does.
WINS = [
    Problem("vgg", 1, 64, 64, (28, 28), (3, 3), padding=(1, 1, 1, 1)),
    Problem("dilated", 1, 64, 64, (30, 30), (3, 3), padding=(3, 3, 3, 3), dilation=(3, 3)),
    Problem("three_per_phase", 1, 64, 64, (36, 36), (3, 3), padding=(12,) * 4, dilation=(12, 12)),
    Problem("five_by_five", 1, 64, 64, (40, 40), (5, 5), padding=(4,) * 4, dilation=(2, 2)),
    Problem("rows", 1, 64, 64, (32, 64), (1, 3), padding=(0, 0, 4, 4), dilation=(1, 4)),
    Problem("columns", 1, 64, 64, (64, 32), (3, 1), padding=(4, 4, 0, 0), dilation=(4, 1)),
    Problem("tcn", 2, 64, 64, (1000,), (3,), padding=(0, 0, 16, 0), dilation=(1, 8)),
    Problem("wavenet", 1, 64, 128, (4000,), (2,), padding=(0, 0, 64, 0), dilation=(1, 64)),
    Problem("five_taps", 2, 64, 64, (1000,), (5,), padding=(0, 0, 4, 4), dilation=(1, 2)),
    Problem("small_image", 1, 128, 128, (7, 7), (3, 3), padding=(1, 1, 1, 1)),
    Problem("seven_taps", 2, 64, 64, (1000,), (7,), padding=(0, 0, 9, 9), dilation=(1, 3)),
    Problem("seven_by_seven", 1, 64, 64, (28, 28), (7, 7), padding=(3, 3, 3, 3)),
    Problem("four_by_four", 1, 64, 64, (30, 30), (4, 4), padding=(1, 2, 1, 2)),
]
LOSES = [
    Problem("few_channels", 1, 3, 8, (64, 64), (3, 3), padding=(1, 1, 1, 1)),
    Problem("mostly_padding", 1, 64, 64, (33, 33), (3, 3), padding=(24,) * 4, dilation=(24, 24)),
]


@pytest.mark.parametrize("p", WINS, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_it_runs_where_it_pays_and_can_be_switched_off(op: str, p: Problem) -> None:
    call = make_call(op, p, make_tensors(p, torch.float32))
    assert call.selected() == "winograd"
    with dc.options(winograd=False):
        assert call.selected() == "direct"
        assert "winograd=0" in str(call.refusals()["winograd"])
    assert call.selected() == "winograd"


@pytest.mark.parametrize("p", LOSES, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_it_declines_where_it_does_not_pay(op: str, p: Problem) -> None:
    call = make_call(op, p, make_tensors(p, torch.float32))
    assert call.selected() == "direct"
    assert call.refusals()["winograd"] is None
    call.forced("winograd")


def test_it_declines_where_direct_takes_dot_products() -> None:
    p = Problem("few_outputs", 2, 64, 2, (32, 32), (5, 5), padding=(2,) * 4)
    call = make_call("conv2d", p, make_tensors(p, torch.float32)).map(channels_last)
    declined = {kernel: reason for kernel, _, reason, _ in call.verdicts()}
    assert "cost more" in str(declined["winograd"])


def test_explain_says_why_it_declines() -> None:
    x, w = torch.randn(1, 3, 64, 64), torch.randn(8, 3, 3, 3)
    reasons = dict(dc.explain(x, w).forward.refused)
    assert "cost more" in reasons["winograd"]
    with dc.options(kernel="winograd"):
        assert dc.explain(x, w).forward.kernel == "winograd"


@pytest.mark.parametrize(
    "kernel",
    [(3, 3), (4, 4), (5, 5), (7, 7), (1, 2), (1, 3), (1, 4), (1, 5), (1, 7), (3, 1), (3, 5)],
    ids=str,
)
@pytest.mark.parametrize("channels", [64, pytest.param(2048, marks=pytest.mark.slow)])
@pytest.mark.parametrize("op", OPS)
def test_error_bound(op: str, channels: int, kernel: tuple[int, int]) -> None:
    """The documented bound, also on long sums and on data that is not centred, as after a ReLU."""
    p = Problem("deep", 2, channels, 32, (26, 26), kernel, padding=(2,) * 4, dilation=(2, 2))
    tensors = make_tensors(p, torch.float32)
    for t in (tensors, tensors.map(torch.relu)):
        call = make_call(op, p, t)
        exact = call.map(lambda v: v.double()).run(reference)
        assert relative_error(call.forced("winograd"), exact) <= WINOGRAD_FLOAT32


def test_error_bound_of_a_sum_over_many_pixels() -> None:
    p = Problem("large", 4, 16, 16, (256, 256), (3, 3), padding=(1,) * 4)
    call = make_call("conv2d_grad_weight", p, make_tensors(p, torch.float32))
    exact = call.map(lambda v: v.double()).forced("direct")
    assert relative_error(call.forced("winograd"), exact) <= WINOGRAD_FLOAT32 / 3


def test_non_finite_values_stay_in_their_tile() -> None:
    """A NaN reaches no phase but its own, and there no more than the tiles that read it."""
    p = Problem("image", 1, 16, 16, (48, 48), (3, 3), padding=(2,) * 4, dilation=(2, 2))
    t = make_tensors(p, torch.float32)
    t.x[0, 3, 20, 20] = float("nan")
    bad = make_call("conv2d", p, t).forced("winograd").isnan()
    assert bad[0, :, 18:23:2, 18:23:2].all()
    assert not bad[0, :, 1::2, :].any()
    assert not bad[0, :, :, 1::2].any()
    assert bad[0, 0].sum() <= 8 * 8
