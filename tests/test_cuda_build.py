"""A build with the CUDA kernels, and one without, on a machine that need not have a GPU."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode

import dilconv_ext as dc
from calls import OPS, make_call
from dilconv_ext import _C
from dilconv_ext.__main__ import info
from problems import make_tensors, problem

BUILT = bool(_C.kernels("cuda"))
with_kernels = pytest.mark.skipif(not BUILT, reason="a build without CUDA kernels")
without_kernels = pytest.mark.skipif(BUILT, reason="a build with CUDA kernels")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@without_kernels
@pytest.mark.parametrize("op", OPS)
def test_without_kernels_a_cuda_tensor_is_refused_in_words(op: str) -> None:
    """Torch would say that the operator does not exist for CUDA, and not what to do about it."""
    cuda = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    p = problem("plain_3x3")
    call = make_call(op, p, make_tensors(p, torch.float32))
    with pytest.raises(RuntimeError, match="without CUDA kernels") as error:
        getattr(torch.ops.dilconv, op).default.redispatch(cuda, *call.args)
    for word in (op, "nvcc", "CUDA_HOME", "pip install"):
        assert word in str(error.value)


@without_kernels
def test_without_kernels_convert_leaves_cuda_layers() -> None:
    with FakeTensorMode():
        layer = torch.nn.Conv2d(2, 3, 3, device="meta")
        layer.weight = torch.nn.Parameter(torch.empty(3, 2, 3, 3, device="cuda"))
        dc.convert(layer)
    assert type(layer) is torch.nn.Conv2d


@with_kernels
def test_the_kernel_table() -> None:
    kernels = _C.kernels("cuda")
    assert kernels[-1] == "reference"
    assert len(set(kernels)) == len(kernels)
    assert _C.isas("cuda") == ["sm_120", "sm_100", "sm_90", "sm_89", "sm_86", "sm_80", "sm_75"]


@with_kernels
def test_the_build_tells_for_which_gpus_it_is() -> None:
    build = _C.build_info()
    wanted = os.environ.get("TORCH_CUDA_ARCH_LIST", build["cuda_capabilities"])
    assert build["cuda_capabilities"] == wanted
    for word in (*_C.kernels("cuda"), *_C.isas("cuda"), build["cuda"], wanted):
        assert word in info()


@with_kernels
@pytest.mark.parametrize("isa", _C.isas("cuda"))
def test_explain_answers_for_a_gpu_that_is_not_there(isa: str) -> None:
    x, w = torch.empty(1, 64, 28, 28), torch.empty(64, 64, 3, 3)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int32):
        for to_format in (torch.contiguous_format, torch.channels_last):
            args = [t.to(dtype=dtype, memory_format=to_format) for t in (x, w)]
            plan = dc.explain(*args, padding=2, dilation=2, isa=isa)
            for choice in (plan.forward, plan.grad_input, plan.grad_weight):
                assert choice.kernel in _C.kernels("cuda")
                assert all(len(reason.split()) > 1 for _, reason in choice.refused)


@with_kernels
@without_gpu
def test_without_a_gpu_a_launch_says_so() -> None:
    """Through the C interface, for torch makes no CUDA tensor there."""
    p = problem("plain_3x3")
    call = make_call("conv2d", p, make_tensors(p, torch.float32))
    numbers = torch.ops.dilconv._problem("conv2d", call.a, call.b, False, (), *call.params)
    fields = (ctypes.c_int64 * len(numbers))(*numbers)
    pointers = (ctypes.c_void_p * 5)()
    message = ctypes.create_string_buffer(512)
    (path,) = Path(dc.__file__).parent.glob("_ops*.so")
    run = ctypes.CDLL(str(path)).dilconv_run
    status = run(b"cuda", b"reference", fields, pointers, None, message, ctypes.c_size_t(512))
    assert status == 3
    assert "CUDA" in message.value.decode()
    assert "none, because" in info()
