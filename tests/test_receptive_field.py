"""receptive_field, held against what a network's gradients say it depends on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dilconv_ext as dc

C1, C2 = dc.DilatedConv1d, dc.DilatedConv2d
NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "one layer": (C2(1, 1, 3, dilation=2), (15, 16)),
    "dilations 1 2 4": (
        nn.Sequential(C2(1, 2, 3), nn.Sigmoid(), C2(2, 2, 3, dilation=2), C2(2, 1, 3, dilation=4)),
        (28, 29),
    ),
    "per axis": (nn.Sequential(C2(1, 2, (3, 1), dilation=(3, 1)), C2(2, 1, (1, 5))), (15, 14)),
    "strides and pooling": (
        nn.Sequential(C2(1, 2, 3, stride=2), nn.AvgPool2d(2), C2(2, 1, 2, stride=(1, 2))),
        (33, 34),
    ),
    "padded": (
        nn.Sequential(C2(1, 2, 3, padding="same"), C2(2, 1, 5, stride=2, padding=(2, 1))),
        (23, 22),
    ),
    "four pads": (C2(1, 1, 3, padding=(2, 0, 1, 3), dilation=2), (13, 14)),
    "causal 1-D": (
        nn.Sequential(C1(1, 2, 3, padding=(2, 0)), C1(2, 1, 3, padding=(4, 0), dilation=2)),
        (24,),
    ),
    "torch's own layers": (nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3, 2)), (17, 18)),
}


def seen_by(net: nn.Module, size: tuple[int, ...], position: tuple[int, ...]) -> list[list[int]]:
    """Per axis, the input indices with a gradient from the output at ``position``."""
    net = net.double()
    for p in net.parameters():
        nn.init.uniform_(p, 0.5, 1.0)  # no cancellation
    x = torch.zeros(1, 1, *size, dtype=torch.float64, requires_grad=True)
    (dx,) = torch.autograd.grad(net(x)[(0, 0, *position)], x)
    return [sorted({int(v) for v in axis}) for axis in dx[0, 0].nonzero(as_tuple=True)]


@pytest.mark.parametrize("name", NETWORKS)
def test_field_is_what_gradients_reach(name: str) -> None:
    """In the middle of the image: the size, the step to the neighbour, and the centre."""
    net, size = NETWORKS[name]
    field = dc.receptive_field(net)
    out = net(torch.zeros(1, 1, *size)).shape[2:]
    middle = tuple(n // 2 for n in out)
    here = seen_by(net, size, middle)
    there = seen_by(net, size, tuple(m + 1 for m in middle))
    for axis, (a, b) in enumerate(zip(here, there, strict=True)):
        assert field.size[axis] == a[-1] - a[0] + 1
        assert field.jump[axis] == b[0] - a[0]
        centre = (a[0] + a[-1]) / 2
        assert field.start[axis] == centre - middle[axis] * field.jump[axis]


def traced_size(size: tuple[int, ...]) -> tuple[int, ...]:
    return (1, *(3 * n for n in size))


@pytest.mark.parametrize("name", NETWORKS)
def test_running_a_chain_finds_the_same(name: str) -> None:
    """The numbers from NaNs that were traced are those from the layers' arithmetic."""
    net, size = NETWORKS[name]
    field, traced = dc.receptive_field(net), dc.receptive_field(net, traced_size(size))
    assert (traced.size, traced.jump, traced.start) == (field.size, field.jump, field.start)


class Branches(nn.Module):
    """ASPP with a skip, a layer used twice, and back to the size of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.rates = nn.ModuleList(
            nn.Conv2d(4, 2, 3, padding=rate, dilation=rate) for rate in (1, 3, 5)
        )
        self.twice = C2(6, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.up = nn.ConvTranspose2d(6, 1, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x).relu()
        y = torch.cat([rate(stem) for rate in self.rates], 1)
        y = y + self.twice(self.twice(self.norm(y)))
        return self.up(y) + x


def test_branches_are_followed() -> None:
    net = Branches().train()
    field = dc.receptive_field(net, (1, 72, 70))
    # stem 3; the widest branch adds 10 steps of 2, the two convolutions 2 and 2.
    assert field.size == (3 + 2 * (10 + 2 + 2),) * 2
    assert field.jump == (1, 1)
    assert net.training
    names = [row.name for row in field.layers]
    assert names[0] == "stem"
    assert {"rates.1", "rates.2"} <= set(names)
    # And what the gradients of one output reach is no more.
    here = seen_by(net.eval(), (72, 70), (36, 36))
    assert here[0][-1] - here[0][0] + 1 == field.size[0]


def test_global_layers_and_small_inputs_are_said() -> None:
    pooled = nn.Sequential(C2(1, 2, 3), nn.AdaptiveAvgPool2d(1), C2(2, 1, 1))
    with pytest.raises(ValueError, match="reaches the border"):
        dc.receptive_field(pooled, (1, 20, 20))
    with pytest.raises(ValueError, match="larger input_size"):
        dc.receptive_field(C2(1, 1, 3, dilation=8), (1, 18, 18))
    with pytest.raises(TypeError, match="input_size"):
        dc.receptive_field([dc.Layer(3)], (1, 12, 12))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_field_of_16_bit_models(dtype: torch.dtype) -> None:
    """torch's bfloat16 convolution of one channel spreads NaN over its neighbours."""
    layers = [C2(1, 1, 3, padding=2, dilation=2), nn.BatchNorm2d(1), C2(1, 1, 3, dilation=3)]
    net = nn.Sequential(*layers).to(dtype)
    assert dc.receptive_field(net, (1, 40, 40)).size == (11, 11)
    assert {t.dtype for t in net.parameters()} == {dtype}


def test_effective_field_of_a_mean_filter() -> None:
    """One 5×3 window of ones: all its pixels matter alike, and no others."""
    net = C2(1, 1, (5, 3), padding="same", bias=False)
    nn.init.ones_(net.weight)
    field = dc.effective_field(net, (1, 15, 13))
    assert field.weight.shape == (15, 13)
    inside = field.weight[5:10, 5:8]
    torch.testing.assert_close(inside, torch.full((5, 3), 1 / 15, dtype=torch.float64))
    assert field.extent == (5, 3)
    assert field.deviation == pytest.approx((2**0.5, (2 / 3) ** 0.5))


def test_effective_field_of_recordings() -> None:
    net = C1(1, 1, 5, padding="same", bias=False)
    nn.init.ones_(net.weight)
    field = dc.effective_field(net, (1, 15))
    torch.testing.assert_close(field.weight[5:10], torch.full((5,), 1 / 5, dtype=torch.float64))
    assert field.extent == (5,)
    assert field.deviation == pytest.approx((2**0.5,))
    assert str(field).startswith("length: 95 %")


def test_effective_field_is_smaller_than_the_theoretical() -> None:
    """Paths to the middle of the field outnumber those to its edge."""
    torch.manual_seed(0)
    layers = [C2(4 if i else 1, 4, 3, padding=1) for i in range(8)]
    field = dc.effective_field(nn.Sequential(*layers), (1, 41, 41))
    assert max(field.extent) < 17 == dc.receptive_field(layers).size[0]


def layers_of(*rates: int, kernel: int = 3) -> list[dc.Layer]:
    return [dc.Layer(kernel, dilation=rate) for rate in rates]


@pytest.mark.parametrize(
    ("rates", "unread", "suggestion"),
    [
        ((1, 2, 4), 0, None),
        ((2, 2, 2), 6, (1, 2, 3)),
        ((2, 4, 8), 14, (1, 3, 9)),
        ((1, 1), 0, None),
    ],
)
def test_gridding(rates: tuple[int, ...], unread: int, suggestion: tuple[int, ...] | None) -> None:
    grid = dc.gridding(layers_of(*rates))
    assert len(grid.holes[0]) == unread
    assert grid.size[0] == dc.receptive_field(layers_of(*rates)).size[0]
    if suggestion is None:
        assert grid.suggestion == (None,)
    else:
        (better,) = grid.suggestion
        assert better == suggestion
        assert dc.gridding(layers_of(*better)).holes == ((),)


def test_gridding_is_what_gradients_miss() -> None:
    net = nn.Sequential(C2(1, 2, (3, 1), dilation=(2, 1)), C2(2, 1, (3, 5), dilation=(4, 3)))
    grid = dc.gridding(net)
    out = net(torch.zeros(1, 1, 30, 31)).shape[2:]
    seen = seen_by(net, (30, 31), tuple(n // 2 for n in out))
    for axis in range(2):
        first, last = seen[axis][0], seen[axis][-1]
        missed = sorted(set(range(first, last + 1)) - set(seen[axis]))
        assert tuple(m - first for m in missed) == grid.holes[axis]


def test_printed_table() -> None:
    """One line per layer, with the names of the modules."""
    net = nn.Sequential(C2(1, 2, 3), nn.ReLU(), C2(2, 1, 3, dilation=2))
    field = dc.receptive_field(net)
    lines = str(field).splitlines()
    assert len(lines) == 1 + 2
    assert [row.size for row in field.layers] == [(3, 3), (7, 7)]


def test_layers_without_a_model() -> None:
    layers: list[Any] = [dc.Layer(3), {"kernel_size": 3, "dilation": 2}, dc.Layer(3, stride=2)]
    field = dc.receptive_field(layers)
    assert field.size[0] == 1 + 2 + 4 + 2
    assert field.jump[0] == 2


def test_stops_where_everything_is_seen() -> None:
    field = dc.receptive_field(nn.Sequential(C2(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)))
    assert field.size == (3, 3)


class Unknown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("layers", "error", "word"),
    [
        ([], ValueError, "none"),
        (nn.Sequential(C2(1, 1, 3), Unknown()), ValueError, "Unknown"),
        (nn.Sequential(C2(1, 1, 3), nn.ConvTranspose2d(1, 1, 3)), ValueError, "ConvTranspose2d"),
        ([dc.Layer(0)], ValueError, "kernel_size"),
        ([dc.Layer(3, stride=0)], ValueError, "stride"),
        ([dc.Layer(3, dilation=-1)], ValueError, "dilation"),
        ([3], TypeError, "3"),
        ([C1(1, 1, 3), C2(1, 1, 3)], ValueError, "1"),
    ],
)
def test_says_what_it_cannot_follow(layers: Any, error: type[Exception], word: str) -> None:
    with pytest.raises(error, match=word):
        dc.receptive_field(layers)


def test_command() -> None:
    """`python -m dilconv_ext receptive-field` prints the same numbers."""
    command = [sys.executable, "-m", "dilconv_ext", "receptive-field", "--layers"]
    result = subprocess.run(
        [*command, "k3d1", "k3d2", "k3x5d4s2"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    field = dc.receptive_field([dc.Layer(3), dc.Layer(3, dilation=2), dc.Layer((3, 5), 2, 4)])
    for line in str(field).splitlines():
        for number in line.split("  ")[1:]:
            assert number.strip() in result.stdout


def build() -> nn.Module:
    """What --model names below."""
    return Branches()


def test_command_runs_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    from dilconv_ext.__main__ import main

    command = ["receptive-field", "--model", "test_receptive_field:build", "--input"]
    assert main([*command, "1", "72", "70"]) == 0
    printed = capsys.readouterr().out
    assert str(dc.receptive_field(Branches(), (1, 72, 70))) in printed
    assert "height: 95 % of the gradient within" in printed
    for wrong in ("test_receptive_field:nothing", "no_such_module:build", "json"):
        with pytest.raises(SystemExit):
            main(["receptive-field", "--model", wrong])
        assert "package.module:name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--layers", "k0"], "kernel_size must be positive"),
        (["--layers", "k3d0"], "dilation must be positive"),
        (["--layers", "k3", "--picture", "field.foo"], "Format 'foo' is not supported"),
        (["--layers", "k3", "--picture", "no/such/folder/field.png"], "No such file or directory"),
        (["--model", "test_receptive_field:build", "--input", "3"], "input_size must be (C, H, W)"),
        (["--model", "test_receptive_field:build", "--input", "3", "72", "70"], "channels"),
    ],
)
def test_command_refuses_in_a_line(
    arguments: list[str],
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "--picture" in arguments:
        pytest.importorskip("matplotlib")
    from dilconv_ext.__main__ import main

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["receptive-field", *arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "receptive-field: error: " in error
    assert word in error


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_command_draws(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    from dilconv_ext.__main__ import main

    picture = tmp_path / f"field{suffix}"
    assert main(["receptive-field", "--layers", "k3x1d2", "k3d4", "--picture", str(picture)]) == 0
    assert "height: 6 of 13 pixels are never read" in capsys.readouterr().out
    start = picture.read_bytes()[:100]
    assert start.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")


def build_grid() -> nn.Module:
    """Reads every other pixel."""
    return nn.Sequential(*[nn.Conv2d(1, 1, 3, dilation=2, padding=2) for _ in range(2)])


def build_recordings() -> nn.Module:
    return nn.Conv1d(1, 1, 3, padding=1)


@pytest.mark.parametrize(
    ("build", "size", "line"),
    [
        ("build_grid", ["1", "21", "23"], "  4 rows in between get none (gridding)"),
        ("build_recordings", ["1", "40"], "length: 95 % of the gradient within"),
    ],
)
def test_command_draws_a_model(
    build: str, size: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    from dilconv_ext.__main__ import main

    picture = tmp_path / "field.png"
    model = ["--model", f"test_receptive_field:{build}", "--input", *size]
    assert main(["receptive-field", *model, "--picture", str(picture)]) == 0
    assert line in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_holes_of_the_effective_field() -> None:
    field = dc.effective_field(build_grid(), (1, 21, 23))
    assert field.holes == ((7, 9, 11, 13), (8, 10, 12, 14))
    assert dc.effective_field(build_recordings(), (1, 40)).holes == ((),)
