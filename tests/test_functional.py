"""The public functions: torch's, the extra padding forms, and the corr2d family."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from accuracy import assert_agrees
from dilconv_ext import functional as DF
from problems import PROBLEMS, Problem, make_tensors

X = torch.tensor([[[0, 1, 2], [3, 4, 5], [6, 7, 8]], [[1, 2, 3], [4, 5, 6], [7, 8, 9]]])
K = torch.tensor([[[0, 1], [2, 3]], [[1, 2], [3, 4]]])
ALL_DTYPES = (
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
)


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_corr2d_worked_examples(dtype: torch.dtype) -> None:
    """The field's classic numbers, exactly, in the dtype that went in."""
    x, k = X.to(dtype), K.to(dtype)

    def assert_is(actual: Tensor, expected: list[Any]) -> None:
        assert torch.equal(actual, torch.tensor(expected).to(dtype))
        assert actual.dtype == dtype

    assert_is(DF.corr2d(x[0], k[0]), [[19, 25], [37, 43]])
    assert_is(DF.corr2d_multi_in(x, k), [[56, 72], [104, 120]])
    stack = torch.stack((k, k + 1, k + 2))
    assert_is(
        DF.corr2d_multi_in_out(x, stack),
        [[[56, 72], [104, 120]], [[76, 100], [148, 172]], [[96, 128], [192, 224]]],
    )
    assert_is(DF.corr2d_multi_in(x, k, dilation=2), [[102]])


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.int32], ids=str)
def test_corr2d_1x1_is_a_matrix_product(dtype: torch.dtype) -> None:
    x = torch.randint(-9, 9, (3, 4, 5)).to(dtype)
    k = torch.randint(-9, 9, (6, 3, 1, 1)).to(dtype)
    y = DF.corr2d_multi_in_out_1x1(x, k)
    assert torch.equal(y, DF.corr2d_multi_in_out(x, k))
    assert torch.equal(y, (k.view(6, 3) @ x.view(3, 20)).view(6, 4, 5))


def test_corr2d_family_is_one_thing() -> None:
    """Each function is F.conv2d with axes removed, dilation included; and each differentiates."""
    x = torch.randn(3, 9, 8, dtype=torch.float64, requires_grad=True)
    k = torch.randn(4, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    for dilation in (1, 2, (3, 2)):
        expected = F.conv2d(x.unsqueeze(0), k, dilation=dilation)[0]
        full = DF.corr2d_multi_in_out(x, k, dilation)
        assert_agrees(full, expected)
        assert_agrees(DF.corr2d_multi_in(x, k[1], dilation=dilation), expected[1])
        single = DF.corr2d(x[0], k[0, 0], dilation=dilation)
        assert_agrees(single, F.conv2d(x[:1], k[:1, :1], dilation=dilation)[0])
    assert torch.autograd.gradcheck(DF.corr2d_multi_in, (x[:, :4, :4], k[0]))


@pytest.mark.parametrize(
    ("f", "shapes"),
    [
        (DF.corr2d, [(3, 3, 3), (2, 2)]),
        (DF.corr2d, [(3, 3), (2, 2, 2)]),
        (DF.corr2d_multi_in, [(3, 3), (2, 2)]),
        (DF.corr2d_multi_in, [(2, 3, 3), (3, 2, 2)]),
        (DF.corr2d_multi_in_out, [(2, 3, 3), (2, 2, 2)]),
        (DF.corr2d_multi_in_out_1x1, [(2, 3, 3), (4, 2, 2, 2)]),
        (DF.corr2d_multi_in_out_1x1, [(2, 3, 3), (4, 3, 1, 1)]),
        (DF.conv1x1, [(1, 2, 3, 3), (4, 2, 2, 2)]),
        (DF.conv1x1, [(1, 2, 3, 3), (4, 3)]),
        (DF.conv1x1, [(1, 2, 3, 3), (2,)]),
    ],
)
def test_corr2d_rejects_wrong_shapes(
    f: Callable[..., Tensor], shapes: list[tuple[int, ...]]
) -> None:
    """The message shows one of the offending shapes."""
    with pytest.raises(RuntimeError) as error:
        f(*(torch.ones(s) for s in shapes))
    assert any(str(list(s)) in str(error.value) for s in shapes), error.value


def test_conv1x1() -> None:
    x = torch.randn(2, 5, 4, 3, dtype=torch.float64)
    w, b = torch.randn(7, 5, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    for bias in (None, b):
        expected = F.conv2d(x, w[:, :, None, None], bias)
        assert_agrees(DF.conv1x1(x, w, bias), expected)
        assert_agrees(DF.conv1x1(x, w[:, :, None, None], bias), expected)
        assert_agrees(DF.conv1x1(x[0], w, bias=bias), expected[0])


CALLABLE_PROBLEMS = [p for p in PROBLEMS if min(p.padding) >= 0 and not p.slow]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.complex128], ids=str)
@pytest.mark.parametrize("p", CALLABLE_PROBLEMS, ids=str)
def test_four_pads_equal_pad_and_convolve(p: Problem, dtype: torch.dtype) -> None:
    """A (top, bottom, left, right) padding is F.pad followed by torch's function."""
    t = make_tensors(p, dtype)
    top, bottom, left, right = p.padding
    s, d = p.stride[-p.rank :], p.dilation[-p.rank :]
    if p.rank == 2:
        actual = DF.conv2d(t.x, t.w, t.bias, s, p.padding, d, p.groups)
        expected = F.conv2d(F.pad(t.x, (left, right, top, bottom)), t.w, t.bias, s, 0, d, p.groups)
    else:
        actual = DF.conv1d(t.x, t.w, t.bias, s, (left, right), d, p.groups)
        expected = F.conv1d(F.pad(t.x, (left, right)), t.w, t.bias, s, 0, d, p.groups)
    assert_agrees(actual, expected)


FORMS_2D: list[dict[str, Any]] = [
    {},
    {"padding": 1},
    {"padding": (2,)},
    {"padding": [1, 2]},
    {"padding": torch.Size([2, 0])},
    {"padding": "valid"},
    {"padding": "same"},
    {"padding": "same", "dilation": (2, 3)},
    {"padding": "valid", "stride": 2},
    {"stride": [2], "dilation": (1, 2), "padding": (0, 3)},
    {"stride": 2**31 - 1, "padding": 1},
    {"stride": (2, 1), "groups": 2, "padding": 2},
]


@pytest.mark.parametrize("kwargs", FORMS_2D, ids=str)
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (1, 1)], ids=str)
@pytest.mark.parametrize("batch", [(2,), ()], ids=["batched", "unbatched"])
def test_conv2d_takes_what_torch_takes(
    batch: tuple[int, ...], kernel: tuple[int, int], kwargs: dict[str, Any]
) -> None:
    x = torch.randn(*batch, 4, 9, 11, dtype=torch.float64)
    w = torch.randn(6, 4 // kwargs.get("groups", 1), *kernel, dtype=torch.float64)
    bias = torch.randn(6, dtype=torch.float64)
    assert_agrees(DF.conv2d(x, w, bias, **kwargs), F.conv2d(x, w, bias, **kwargs))
    assert_agrees(DF.conv2d(input=x, weight=w, **kwargs), F.conv2d(input=x, weight=w, **kwargs))


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"padding": 2},
        {"padding": (1,), "stride": (2,)},
        {"padding": "same", "dilation": 3},
        {"padding": "valid", "stride": 3},
        {"stride": [2], "dilation": [2], "padding": 5, "groups": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("kernel", [3, 4, 1])
@pytest.mark.parametrize("batch", [(2,), ()], ids=["batched", "unbatched"])
def test_conv1d_takes_what_torch_takes(
    batch: tuple[int, ...], kernel: int, kwargs: dict[str, Any]
) -> None:
    x = torch.randn(*batch, 4, 13, dtype=torch.float64)
    w = torch.randn(6, 4 // kwargs.get("groups", 1), kernel, dtype=torch.float64)
    bias = torch.randn(6, dtype=torch.float64)
    assert_agrees(DF.conv1d(x, w, bias, **kwargs), F.conv1d(x, w, bias, **kwargs))


def same_pads(form: str, size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """ONNX's SAME_UPPER and SAME_LOWER: output = ceil(size / stride), odd pads after or before."""
    total = max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    small, large = total // 2, total - total // 2
    return (small, large) if form == "same_upper" else (large, small)


@pytest.mark.parametrize("form", ["same_upper", "same_lower"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2, 5])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_same_upper_and_lower(kernel: int, dilation: int, stride: int, form: str) -> None:
    x = torch.randn(2, 3, 9, 10, dtype=torch.float64)
    w = torch.randn(4, 3, kernel, kernel, dtype=torch.float64)
    vertical = same_pads(form, 9, kernel, stride, dilation)
    horizontal = same_pads(form, 10, kernel, stride, dilation)
    actual = DF.conv2d(x, w, None, stride, form, dilation)
    assert_agrees(
        actual, F.conv2d(F.pad(x, (*horizontal, *vertical)), w, None, stride, 0, dilation)
    )
    assert actual.shape[2:] == (-(-9 // stride), -(-10 // stride))
    line = DF.conv1d(x[:, :, 0], w[:, :, 0], None, stride, form, dilation)
    assert_agrees(
        line, F.conv1d(F.pad(x[:, :, 0], horizontal), w[:, :, 0], None, stride, 0, dilation)
    )


TRANSPOSED: list[dict[str, Any]] = [
    {},
    {"stride": 2},
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"stride": (3, 2), "padding": (2, 1), "output_padding": (2, 0)},
    {"dilation": 2, "padding": 1},
    {"stride": 1, "dilation": 3, "output_padding": 2},
    {"stride": 2, "dilation": 4, "output_padding": 3, "padding": 1},
    {"stride": 2, "dilation": (3, 4), "output_padding": (2, 3), "padding": 0},
    {"groups": 2, "stride": 3, "padding": 2},
    {"stride": (2,), "padding": [1], "output_padding": [1]},
]


@pytest.mark.parametrize("kwargs", TRANSPOSED, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.complex128], ids=str)
@pytest.mark.parametrize("batch", [(2,), (), (0,)], ids=["batched", "unbatched", "empty"])
def test_conv_transpose2d(
    batch: tuple[int, ...], dtype: torch.dtype, kwargs: dict[str, Any]
) -> None:
    """Values and gradients; output_padding below the dilation but not the stride included."""
    x = torch.randn(*batch, 4, 5, 6, dtype=dtype)
    w = torch.randn(4, 6 // kwargs.get("groups", 1), 3, 2, dtype=dtype)
    results = []
    for f in (DF.conv_transpose2d, F.conv_transpose2d):
        leaves = [v.clone().requires_grad_() for v in (x, w, torch.ones(6, dtype=dtype))]
        y = f(*leaves, **kwargs)
        results.append((y, *torch.autograd.grad(y, leaves, torch.ones_like(y).cumsum(-1))))
    for actual, expected in zip(*results, strict=True):
        assert_agrees(actual, expected)


TRANSPOSED_LINES: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"stride": (3,), "padding": [2], "output_padding": (2,)},
    {"stride": 2, "dilation": 4, "output_padding": 3, "padding": 1},
    {"groups": 2, "stride": 3, "padding": 2, "dilation": (2,)},
]


@pytest.mark.parametrize("kwargs", TRANSPOSED_LINES, ids=str)
@pytest.mark.parametrize("batch", [(2,), (), (0,)], ids=["batched", "unbatched", "empty"])
def test_conv_transpose1d(batch: tuple[int, ...], kwargs: dict[str, Any]) -> None:
    """Values and gradients, with output_padding below the dilation but not the stride too."""
    x = torch.randn(*batch, 4, 9, dtype=torch.float64)
    w = torch.randn(4, 6 // kwargs.get("groups", 1), 4, dtype=torch.float64)
    results = []
    for f in (DF.conv_transpose1d, F.conv_transpose1d):
        leaves = [v.clone().requires_grad_() for v in (x, w, torch.ones(6, dtype=x.dtype))]
        y = f(*leaves, **kwargs)
        results.append((y, *torch.autograd.grad(y, leaves, torch.ones_like(y).cumsum(-1))))
    for actual, expected in zip(*results, strict=True):
        assert_agrees(actual, expected)


@pytest.mark.parametrize("form", ["same_upper", "same_lower", (1, 0), (0, 3)], ids=str)
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (2, 1), (3, 2), (8, 1)])
def test_conv_transpose1d_crops_as_2d_does(
    kernel: int, dilation: int, stride: int, form: Any
) -> None:
    """What torch lacks, against the same line as an image of one row."""
    x = torch.randn(2, 3, 7, dtype=torch.float64)
    w = torch.randn(3, 2, kernel, dtype=torch.float64)
    actual = DF.conv_transpose1d(x, w, None, stride, form, dilation=dilation)
    image_form = form if isinstance(form, str) else (0, 0, *form)
    steps, spread = (1, stride), (1, dilation)
    expected = DF.conv_transpose2d(
        x.unsqueeze(2), w.unsqueeze(2), None, steps, image_form, dilation=spread
    )
    assert_agrees(actual, expected.squeeze(2))


def test_conv_transpose2d_with_four_pads() -> None:
    """Four pads crop the full result, each side by its own."""
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    w = torch.randn(3, 4, 3, 3, dtype=torch.float64)
    full = F.conv_transpose2d(x, w, stride=2)
    actual = DF.conv_transpose2d(x, w, None, 2, (0, 1, 2, 1))
    assert_agrees(actual, full[:, :, :-1, 2:-1])


@pytest.mark.parametrize("form", ["same_upper", "same_lower"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_conv_transpose2d_same(kernel: int, dilation: int, stride: int, form: str) -> None:
    """output = stride × input, the transpose of the convolution of that name: Keras' alignment."""
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    w = torch.randn(3, 2, kernel, kernel, dtype=torch.float64)
    y = torch.zeros(2, 2, 5 * stride, 4 * stride, dtype=torch.float64, requires_grad=True)
    pads = [
        pad
        for size in (4 * stride, 5 * stride)
        for pad in same_pads(form, size, kernel, stride, dilation)
    ]
    forward = F.conv2d(F.pad(y, pads), w, None, stride, 0, dilation)
    (expected,) = torch.autograd.grad(forward, y, x)
    assert_agrees(DF.conv_transpose2d(x, w, None, stride, form, 0, 1, dilation), expected)


def test_keras_example() -> None:
    """k = 3, s = 2: pads (0, 1, 0, 1), which is not torch's padding=1, output_padding=1."""
    x, w = torch.randn(1, 2, 4, 4), torch.randn(2, 3, 3, 3)
    y = DF.conv_transpose2d(x, w, stride=2, padding="same_upper")
    assert_agrees(y, DF.conv_transpose2d(x, w, stride=2, padding=(0, 1, 0, 1)))
    shifted = F.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1)
    assert y.shape == shifted.shape
    assert not torch.allclose(y, shifted)


SIGNATURES = {
    "conv2d": "input weight bias=None stride=1 padding=0 dilation=1 groups=1",
    "conv1d": "input weight bias=None stride=1 padding=0 dilation=1 groups=1",
    "conv_transpose1d": "input weight bias=None stride=1 padding=0 output_padding=0 groups=1 "
    "dilation=1",
    "conv_transpose2d": "input weight bias=None stride=1 padding=0 output_padding=0 groups=1 "
    "dilation=1",
    "conv1x1": "input weight bias=None",
    "corr2d": "X K dilation=1",
    "corr2d_multi_in": "X K dilation=1",
    "corr2d_multi_in_out": "X K dilation=1",
    "corr2d_multi_in_out_1x1": "X K",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature_and_docstring(name: str) -> None:
    f = getattr(DF, name)
    parameters = inspect.signature(f).parameters.values()
    words = [p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters]
    assert " ".join(words) == SIGNATURES[name]
    assert f.__doc__
    if name.startswith("conv"):
        assert "Equivalent to" in f.__doc__


def test_inputs_are_untouched() -> None:
    """Nothing is written but the result, which shares memory with no argument."""
    x, w, b = torch.randn(1, 3, 4, 4), torch.randn(3, 3, 1, 1), torch.randn(3)
    before = [t.clone() for t in (x, w, b)]
    y = DF.conv2d(x, w, b)
    y.zero_()
    for t, copy in zip((x, w, b), before, strict=True):
        assert torch.equal(t, copy)
