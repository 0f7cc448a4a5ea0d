"""PyTorch's own samples: what torch tests four of its convolutions and their modules with.

OpInfo and ModuleInfo live in torch.testing._internal; they are lists of inputs, of bad inputs and
of the dtypes each op supports, run here against our functions and modules, none left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

import dilconv_ext as dc
from accuracy import assert_agrees

pytest.importorskip("numpy")
pytest.importorskip("expecttest")
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db
from torch.testing._internal.opinfo.core import OpInfo

FUNCTIONS = {
    "nn.functional.conv1d": dc.functional.conv1d,
    "nn.functional.conv2d": dc.functional.conv2d,
    "nn.functional.conv_transpose1d": dc.functional.conv_transpose1d,
    "nn.functional.conv_transpose2d": dc.functional.conv_transpose2d,
}
OP_INFOS = [info for info in op_db if info.name in FUNCTIONS]
SAMPLES = [
    pytest.param(info, dtype, id=f"{info.name}-{dtype}")
    for info in OP_INFOS
    for dtype in sorted(info.dtypes, key=str)
]
every_dtype = pytest.mark.parametrize(("info", "dtype"), SAMPLES)
differentiable = pytest.mark.parametrize(
    ("info", "dtype"),
    [
        pytest.param(i, d, id=f"{i.name}-{d}")
        for i in OP_INFOS
        for d in (torch.float64, torch.complex128)
    ],
)


def test_torch_still_has_the_samples() -> None:
    """Were they renamed, everything below would pass by testing nothing."""
    assert len(OP_INFOS) == 4
    assert len(MODULE_INFOS) == 4
    for info in OP_INFOS:
        assert {torch.int64, torch.float16, torch.bfloat16, torch.complex128} <= set(info.dtypes)
        assert len(list(info.sample_inputs("cpu", torch.float64))) >= 10


def samples(
    info: OpInfo, dtype: torch.dtype, grad: bool
) -> Iterator[tuple[Tensor, Any, dict[str, Any]]]:
    for sample in info.sample_inputs("cpu", dtype, requires_grad=grad):
        yield sample.input, sample.args, sample.kwargs


@every_dtype
def test_values(info: OpInfo, dtype: torch.dtype) -> None:
    for x, args, kwargs in samples(info, dtype, grad=False):
        assert_agrees(FUNCTIONS[info.name](x, *args, **kwargs), info.op(x, *args, **kwargs), kwargs)


@every_dtype
def test_noncontiguous_values(info: OpInfo, dtype: torch.dtype) -> None:
    """As torch's test_noncontiguous_samples: the layout of the arguments changes nothing."""
    for sample in info.sample_inputs("cpu", dtype):
        strided = sample.noncontiguous()
        actual = FUNCTIONS[info.name](strided.input, *strided.args, **strided.kwargs)
        expected = FUNCTIONS[info.name](sample.input, *sample.args, **sample.kwargs)
        assert_agrees(actual, expected, sample.kwargs)


@pytest.mark.parametrize(
    ("info", "dtype"),
    [s for s in SAMPLES if s.values[1] != torch.int64],  # no gradients
)
def test_gradients(info: OpInfo, dtype: torch.dtype) -> None:
    for x, args, kwargs in samples(info, dtype, grad=True):
        leaves = [t for t in (x, *args) if t is not None]
        grad_output = info.op(x, *args, **kwargs).detach()
        results = []
        for f in (FUNCTIONS[info.name], info.op):
            y = f(x, *args, **kwargs)
            results.append(torch.autograd.grad(y, leaves, grad_output))
        for actual, expected in zip(*results, strict=True):
            assert_agrees(actual, expected, kwargs)


@differentiable
def test_gradcheck(info: OpInfo, dtype: torch.dtype) -> None:
    f = FUNCTIONS[info.name]
    for x, args, kwargs in samples(info, dtype, grad=True):

        def call(*tensors: Tensor, kwargs: dict[str, Any] = kwargs) -> Tensor:
            return f(*tensors, **kwargs)

        leaves = tuple(t for t in (x, *args) if t is not None)
        gradcheck(
            call,
            leaves,
            fast_mode=True,
            check_forward_ad=True,
            check_batched_grad=True,
            check_batched_forward_grad=True,
        )
        gradgradcheck(
            call, leaves, fast_mode=True, check_fwd_over_rev=True, check_batched_grad=True
        )


@pytest.mark.parametrize("info", [i for i in OP_INFOS if i.error_inputs_func], ids=lambda i: i.name)
def test_error_inputs(info: OpInfo) -> None:
    """Torch's type of exception, and torch's phrase somewhere in the message."""
    seen = 0
    for case in info.error_inputs("cpu"):
        sample = case.sample_input
        with pytest.raises(case.error_type, match=case.error_regex):
            FUNCTIONS[info.name](sample.input, *sample.args, **sample.kwargs)
        seen += 1
    assert seen >= 8


MODULES = {
    nn.Conv1d: dc.DilatedConv1d,
    nn.Conv2d: dc.DilatedConv2d,
    nn.ConvTranspose1d: dc.DilatedConvTranspose1d,
    nn.ConvTranspose2d: dc.DilatedConvTranspose2d,
}
MODULE_INFOS = [info for info in module_db if info.module_cls in MODULES]
MODULE_SAMPLES = [
    pytest.param(info, dtype, id=f"{info.name}-{dtype}")
    for info in MODULE_INFOS
    for dtype in sorted({*info.dtypes, torch.bfloat16, torch.complex128}, key=str)
]


@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("info", "dtype"), MODULE_SAMPLES)
def test_modules(info: Any, dtype: torch.dtype, training: bool) -> None:
    inputs = info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=True, training=training
    )
    assert inputs
    for module_input in inputs:
        build, call = module_input.constructor_input, module_input.forward_input
        theirs = info.module_cls(*build.args, **build.kwargs).to(dtype).train(training)
        ours = MODULES[info.module_cls](*build.args, **build.kwargs).to(dtype).train(training)
        ours.load_state_dict(theirs.state_dict())
        results = []
        for module in (ours, theirs):
            y = module(*call.args, **call.kwargs)
            leaves = (*call.args, *module.parameters())
            results.append((y, *torch.autograd.grad(y, leaves, torch.ones_like(y))))
        for actual, expected in zip(*results, strict=True):
            assert_agrees(actual, expected, module_input.desc)
        if dtype == torch.float64:
            assert gradcheck(ours, call.args, check_forward_ad=True, check_batched_grad=True)
