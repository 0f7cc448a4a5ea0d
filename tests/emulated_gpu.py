"""The GPU's kernels on CPU tensors: csrc/cuda compiled for the host, on the emulated GPU.

A ``Gpu`` has the three ops as methods, so that a ``Call`` runs on it as it does on the reference.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calls import Call

LIBRARY = Path(__file__).resolve().parent.parent / "build/emulator/libdilconv_cuda_host.so"
CAPABILITIES = (90, 80, 75)
SCHEDULES = ("forward", "reverse", "greedy", "random")
ALLOW_TF32 = 3  # the index of the field in dilconv_problem

# The order of a call's tensors (a, b, output) among x, w, y.
PLACES = {"conv2d": "xwy", "conv2d_grad_input": "ywx", "conv2d_grad_weight": "yxw"}


class _Tensors(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("x", "w", "y", "bias", "workspace")]


def _load() -> ctypes.CDLL:
    library = ctypes.CDLL(str(LIBRARY))
    library.dilconv_kernel_name.restype = ctypes.c_char_p
    library.cuda_emulator_map.restype = ctypes.c_void_p
    library.cuda_emulator_map.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_char_p,
    ]
    library.cuda_emulator_threads_run.restype = ctypes.c_int64
    return library


_library = _load() if LIBRARY.exists() else None


def kernels() -> list[str]:
    """The names of the GPU's kernels, best first."""
    names: list[str] = []
    while _library and (name := _library.dilconv_kernel_name(b"cuda", len(names))):
        names.append(name.decode())
    return names


def threads_run() -> int:
    """How many threads the emulated GPU has run since the process started."""
    return _library.cuda_emulator_threads_run()


def last_error() -> int:
    """What cudaGetLastError returns, and forgets."""
    return _library.cudaGetLastError()


def _check(status: int, message: Any) -> None:
    if status:
        raise RuntimeError(message.value.decode())


def _mapped(tensor: Tensor, name: str, writable: bool = False) -> int:
    """Where the GPU finds the tensor's first element; its whole storage is known there."""
    storage = tensor.untyped_storage()
    base = _library.cuda_emulator_map(storage.data_ptr(), storage.nbytes(), writable, name.encode())
    return base + tensor.storage_offset() * tensor.element_size()


@dataclass(frozen=True)
class Gpu:
    """An emulated GPU, and how it runs a kernel: which one (None: the first that accepts)."""

    kernel: str | None = None
    capability: int = 90
    schedule: str = "forward"
    allow_tf32: bool = False

    def refusal(self, call: Call) -> str | None:
        """Why the kernel refuses the call, or None."""
        message = ctypes.create_string_buffer(1024)
        self._select()
        problem = self._problem(call)
        refused = _library.dilconv_accepts(
            b"cuda", self._name, None, problem, message, len(message)
        )
        return message.value.decode() if refused else None

    def conv2d(self, a: Tensor, b: Tensor, bias: Tensor | None, *params: Any) -> Tensor:
        return self._run(Call("conv2d", a, b, None, bias, params))

    def conv2d_grad_input(
        self, a: Tensor, b: Tensor, size: Any, bias: Tensor | None, *params: Any
    ) -> Tensor:
        return self._run(Call("conv2d_grad_input", a, b, tuple(size), bias, params))

    def conv2d_grad_weight(self, a: Tensor, b: Tensor, size: Any, *params: Any) -> Tensor:
        return self._run(Call("conv2d_grad_weight", a, b, tuple(size), None, params))

    @property
    def _name(self) -> bytes | None:
        return None if self.kernel is None else self.kernel.encode()

    def _select(self) -> None:
        assert _library.cuda_emulator_set_capability(self.capability) == 0
        assert _library.cuda_emulator_set_schedule(self.schedule.encode(), 1) == 0

    def _problem(self, call: Call) -> Any:
        fields = torch.ops.dilconv._problem(
            call.op, call.a, call.b, call.bias is not None, call.size or (), *call.params
        )
        fields[ALLOW_TF32] = self.allow_tf32
        return (ctypes.c_int64 * len(fields))(*fields)

    def _run(self, call: Call) -> Tensor:
        self._select()
        message = ctypes.create_string_buffer(4096)
        problem = self._problem(call)
        size = ctypes.c_size_t()
        _check(
            _library.dilconv_workspace(
                b"cuda", self._name, None, problem, 1, ctypes.byref(size), message, len(message)
            ),
            message,
        )
        shape = call.map(lambda t: t.to("meta")).run()
        output = torch.empty_strided(shape.shape, shape.stride(), dtype=call.a.dtype)
        output.untyped_storage().fill_(255)  # NaN, in every dtype, until it is written
        workspace = torch.full((size.value,), 255, dtype=torch.uint8)
        tensors = _Tensors(workspace=_mapped(workspace, "workspace", writable=True))
        for name, tensor in zip(PLACES[call.op], (call.a, call.b, output), strict=True):
            setattr(tensors, name, _mapped(tensor, name, writable=tensor is output))
        if call.bias is not None:
            tensors.bias = _mapped(call.bias, "bias")
        try:
            status = _library.dilconv_run(
                b"cuda", self._name, problem, ctypes.byref(tensors), None, message, len(message)
            )
        finally:
            _library.cuda_emulator_unmap()
        _check(status, message)
        return output
