"""Bad input: what torch rejects is rejected, with torch's exception type and a message that helps.

The expected type is not written down: each case is run by torch, and by us.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dilconv_ext as dc
from calls import OPS, Call


@dataclass(frozen=True)
class Bad:
    """A call that must raise. ``words`` must all be in our message: the argument, its value, …"""

    name: str
    function: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    words: tuple[str, ...]


X, W, B = torch.ones(2, 4, 8, 8), torch.ones(6, 4, 3, 3), torch.ones(6)
X1, W1 = torch.ones(2, 4, 9), torch.ones(6, 4, 3)
WT, WT1 = torch.ones(4, 6, 3, 3), torch.ones(4, 6, 3)
HUGE = 2**62


def _conv2d(name: str, *words: str, x: Any = X, w: Any = W, b: Any = None, **kwargs: Any) -> Bad:
    return Bad(f"conv2d {name}", "conv2d", (x, w, b), kwargs, words)


def _conv1d(name: str, *words: str, x: Any = X1, w: Any = W1, b: Any = None, **kwargs: Any) -> Bad:
    return Bad(f"conv1d {name}", "conv1d", (x, w, b), kwargs, words)


def _transposed(
    name: str, *words: str, x: Any = X, w: Any = WT, b: Any = None, **kwargs: Any
) -> Bad:
    return Bad(f"conv_transpose2d {name}", "conv_transpose2d", (x, w, b), kwargs, words)


def _transposed1d(
    name: str, *words: str, x: Any = X1, w: Any = WT1, b: Any = None, **kwargs: Any
) -> Bad:
    return Bad(f"conv_transpose1d {name}", "conv_transpose1d", (x, w, b), kwargs, words)


BAD: list[Bad] = [
    # Shapes.
    _conv2d("channels", "input", "3", "4", w=torch.ones(6, 3, 3, 3)),
    _conv2d("channels in groups", "input", "8", "4", w=torch.ones(6, 4, 3, 3), groups=2),
    _conv2d("input rank 2", "input", "[8, 8]", x=torch.ones(8, 8)),
    _conv2d("input rank 5", "input", "[1, 2, 4, 8, 8]", x=torch.ones(1, 2, 4, 8, 8)),
    _conv2d("weight rank 3", "weight", "[6, 4, 3]", w=torch.ones(6, 4, 3)),
    _conv2d("weight rank 5", "weight", "[6, 4, 3, 3, 3]", w=torch.ones(6, 4, 3, 3, 3)),
    _conv2d("weight rank 0", "weight", w=torch.tensor(1.0)),
    _conv2d(
        "kernel over image",
        "Calculated padded input size per channel: (8 x 8). Kernel size: (9 x 3). "
        "Kernel size can't be greater than actual input size",
        "height",
        w=torch.ones(6, 4, 9, 3),
    ),
    _conv2d("dilated kernel over image", "9", "8", dilation=4),
    _conv2d("dilated kernel over padded image", "13", "12", dilation=6, padding=2),
    _conv2d("empty image", "input", "0", x=torch.ones(2, 4, 0, 8)),
    _conv2d("empty image, padded", "input", "0", x=torch.ones(2, 4, 0, 8), padding=2),
    _conv2d("empty kernel", "kernel", "0", w=torch.ones(6, 4, 0, 3)),
    _conv2d("no output channels", "weight", "0", w=torch.ones(0, 4, 3, 3)),
    _conv2d("bias size", "bias", "6", "5", b=torch.ones(5)),
    _conv2d("bias rank", "bias", "6", "[1, 6]", b=torch.ones(1, 6)),
    _conv2d("bias scalar", "bias", "6", b=torch.tensor(1.0)),
    # Numbers.
    _conv2d("stride 0", "stride", "0", "positive", stride=0),
    _conv2d("stride (1, 0)", "stride", "[1, 0]", stride=(1, 0)),
    _conv2d("stride -1", "stride", "-1", stride=-1),
    _conv2d("stride of 3", "stride", "[1, 1, 1]", "2", stride=(1, 1, 1)),
    _conv2d("stride of none", "stride", "[]", stride=()),
    _conv2d("padding -1", "padding", "-1", padding=-1),
    _conv2d("padding (0, -1)", "padding", "(0, -1)", padding=(0, -1)),
    _conv2d("padding of 3", "padding", "(1, 1, 1)", padding=(1, 1, 1)),
    _conv2d("padding of none", "padding", "()", padding=()),
    _conv2d("dilation 0", "dilation", "0", dilation=0),
    _conv2d("dilation (1, -2)", "dilation", "[1, -2]", dilation=(1, -2)),
    _conv2d("dilation of 3", "dilation", "[1, 1, 1]", dilation=(1, 1, 1)),
    _conv2d("groups 0", "groups", "0", groups=0),
    _conv2d("groups -1", "groups", "-1", groups=-1),
    _conv2d("groups 5", "groups", "5", "6", groups=5),
    _conv2d("groups over channels", "groups", "7", "6", groups=7),
    _conv2d("padding string", "padding", "'full'", "'same'", padding="full"),
    _conv2d("same with stride", "padding", "'same'", "stride", "2", padding="same", stride=2),
    _conv2d("same with stride (1, 2)", "'same'", "(1, 2)", padding="same", stride=(1, 2)),
    _conv2d("padding overflows", "padding", str(HUGE), padding=HUGE),
    _conv2d("dilation overflows", str(HUGE), dilation=HUGE),
    _conv2d("output overflows memory", "padding", str(2**40), padding=2**40),
    _conv2d("padding past 64 bits", "padding", padding=2**65),
    _conv2d("stride past 64 bits", "stride", stride=2**65),
    # Types.
    _conv2d("weight dtype", "weight", "Float", "Double", w=W.double()),
    _conv2d("weight dtype half", "weight", "Float", "Half", w=W.half()),
    _conv2d("bias dtype", "bias", "Float", "Double", b=B.double()),
    _conv2d("bool", "Bool", x=X.bool(), w=W.bool()),
    _conv2d("sparse input", "input", x=X.to_sparse()),
    _conv2d("input is an array", "input", "ndarray", x=X.numpy()),
    _conv2d("input is a list", "input", "list", x=[1.0]),
    _conv2d("weight is None", "weight", "None", w=None),
    _conv2d("bias is a number", "bias", "3", b=3),
    _conv2d("stride 1.5", "stride", "1.5", stride=1.5),
    _conv2d("stride (1, 1.5)", "stride", "1.5", stride=(1, 1.5)),
    _conv2d("stride None", "stride", "None", stride=None),
    _conv2d("stride string", "stride", "'a'", stride="a"),
    _conv2d("padding 0.5", "padding", "0.5", padding=0.5),
    _conv2d("padding None", "padding", "None", padding=None),
    _conv2d("dilation 2.0", "dilation", "2.0", dilation=2.0),
    _conv2d("groups 1.0", "groups", "1.0", groups=1.0),
    _conv2d("groups pair", "groups", "(1, 1)", groups=(1, 1)),
    _conv2d("unknown keyword", "strides", strides=1),
    # 1-D.
    _conv1d("channels", "input", "3", "4", w=torch.ones(6, 3, 3)),
    _conv1d("input rank 1", "input", "[9]", x=torch.ones(9)),
    _conv1d("input rank 4", "input", "[2, 4, 8, 8]", x=X),
    _conv1d("weight rank 4", "weight", "[6, 4, 3, 3]", w=W),
    _conv1d("weight rank 2", "weight", "[6, 4]", w=torch.ones(6, 4)),
    _conv1d(
        "kernel over line",
        "Calculated padded input size per channel: (9). Kernel size: (11). "
        "Kernel size can't be greater than actual input size",
        "dilation 5",
        dilation=5,
    ),
    _conv1d("stride of 2", "stride", "[1, 1]", stride=(1, 1)),
    _conv1d("stride 0", "stride", "0", stride=0),
    _conv1d("padding -2", "padding", "-2", padding=-2),
    _conv1d("dilation 0", "dilation", "0", dilation=0),
    _conv1d("groups 4", "groups", "4", "6", groups=4),
    _conv1d("bias size", "bias", "6", "4", b=torch.ones(4)),
    _conv1d("same with stride", "padding", "'same'", "3", padding="same", stride=3),
    _conv1d("padding string", "padding", "'causal'", padding="causal"),
    _conv1d("dtype", "Double", x=X1.double()),
    _conv1d("empty line", "0", x=torch.ones(2, 4, 0)),
    # Transposed.
    _transposed("channels", "input", "3", "4", w=torch.ones(3, 6, 3, 3)),
    _transposed("input rank 2", "input", "[8, 8]", x=torch.ones(8, 8)),
    _transposed("weight rank 3", "weight", "[4, 6, 3]", w=torch.ones(4, 6, 3)),
    _transposed("bias size", "bias", "6", "4", b=torch.ones(4)),
    _transposed("groups 3", "groups", "3", "4", groups=3),
    _transposed("groups 0", "groups", "0", groups=0),
    _transposed("stride 0", "stride", "0", stride=0),
    _transposed("dilation 0", "dilation", "0", dilation=0),
    _transposed("padding -1", "padding", "-1", padding=-1),
    _transposed("padding 'same'", "padding", "'same'", padding="same"),
    _transposed("padding over output", "padding", x=torch.ones(1, 4, 1, 1), padding=2),
    _transposed(
        "output of no width",
        "output size",
        "(1, 0)",
        x=torch.ones(1, 4, 3, 2),
        w=WT[:, :, :1, :1],
        padding=1,
    ),
    _transposed("output_padding -1", "output_padding", "-1", output_padding=-1),
    _transposed("output_padding over both", "output_padding", "2", stride=2, output_padding=2),
    _transposed("output_padding 1 alone", "output_padding", "1", output_padding=1),
    _transposed("output_padding 0.5", "output_padding", "0.5", output_padding=0.5),
    _transposed("dtype", "Double", w=WT.double()),
    _transposed("no input channels", "weight", "0", x=X[:, :0], w=WT[:0]),
    _transposed("stride overflows", "stride", str(HUGE), stride=HUGE),
    _transposed1d("channels", "input", "3", "4", w=torch.ones(3, 6, 3)),
    _transposed1d("input rank 1", "input", "[9]", x=torch.ones(9)),
    _transposed1d("input rank 4", "input", "[2, 4, 8, 8]", x=X),
    _transposed1d("weight rank 4", "weight", "[4, 6, 3, 3]", w=WT),
    _transposed1d("stride of 2", "stride", "[1, 1]", stride=(1, 1)),
    _transposed1d("dilation 0", "dilation", "0", dilation=0),
    _transposed1d("padding -1", "padding", "-1", padding=-1),
    _transposed1d("padding 'same'", "padding", "'same'", padding="same"),
    _transposed1d("padding over output", "output size", x=torch.ones(1, 4, 1), padding=2),
    _transposed1d("output_padding over both", "output_padding", "2", stride=2, output_padding=2),
    _transposed1d("bias size", "bias", "6", "4", b=torch.ones(4)),
    _transposed1d("dtype", "Double", w=WT1.double()),
]


def raised_by(f: Callable[[], Any]) -> Exception | None:
    try:
        f()
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_function_rejects_what_torch_rejects(bad: Bad) -> None:
    expected = raised_by(lambda: getattr(F, bad.function)(*bad.args, **bad.kwargs))
    assert expected is not None, "torch accepts this: the case belongs in test_functional.py"
    with pytest.raises(type(expected)) as caught:
        getattr(dc.functional, bad.function)(*bad.args, **bad.kwargs)
    assert type(caught.value) is type(expected)
    missing = [word for word in bad.words if word not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


# (torch's class, ours, arguments, keyword arguments, words of our message)
BAD_MODULES: list[tuple[Any, Any, tuple[Any, ...], dict[str, Any], tuple[str, ...]]] = []
for _theirs, _ours in (
    (nn.Conv2d, dc.DilatedConv2d),
    (nn.Conv1d, dc.DilatedConv1d),
    (nn.ConvTranspose1d, dc.DilatedConvTranspose1d),
    (nn.ConvTranspose2d, dc.DilatedConvTranspose2d),
):
    BAD_MODULES += [
        (_theirs, _ours, (4, 6, 3), {"groups": 3}, ("in_channels", "groups")),
        (_theirs, _ours, (4, 6, 3), {"groups": 4}, ("out_channels", "groups")),
        (_theirs, _ours, (4, 6, 3), {"groups": 0}, ("groups",)),
        (_theirs, _ours, (4, 6, 3), {"stride": 0}, ("stride", "0")),
        (_theirs, _ours, (4, 6, 3), {"dilation": -1}, ("dilation", "-1")),
        (_theirs, _ours, (4, 6, 3), {"padding": -1}, ("padding", "-1")),
        (_theirs, _ours, (4, 6, 3), {"padding": 0.5}, ("padding", "0.5")),
        (_theirs, _ours, (4, 6, 3), {"padding_mode": "wrap"}, ("padding",)),
        (_theirs, _ours, (4, 6, 3), {"strides": 1}, ("strides",)),
        (_theirs, _ours, (4, 6), {}, ("kernel_size",)),
        (_theirs, _ours, (4, 6, 2.5), {}, ()),
        (_theirs, _ours, (-4, 6, 3), {}, ("-4",)),
        (_theirs, _ours, (4, 6, 3), {"dtype": "float"}, ("dtype",)),
    ]
BAD_MODULES += [
    (nn.Conv2d, dc.DilatedConv2d, (4, 6, 3), {"padding": "full"}, ("padding", "'full'", "same")),
    (
        nn.Conv2d,
        dc.DilatedConv2d,
        (4, 6, 3),
        {"padding": "same", "stride": 2},
        ("'same'", "stride"),
    ),
    (nn.Conv2d, dc.DilatedConv2d, (4, 6, 3), {"padding": (1, 1, 1)}, ("padding", "(1, 1, 1)")),
    (nn.Conv2d, dc.DilatedConv2d, (3, 6, 3), {}, ("input", "3", "4")),
    (nn.Conv2d, dc.DilatedConv2d, (4, 6, 3), {"dtype": torch.float64}, ("Double",)),
    (nn.Conv2d, dc.DilatedConv2d, (4, 6, 3), {"padding": 9, "padding_mode": "reflect"}, ("9",)),
    (nn.Conv2d, dc.DilatedConv2d, (4, 6, 3), {"padding": 9, "padding_mode": "circular"}, ()),
    (
        nn.ConvTranspose2d,
        dc.DilatedConvTranspose2d,
        (4, 6, 3),
        {"padding_mode": "reflect"},
        ("padding", "zeros"),
    ),
    (
        nn.ConvTranspose2d,
        dc.DilatedConvTranspose2d,
        (4, 6, 3),
        {"output_padding": 3},
        ("output_padding", "3"),
    ),
]


@pytest.mark.parametrize(
    ("theirs", "ours", "args", "kwargs", "words"),
    [pytest.param(*row, id=f"{row[0].__name__}{row[2]}{row[3]}") for row in BAD_MODULES],
)
def test_module_rejects_what_torch_rejects(
    theirs: Any, ours: Any, args: tuple[Any, ...], kwargs: dict[str, Any], words: tuple[str, ...]
) -> None:
    """Built and called, so that it does not matter which of the two torch raises in."""
    x = X1 if theirs in (nn.Conv1d, nn.ConvTranspose1d) else X
    expected = raised_by(lambda: theirs(*args, **kwargs)(x))
    assert expected is not None
    with pytest.raises(type(expected)) as caught:
        ours(*args, **kwargs)(x)
    assert type(caught.value) is type(expected)
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


@pytest.mark.parametrize("size", [(30, 30), (18,), (1, 2, 3)], ids=str)
def test_output_size(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"output.size"):
        dc.DilatedConvTranspose2d(4, 6, 3, stride=2)(X, output_size=size)


G = torch.ones(2, 6, 6, 6)  # the gradient of conv2d(X, W)
DEFAULTS = ((1, 1), (0, 0, 0, 0), (1, 1), 1)
# (what is wrong, the call, words of the message); the ops' own checks, which torch has no twin for
BAD_CALLS: list[tuple[str, Call, tuple[str, ...]]] = [
    ("grad channels", Call("conv2d_grad_input", G[:, :5], W, (8, 8), None, DEFAULTS), ("5", "6")),
    ("grad height", Call("conv2d_grad_input", G[:, :, :5], W, (8, 8), None, DEFAULTS), ("5", "6")),
    ("input_size", Call("conv2d_grad_input", G, W, (9, 8), None, DEFAULTS), ("7", "6")),
    ("input_size of 1", Call("conv2d_grad_input", G, W, (8,), None, DEFAULTS), ("input_size",)),
    (
        "input_size of 3",
        Call("conv2d_grad_input", G, W, (6, 8, 8), None, DEFAULTS),
        ("input_size",),
    ),
    ("input_size -1", Call("conv2d_grad_input", G, W, (-1, 8), None, DEFAULTS), ("-1",)),
    ("bias", Call("conv2d_grad_input", G, W, (8, 8), torch.ones(6), DEFAULTS), ("bias", "6", "4")),
    (
        "dtype",
        Call("conv2d_grad_input", G.double(), W, (8, 8), None, DEFAULTS),
        ("Double", "Float"),
    ),
    ("grad rank", Call("conv2d_grad_input", G[0, 0], W, (8, 8), None, DEFAULTS), ("grad_output",)),
    ("batch", Call("conv2d_grad_weight", G[:1], X, (3, 3), None, DEFAULTS), ("1", "2")),
    ("grad width", Call("conv2d_grad_weight", G[..., :4], X, (3, 3), None, DEFAULTS), ("4", "6")),
    ("kernel_size", Call("conv2d_grad_weight", G, X, (4, 3), None, DEFAULTS), ("5", "6")),
    (
        "kernel_size 0",
        Call("conv2d_grad_weight", G, X, (0, 3), None, DEFAULTS),
        ("kernel_size", "0"),
    ),
    (
        "kernel_size of 3",
        Call("conv2d_grad_weight", G, X, (3, 3, 3), None, DEFAULTS),
        ("kernel_size",),
    ),
    ("ranks differ", Call("conv2d_grad_weight", G[0], X, (3, 3), None, DEFAULTS), ("grad_output",)),
    (
        "groups",
        Call("conv2d_grad_weight", G, X, (3, 3), None, (*DEFAULTS[:3], 3)),
        ("groups", "3", "4"),
    ),
    (
        "meta weight",
        Call("conv2d", X, W.to("meta"), None, None, DEFAULTS),
        ("weight", "meta", "cpu"),
    ),
    (
        "cropped away",
        Call("conv2d", X, W, None, None, ((1, 1), (-4, -3, 0, 0), (1, 1), 1)),
        ("1", "3"),
    ),
    ("three strides", Call("conv2d", X, W, None, None, ((1, 1, 1), *DEFAULTS[1:])), ("stride",)),
    ("two pads", Call("conv2d", X, W, None, None, ((1, 1), (1, 1), (1, 1), 1)), ("padding",)),
    *[
        (f"stride 0 of {op}", Call(op, a, b, size, None, ((0, 1), *DEFAULTS[1:])), ("stride", "0"))
        for op, a, b, size in zip(OPS, (X, G, G), (W, W, X), (None, (8, 8), (3, 3)), strict=True)
    ],
]


@pytest.mark.parametrize(("call", "words"), [pytest.param(*r[1:], id=r[0]) for r in BAD_CALLS])
def test_ops_check_their_arguments(call: Call, words: tuple[str, ...]) -> None:
    with pytest.raises(RuntimeError) as caught:
        call.run()
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


# What only the real kernel can know: torch's meta kernel accepts these as well.
REAL_ONLY = ("conv2d bool", "conv2d output overflows memory", "conv2d sparse input")
ON_META = [
    b for b in BAD if isinstance(b.args[0], Tensor) and b.args[0].dim() and b.name not in REAL_ONLY
]


@pytest.mark.parametrize("bad", ON_META, ids=lambda bad: bad.name)
def test_rejected_on_meta_tensors_too(bad: Bad) -> None:
    """A model traced on meta or fake tensors fails where the real one would."""
    args = [t.to("meta") if isinstance(t, Tensor) else t for t in bad.args]
    with pytest.raises((RuntimeError, TypeError, ValueError)):
        getattr(dc.functional, bad.function)(*args, **bad.kwargs)


def test_rejected_calls_leak_nothing() -> None:
    """Rejected calls hold on to nothing: the process does not grow."""
    import resource

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    x, w = torch.ones(1, 3, 512, 512), torch.ones(4, 2, 3, 3)
    for _ in range(50):
        raised_by(lambda: dc.functional.conv2d(x, w))
    before = peak()
    for _ in range(2000):
        raised_by(lambda: dc.functional.conv2d(x, w))
    assert peak() - before < 20_000  # kB
