"""Seeing and forcing kernels: explain, options, and the three environment variables."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch

import dilconv_ext as dc
from calls import OPS, all_calls, make_call
from dilconv_ext import _C
from problems import PROBLEMS, Problem, make_tensors

X, W = torch.randn(2, 4, 9, 10), torch.randn(6, 4, 3, 3)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs ``code`` in a fresh interpreter with these variables set."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("DILCONV_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**variables, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_kernel_table() -> None:
    assert _C.kernels()[-1] == "reference"
    assert len(set(_C.kernels())) == len(_C.kernels())
    assert _C.isas()
    assert len(set(_C.isas())) == len(_C.isas())
    assert _C.build_info()["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_explain_names_what_would_run() -> None:
    explanation = dc.explain(X, W, padding=1, dilation=2)
    text = str(explanation)
    for op, choice in zip(
        OPS, (explanation.forward, explanation.grad_input, explanation.grad_weight), strict=True
    ):
        assert choice.op == op
        assert choice.kernel in _C.kernels()
        assert choice.workspace_bytes >= 0
        assert op in text
        assert choice.kernel in text
        # Everything before the chosen one refused, in the list's order, with a reason in words.
        before = _C.kernels()[: _C.kernels().index(choice.kernel)]
        assert [name for name, _ in choice.refused] == before
        assert all(len(reason.split()) > 1 and reason in text for _, reason in choice.refused)


@pytest.mark.parametrize(
    ("x", "w", "kwargs"),
    [
        (X[0], W, {}),
        (X[:0], W, {"padding": (0, 1, 2, 3)}),
        (X, W, {"stride": 2, "padding": "same_upper"}),
        (X, W[:4, :1], {"groups": 4, "padding": "same"}),
        (X[:, :, 0], W[:, :, 0], {"stride": 2, "padding": (2, 0)}),
        (X[0, :, 0], W[:, :, 0], {}),
        (X.bfloat16(), W.bfloat16(), {}),
        (X.long(), W.long(), {}),
        (X.to(memory_format=torch.channels_last), W, {}),
    ],
)
def test_explain_takes_every_call(x: torch.Tensor, w: torch.Tensor, kwargs: dict) -> None:
    choice = dc.explain(x, w, **kwargs).forward
    f = dc.functional.conv2d if w.dim() == 4 else dc.functional.conv1d
    expected = f(x, w, **kwargs)
    with dc.options(kernel=choice.kernel):
        assert torch.equal(f(x, w, **kwargs), expected)


def test_explain_takes_tensors_without_data() -> None:
    x, w = torch.empty(1, 64, 28, 28), torch.empty(64, 64, 3, 3)
    assert str(dc.explain(x.to("meta"), w.to("meta"), padding=1)) == str(
        dc.explain(x, w, padding=1)
    )


@pytest.mark.parametrize("isa", _C.isas())
def test_explain_answers_for_a_named_instruction_set(isa: str) -> None:
    with dc.options(isa=isa):
        capped = dc.explain(X, W, padding=1)
    assert dc.explain(X, W, padding=1, isa=isa) == capped
    with pytest.raises(ValueError, match=isa):
        dc.explain(X, W, isa="nonesuch")


def test_explain_raises_as_the_call_would() -> None:
    for kwargs in (
        {"stride": 0},
        {"groups": 3},
        {"padding": -1},
        {"dilation": 5},
        {"padding": "x"},
    ):
        with pytest.raises(RuntimeError) as call:
            dc.functional.conv2d(X, W, **kwargs)
        with pytest.raises(RuntimeError) as explanation:
            dc.explain(X, W, **kwargs)
        assert str(explanation.value).split("\n")[0] == str(call.value).split("\n")[0]
    with pytest.raises(RuntimeError, match="same device"):
        dc.explain(X, W.to("meta"))


def test_workspaces_are_bounded() -> None:
    """No kernel asks for an im2col buffer: its size would be positions × taps × channels."""
    for p in PROBLEMS:
        if not p.slow:
            continue
        for call in all_calls(p, torch.float32):
            fields = torch.ops.dilconv._problem(
                call.op, call.a, call.b, call.bias is not None, call.size or (), *call.params
            )
            tensors = 4 * (call.a.numel() + call.b.numel() + call.run().numel())
            for kernel, refusal, _, workspace in _C.explain(fields):
                if refusal is None:
                    assert 0 <= workspace <= 2**20 + 2 * tensors, f"{p} {call} {kernel}"


def test_options_are_restored() -> None:
    before = _C.get_option("kernel")
    with dc.options(kernel="reference"):
        assert _C.get_option("kernel") == "reference"
        with dc.options(isa=_C.isas()[-1], verbose=False):
            assert _C.get_option("kernel") == "reference"
            assert _C.get_option("isa") == _C.isas()[-1]
        assert _C.get_option("isa") == ""
    assert _C.get_option("kernel") == before
    with pytest.raises(KeyError), dc.options(kernel="reference"):
        raise KeyError
    assert _C.get_option("kernel") == before


@pytest.mark.parametrize(("name", "choices"), [("kernel", _C.kernels()), ("isa", _C.isas())])
def test_unknown_options_name_the_known(name: str, choices: list[str]) -> None:
    with pytest.raises(ValueError, match="nonesuch") as error, dc.options(**{name: "nonesuch"}):
        pass
    for choice in choices:
        assert choice in str(error.value)
    assert _C.get_option(name) == ""


def test_options_hold_for_all_threads() -> None:
    seen: list[str] = []
    with dc.options(kernel="reference"):
        thread = threading.Thread(
            target=lambda: seen.append(
                str(dc.explain(X, W).forward.kernel) + _C.get_option("kernel")
            )
        )
        thread.start()
        thread.join()
    assert seen[0].endswith("reference")


IMPORT = "import torch, dilconv_ext as dc; "
RUN = IMPORT + "dc.functional.conv2d(torch.ones(1, 2, 5, 5), torch.ones(3, 2, 3, 3))"


def accepted_by(kernel: str) -> tuple[Problem, torch.dtype]:
    """The first problem and dtype whose forward ``kernel`` accepts here."""
    for dtype in (torch.float32, torch.bfloat16):
        for p in PROBLEMS:
            if make_call("conv2d", p, make_tensors(p, dtype)).refusals()[kernel] is None:
                return p, dtype
    pytest.skip(f"this machine lacks the instructions of {kernel}")


@pytest.mark.parametrize("kernel", _C.kernels())
def test_environment_forces_a_kernel(kernel: str) -> None:
    p, dtype = accepted_by(kernel)
    ones = [f"torch.ones({shape}, dtype={dtype})" for shape in (p.input_shape, p.weight_shape)]
    tensors = ", ".join(ones)
    code = IMPORT + f"torch.ops.dilconv.conv2d({tensors}, None, *{p.params})"
    result = run_python(code, DILCONV_KERNEL=kernel, DILCONV_VERBOSE="1")
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if "dilconv" in line]
    assert kernel in line
    assert "conv2d" in line
    assert str(dtype).removeprefix("torch.") in line


def first_of(values: list[str]) -> list[Any]:
    """The first in every tier, the others as slow: each costs a start of the interpreter."""
    return [values[0], *(pytest.param(v, marks=pytest.mark.slow) for v in values[1:])]


@pytest.mark.parametrize("isa", first_of(_C.isas()[::-1]))
def test_environment_caps_the_instruction_set(isa: str) -> None:
    result = run_python(
        IMPORT + "print(dc._C.get_option('isa'))" + RUN[len(IMPORT) - 2 :], DILCONV_ISA=isa
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == isa
    assert not result.stderr


@pytest.mark.parametrize("variable", first_of(["DILCONV_KERNEL", "DILCONV_ISA", "DILCONV_VERBOSE"]))
def test_bad_environment_says_so(variable: str) -> None:
    result = run_python(RUN, **{variable: "nonesuch"})
    assert result.returncode != 0
    assert variable in result.stderr
    assert "nonesuch" in result.stderr


def test_quiet_by_default_and_verbose_by_option(capfd: pytest.CaptureFixture[str]) -> None:
    dc.functional.conv2d(X, W)
    assert not capfd.readouterr().err
    with dc.options(verbose=True):
        dc.functional.conv2d(X, W)
    assert capfd.readouterr().err.count("dilconv") == 1
    dc.functional.conv2d(X, W)
    assert not capfd.readouterr().err


def test_info_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "dilconv_ext", "info"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    for word in (*_C.kernels(), *_C.isas(), torch.__version__, dc.__version__):
        assert word in result.stdout
