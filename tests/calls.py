"""One call of one op, in a form that can be run by the ops, by the reference or by torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import dilconv_ext as dc
from dilconv_ext import _C
from problems import Problem, Tensors, make_tensors

OPS = ("conv2d", "conv2d_grad_input", "conv2d_grad_weight")

DEVICE = torch.get_default_device().type  # as --device says
KERNELS = _C.kernels(DEVICE)


def _isas() -> list[str]:
    """The instruction sets that this machine runs, best first."""
    if DEVICE == "cpu":
        return _C.isas()
    major, minor = torch.cuda.get_device_capability()
    return [isa for isa in _C.isas("cuda") if int(isa.removeprefix("sm_")) <= 10 * major + minor]


ISAS = _isas()
# Every kernel on every instruction set this machine has: a new row in the C++ kernel list, or a new
# instruction set, is tested without a change here. The reference is compiled once, for all of them.
PATHS = [
    (kernel, isa) for isa in ISAS for kernel in KERNELS if kernel != "reference" or isa == ISAS[0]
]

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
COMPLEX = (torch.complex64, torch.complex128)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
DTYPES = FLOATS + COMPLEX + INTEGERS


@dataclass(frozen=True)
class Call:
    """An op and its arguments.

    ``a`` and ``b`` are the two tensors in schema order, ``size`` is ``input_size`` or
    ``kernel_size`` (None for conv2d), ``params`` is stride, padding, dilation, groups.
    """

    op: str
    a: Tensor
    b: Tensor
    size: tuple[int, ...] | None
    bias: Tensor | None
    params: tuple[Any, ...]

    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments in schema order."""
        size = () if self.size is None else (self.size,)
        bias = () if self.op == "conv2d_grad_weight" else (self.bias,)
        return (self.a, self.b, *size, *bias, *self.params)

    def run(self, namespace: Any = torch.ops.dilconv) -> Tensor:
        """The result, by ``torch.ops.dilconv``, ``dilconv_ext.reference`` or ``torch_peer``."""
        return getattr(namespace, self.op)(*self.args)

    def forced(self, kernel: str, isa: str = "") -> Tensor:
        """The call's result by one kernel on one instruction set."""
        with dc.options(kernel=kernel, isa=isa):
            return self.run()

    def refusals(self, isa: str = "") -> dict[str, str | None]:
        """Each kernel's reason to refuse this call, or None where it accepts."""
        return {kernel: refusal for kernel, refusal, _, _ in self.verdicts(isa)}

    def selected(self, isa: str = "") -> str:
        """The kernel that runs when none is forced."""
        return next(kernel for kernel, *reasons, _ in self.verdicts(isa) if not any(reasons))

    def verdicts(self, isa: str = "") -> list[tuple[str, str | None, str | None, int]]:
        """Each kernel's name, reason to refuse, reason to decline, and workspace in bytes."""
        fields = torch.ops.dilconv._problem(
            self.op, self.a, self.b, self.bias is not None, self.size or (), *self.params
        )
        with dc.options(isa=isa):
            return _C.explain(fields, device=DEVICE)

    def map(self, f: Any) -> Call:
        """The same call with ``f`` applied to each of its tensors."""
        bias = None if self.bias is None else f(self.bias)
        return replace(self, a=f(self.a), b=f(self.b), bias=bias)

    def __str__(self) -> str:
        return self.op + ("" if self.bias is None else "+bias")


def make_call(op: str, problem: Problem, t: Tensors, bias: bool = False) -> Call:
    """The call of ``op`` that ``problem`` describes, on the tensors ``t``."""
    if op == "conv2d":
        return Call(op, t.x, t.w, None, t.bias if bias else None, problem.params)
    if op == "conv2d_grad_input":
        return Call(op, t.g, t.w, problem.size, t.bias_in if bias else None, problem.params)
    return Call(op, t.g, t.x, problem.kernel, None, problem.params)


def all_calls(problem: Problem, dtype: torch.dtype) -> Iterator[Call]:
    """The three ops on ``problem``, with and without bias where they take one."""
    t = make_tensors(problem, dtype)
    for op in OPS:
        yield make_call(op, problem, t)
        if op != "conv2d_grad_weight":
            yield make_call(op, problem, t, bias=True)
