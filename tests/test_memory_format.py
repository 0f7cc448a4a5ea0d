"""The memory format of every result is the one torch's function gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import dilconv_ext as dc
from calls import OPS, make_call
from problems import PROBLEMS, Problem, channels_last, make_tensors

FORMATS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda t: t.contiguous(),
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    # Strides that say neither: torch goes by what they look like most.
    "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
    "permuted": lambda t: t.permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3),
    "sliced": lambda t: torch.cat([t, t], -1)[..., : t.size(-1)],
    "expanded": lambda t: t[:1].expand(t.shape),
}
SHAPES = {  # (input, weight, groups)
    "3x3": ((2, 4, 8, 9), (6, 4, 3, 3), 1),
    "1x1": ((2, 4, 8, 9), (6, 4, 1, 1), 1),
    "1x3": ((2, 4, 8, 9), (6, 4, 1, 3), 1),
    "depthwise": ((2, 4, 8, 9), (4, 1, 3, 3), 4),
    "one channel in": ((2, 1, 8, 9), (6, 1, 3, 3), 1),
    "one channel out": ((2, 4, 8, 9), (1, 4, 3, 3), 1),
    "one channel": ((2, 1, 8, 9), (1, 1, 3, 3), 1),
    "one pixel out": ((2, 4, 3, 3), (6, 4, 3, 3), 1),
    "one pixel": ((2, 4, 1, 1), (6, 4, 1, 1), 1),
    "empty batch": ((0, 4, 8, 9), (6, 4, 3, 3), 1),
    "single sample": ((1, 4, 8, 9), (6, 4, 3, 3), 1),
}


def layout(t: Tensor) -> tuple[bool, bool, tuple[int, ...]]:
    """What one can ask about a tensor's format, its strides included."""
    channels = t.dim() == 4 and t.is_contiguous(memory_format=torch.channels_last)
    return t.is_contiguous(), channels, t.stride()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("w_format", FORMATS)
@pytest.mark.parametrize("x_format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_have_torchs_format(
    shape: str, x_format: str, w_format: str, dtype: torch.dtype
) -> None:
    x_shape, w_shape, groups = SHAPES[shape]
    x = FORMATS[x_format](torch.ones(x_shape, dtype=dtype))
    w = FORMATS[w_format](torch.ones(w_shape, dtype=dtype))
    for dilation in (1, 2) if x_shape[2] > 6 else (1,):
        ours = dc.functional.conv2d(x, w, dilation=dilation, groups=groups)
        theirs = F.conv2d(x, w, dilation=dilation, groups=groups)
        assert layout(ours) == layout(theirs), f"dilation {dilation}"


@pytest.mark.parametrize("w_format", ["contiguous", "channels_last"])
@pytest.mark.parametrize("x_format", FORMATS)
@pytest.mark.parametrize("kernel", [(3, 3), (1, 1)], ids=str)
@pytest.mark.parametrize("function", ["conv2d", "conv_transpose2d"])
def test_unbatched_outputs_have_torchs_format(
    function: str, kernel: tuple[int, int], x_format: str, w_format: str
) -> None:
    """A sample of a channels_last batch stays channels-innermost."""
    x = FORMATS[x_format](torch.ones(2, 4, 8, 9))[1]
    w = FORMATS[w_format](torch.ones(4, 4, *kernel))
    ours, theirs = getattr(dc.functional, function)(x, w), getattr(F, function)(x, w)
    assert layout(ours) == layout(theirs)


@pytest.mark.parametrize("w_format", ["contiguous", "channels_last"])
@pytest.mark.parametrize("x_format", FORMATS)
def test_1d_outputs_have_torchs_format(x_format: str, w_format: str) -> None:
    x = FORMATS[x_format](torch.ones(2, 4, 8, 9))[:, :, 0]
    w = FORMATS[w_format](torch.ones(6, 4, 3, 3))[:, :, 0]
    for sample in (x, x[0]):
        ours, theirs = dc.functional.conv1d(sample, w), F.conv1d(sample, w)
        assert layout(ours) == layout(theirs)


@pytest.mark.parametrize("w_format", FORMATS)
@pytest.mark.parametrize("x_format", FORMATS)
@pytest.mark.parametrize("kernel", [(3, 3), (1, 1)], ids=str)
def test_transposed_outputs_have_torchs_format(
    kernel: tuple[int, int], x_format: str, w_format: str
) -> None:
    x = FORMATS[x_format](torch.ones(2, 4, 8, 9))
    w = FORMATS[w_format](torch.ones(4, 6, *kernel))
    ours, theirs = dc.functional.conv_transpose2d(x, w), F.conv_transpose2d(x, w)
    assert layout(ours) == layout(theirs)


@pytest.mark.parametrize("w_format", ["contiguous", "channels_last"])
@pytest.mark.parametrize("x_format", ["contiguous", "channels_last"])
@pytest.mark.parametrize("kernel", [3, 1])
def test_a_channels_last_network_stays_so(kernel: int, x_format: str, w_format: str) -> None:
    """Gradients too come in torch's format: no layer and no optimiser converts anything."""
    results = []
    for f in (dc.functional.conv2d, F.conv2d):
        x = FORMATS[x_format](torch.ones(2, 4, 8, 9)).requires_grad_()
        w = FORMATS[w_format](torch.ones(6, 4, kernel, kernel)).requires_grad_()
        y = f(x, w)
        dx, dw = torch.autograd.grad(y, (x, w), torch.ones_like(y))
        # A stride along an axis of size 1 says nothing: torch's 1 × 1 gradients differ in it.
        results.append([layout(t)[:2] for t in (y, dx, dw)])
    assert results[0] == results[1]


@pytest.mark.parametrize("p", [p for p in PROBLEMS if not p.slow], ids=str)
def test_every_format_gives_the_same_values(p: Problem) -> None:
    """For all pairs of formats of the two tensors of each op; NaN marks what was not written."""
    t = make_tensors(p, torch.float64)
    for op in OPS:
        expected = make_call(op, p, t, bias=True).run()
        for mixed in (
            t.map(channels_last),
            t.map(lambda v: channels_last(v) if v.dim() > 3 else v),
        ):
            actual = make_call(op, p, mixed, bias=True).run()
            torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
        for a_last, b_last in ((True, False), (False, True)):
            call = make_call(op, p, t, bias=True)
            a = channels_last(call.a) if a_last else call.a
            b = channels_last(call.b) if b_last else call.b
            actual = type(call)(op, a, b, call.size, call.bias, call.params).run()
            torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
