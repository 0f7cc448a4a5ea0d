"""The benchmark counts right, notices a wrong or crashing peer, and runs. No time is asserted."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch._inductor.utils import run_and_get_code

pytest.importorskip("matplotlib")
pytest.importorskip("tabulate")
pytest.importorskip("tqdm")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import bench
import cases
import counting
import gpu_acceptance
import jobs
import networks
import random_shapes
import relu_masks
import report
from cases import DIRECTIONS, Row
from shapes import SHAPES, Shape
from worker import CrashedError, Worker

BY_NAME = {shape.name: shape for shape in SHAPES}
GRADIENTS = DIRECTIONS[:3]


def one_channel(shape: Shape) -> Shape:
    return replace(shape, n=1, c_in=1, c_out=1, groups=1)


def layer(shape: Shape, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """The layer of one channel, by torch."""
    geometry = (None, shape.stride, shape.padding)
    if shape.transposed:
        return F.conv_transpose2d(x, w, *geometry, shape.output_padding, 1, shape.dilation)
    return (F.conv1d if shape.rank == 1 else F.conv2d)(x, w, *geometry, shape.dilation)


def test_every_layer_has_a_name_of_its_own():
    assert len(BY_NAME) == len(SHAPES)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_useful_products_are_those_that_a_convolution_of_ones_sums(shape):
    one = one_channel(shape)
    x = torch.ones(one.input_shape, dtype=torch.float64)
    w = torch.ones(one.weight_shape, dtype=torch.float64)
    y = layer(one, x, w)
    assert y.shape == one.output_shape
    assert counting.useful_products(one) == y.sum()
    channels = shape.n * shape.c_in * shape.c_out // shape.groups
    assert counting.useful_products(shape) == channels * counting.useful_products(one)


@pytest.mark.parametrize("name", ["pointwise-256-512-s2", "strided-128-d2", "wavenet-64-d512"])
def test_touched_pixels_are_those_with_a_gradient(name):
    one = one_channel(BY_NAME[name])
    x = torch.zeros(one.input_shape, dtype=torch.float64, requires_grad=True)
    layer(one, x, torch.ones(one.weight_shape, dtype=torch.float64)).sum().backward()
    assert counting.touched_pixels(one) == x.grad.count_nonzero()


def test_least_bytes_and_floor():
    shape = BY_NAME["pointwise-256-512-s2"]  # a stride of 2 reads a quarter of the input's pixels
    image, grid, weight = 2 * 256 * 56 * 56, 2 * 512 * 28 * 28, 512 * 256
    assert counting.least_bytes(shape, "forward", 4) == 4 * (image // 4 + grid + weight)
    assert counting.least_bytes(shape, "grad_input", 4) == 4 * (image + grid + weight)
    machine = {1: {"flops": {"float32": 1e15}, "bandwidth": {"1024": 2e9, "4096": 1e9}}}
    row = Row(shape, "float32", "contiguous", 1, "forward")
    moved = counting.least_bytes(shape, "forward", 4)
    assert report.floor_seconds(row, machine) == pytest.approx(moved / 1e9)
    machine[1]["flops"]["float32"] = 1.0
    assert report.floor_seconds(row, machine) == 2 * counting.useful_products(shape)
    step = replace(row, direction="step")
    parts = [report.floor_seconds(replace(row, direction=one), machine) for one in GRADIENTS]
    assert report.floor_seconds(step, machine) == sum(parts)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("name", ["tiny-4-d2", "tiny-4-1d", "tiny-16-depthwise", "generator-up"])
def test_both_sides_compute_the_row(name, layout, direction):
    row = Row(replace(BY_NAME[name], n=1), "float64", layout, 1, direction)
    for call in (cases.ours(row), cases.baseline(row)):
        assert not cases.is_wrong(row, cases.error(row, call()))
    assert cases.backend(row)
    assert len(cases.kernels(row)) == (3 if direction == "step" else 1)


def test_errors_are_noticed():
    row = Row(BY_NAME["tiny-4-d2"], "float32", "contiguous", 1, "forward")
    right = cases.ours(row)()
    assert cases.error(row, right) < 1e-6
    for spoilt in (right * 1.001, right.new_full(right.shape, torch.nan), right[..., 1:]):
        assert cases.is_wrong(row, cases.error(row, spoilt))


class Here:
    """A worker that stays in this process."""

    def __init__(self, *_):
        pass

    def run(self, job, *arguments):
        return job(*arguments)

    def renew(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize("note", ["F.conv2d wrong", "F.conv2d crashed", "F.conv2d failed: no"])
def test_a_bad_baseline_is_marked_and_not_timed(monkeypatch, note):
    def check_baseline(row):
        if note.endswith("crashed"):
            raise CrashedError
        if note.endswith("no"):
            raise RuntimeError("no")
        return {"error": float("nan"), "backend": "Mkldnn"}

    monkeypatch.setattr(jobs, "check_baseline", check_baseline)
    row = Row(BY_NAME["tiny-4-d2"], "float32", "contiguous", 1, "forward")
    options = SimpleNamespace(seconds=0.0, sample=1e-4, memory=False, clock="wall")
    result = bench.measure(row, Here(), options)
    assert result.note == note
    assert not result.failed
    assert result.seconds is not None
    assert result.baseline_seconds is result.ratio is None


def test_a_wrong_result_of_ours_fails(monkeypatch):
    checked = {"error": 0.1, "kernel": "direct", "workspace_bytes": 0}
    monkeypatch.setattr(jobs, "check_ours", lambda row: checked)
    row = Row(BY_NAME["tiny-4-d2"], "float32", "contiguous", 1, "forward")
    result = bench.measure(row, Here(), SimpleNamespace())
    assert (result.note, result.failed, result.seconds) == ("ours wrong", True, None)


def test_ratios_are_taken_round_by_round():
    result = report.Result(Row(BY_NAME["tiny-4-d2"], "float32", "contiguous", 1, "forward"))
    result.set_times([[1.0, 10.0, 2.0], [2.0, 20.0, 4.0]])
    assert (result.seconds, result.baseline_seconds) == (2.0, 4.0)
    assert (result.ratio, result.spread) == (2.0, 0.0)
    assert report.summarise([result, result]) == "2.00 (2.00 tiny-4-d2)"


def quick_run(folder: Path, *arguments: str) -> set[str]:
    """Run the driver, which prints the JSON that it writes; return which charts it drew."""
    assert bench.main(["--quick", "--json", "--output", str(folder), *arguments]) == 0
    written = json.loads((folder / "results.json").read_text())
    for row in written["rows"]:
        assert row["note"] == "" or row["note"].startswith("F.conv2d")
        assert row["seconds"] > 0
        assert row["floor_seconds"] > 0
        assert row["kernel"]
        assert row["ratio"] is None or row["backend"]
    tables = (folder / "tables.txt").read_text()
    assert all(row["name"] in tables and row["family"] in tables for row in written["rows"])
    return {path.stem for path in folder.glob("*.png")}


def test_quick_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "Worker", Here)
    drawn = quick_run(tmp_path, "--families", "tiny", "sweep-size")
    assert drawn == {"ratio-float32", "roofline-float32-1", "sweep-size"}
    assert json.loads(capsys.readouterr().out) == json.loads(
        (tmp_path / "results.json").read_text()
    )


def test_layers_drawn_at_random_are_reproducible():
    drawn = random_shapes.draw(60, 1)
    assert random_shapes.draw(20, 1) == drawn[:20]
    assert [shape.name for shape in drawn] == [f"random-1-{number}" for number in range(60)]
    other = [replace(shape, name="") for shape in random_shapes.draw(60, 2)]
    assert not set(other) & {replace(shape, name="") for shape in drawn}


def test_layers_drawn_at_random_are_valid_and_bounded():
    drawn = random_shapes.draw(300, 1)
    assert {shape.family for shape in drawn} == set(random_shapes.FAMILIES)
    for shape in drawn:
        assert 2e6 <= counting.useful_flops(shape, "forward") <= 4e8
        sizes = (shape.input_shape, shape.weight_shape, shape.output_shape)
        meta = [torch.empty(size, device="meta") for size in sizes]
        assert max(tensor.numel() for tensor in meta) <= 1 << 22
        geometry = (None, shape.stride, shape.padding, shape.dilation, shape.groups)
        y = (F.conv1d if shape.rank == 1 else F.conv2d)(*meta[:2], *geometry)
        assert y.shape == shape.output_shape
        assert (shape.family == "random-1d") == (shape.rank == 1)
        if shape.rank == 2:
            assert (shape.family == "random-dense") == (shape.groups == 1)
        if shape.family == "random-depthwise":
            assert shape.groups == shape.c_in


def test_quick_run_of_layers_drawn_at_random(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "Worker", Here)
    options = ["--random", "20", "--seed", "3", "--directions", "forward"]
    quick_run(tmp_path, *options, "--layouts", "contiguous")
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    drawn = {shape.name: shape.family for shape in random_shapes.draw(20, 3)}
    assert {row["family"] for row in rows} == set(drawn.values())
    assert len(rows) == len(set(drawn.values()))
    assert all(drawn[row["name"]] == row["family"] for row in rows)


def test_slow_rows_are_counted_and_the_worst_listed():
    row = Row(BY_NAME["tiny-4-d2"], "float32", "contiguous", 1, "forward")
    results = [report.Result(row, ratio=ratio, spread=0.0) for ratio in (0.95, 0.94, 0.79, 2.0)]
    results += [report.Result(row, note="F.conv2d wrong")]
    assert report.slower_table(results).splitlines()[-1].split()[2:] == ["5", "4", "2", "1"]
    lines = report.worst_table([*results, *results[:1] * 10]).splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["0.79", "0.94", *["0.95"] * 8]


@pytest.mark.slow
def test_quick_run_in_other_processes(tmp_path):
    quick_run(tmp_path, "--families", "tiny", "--directions", "forward", "--memory")


@pytest.mark.slow
def test_a_worker_outlives_its_process():
    with Worker() as worker:
        with pytest.raises(CrashedError):
            worker.run(os._exit, 1)
        assert worker.run(abs, -1) == 1


def test_networks_are_converted_whole_and_lose_alike(tmp_path, capsys):
    options = ["--networks", "espnet", "tcn", "--threads", "1", "--seconds", "0.01"]
    assert networks.main([*options, "--output", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert [result["network"] for result in results] == ["espnet", "tcn"]
    assert all(result["kept"] == 0 and result["ratio"] > 0 for result in results)
    assert "espnet" in capsys.readouterr().out


@pytest.mark.slow
def test_a_relu_before_a_sum_is_compiled_with_a_mask(capsys):
    x, y = (torch.randn(4, 8, requires_grad=True) for _ in range(2))
    _, programs = run_and_get_code(torch.compile(relu_masks.residual), x, y)
    assert "torch.bool" in programs[0]
    assert relu_masks.main(["--seconds", "0.01"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_networks_that_lose_differently_are_noticed(monkeypatch):
    def scaled(network):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1.1)
        return network

    monkeypatch.setattr(networks.dc, "convert", scaled)
    with pytest.raises(AssertionError, match="losses differ"):
        networks.measure("espnet", "contiguous", 1, 0.01)


def test_the_rows_for_a_gpu():
    """Every dtype and direction of every layer, with names that the tables of rates know."""
    wanted = list(gpu_acceptance.rows(quick=False))
    assert {row.shape.name for row in wanted} == set(gpu_acceptance.LAYERS)
    assert {row.direction for row in wanted} == set(DIRECTIONS)
    assert {row.dtype for row in wanted} == set(cases.GPU_DTYPES)
    assert {row.device for row in wanted} == {"cuda"}
    # A run that is cut after the first layer has seen every dtype.
    first = [row for row in wanted if row.shape == wanted[0].shape]
    assert wanted[: len(first)] == first
    assert {row.dtype for row in first} == set(cases.GPU_DTYPES)
    assert all(report.item_bytes(row) in (2, 4) for row in wanted)


def test_what_was_found_before_a_cut_is_kept(tmp_path):
    """A part that takes too long is interrupted, and the file has what was known until then."""
    found = gpu_acceptance.Report(tmp_path, minutes=1)
    code = "import time; print('begun', flush=True); time.sleep(60)"
    status = gpu_acceptance.run([sys.executable, "-c", code], tmp_path / "log.txt", 0.5)
    assert found.status == 0
    found.note("tests", gpu_acceptance.verdict(*status))
    assert found.status == 3
    found.note("benchmarks", gpu_acceptance.verdict(3, "1 failed"))
    assert found.status == 1
    lines = (tmp_path / "acceptance.txt").read_text().splitlines()
    assert lines[0].startswith("tests: cut: ")
    assert lines[1] == "benchmarks: FAILED (3): 1 failed"


def test_a_build_finds_what_is_installed_beside_python(tmp_path, monkeypatch):
    """Else torch builds without ninja: one file after the other, longer than there is time."""
    monkeypatch.setenv("PATH", os.defpath)
    code = "import os; print(os.environ['PATH'])"
    status, path = gpu_acceptance.run([sys.executable, "-c", code], tmp_path / "log.txt", 60)
    assert status == 0
    assert path.split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_the_sanitizer_sees_each_tensor_as_an_allocation(tmp_path, monkeypatch):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text("#!/bin/sh\necho caching off: $PYTORCH_NO_CUDA_MEMORY_CACHING\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), os.defpath]))
    report = gpu_acceptance.Report(tmp_path / "out", minutes=1)
    gpu_acceptance.sanitize(report)
    assert report.found == dict.fromkeys(("memcheck", "racecheck"), "passed: caching off: 1")


@pytest.fixture
def rows_on_the_cpu(monkeypatch):
    """A tiny row of each dtype of the acceptance of a GPU, that needs none."""
    by_dtype = {row.dtype: row for row in gpu_acceptance.rows(quick=True)}
    wanted = [replace(row, device="cpu") for row in by_dtype.values()]
    limits = {"flops": dict.fromkeys(cases.GPU_DTYPES, 1e12), "bandwidth": {"65536": 1e11}}
    monkeypatch.setattr("worker.Worker", Here)
    monkeypatch.setattr("gpu.machine", lambda dtypes, quick: limits)
    monkeypatch.setattr(gpu_acceptance, "rows", lambda quick: wanted)
    monkeypatch.setattr(gpu_acceptance, "SECONDS", 0.0)
    monkeypatch.setattr(gpu_acceptance, "SAMPLE_SECONDS", 1e-5)
    return wanted


def test_the_rows_for_a_gpu_are_measured(tmp_path, rows_on_the_cpu):
    """By the driver's own code, with the options that it has."""
    found = gpu_acceptance.Report(tmp_path, minutes=5)
    gpu_acceptance.benchmark(found, quick=True)
    count = len(rows_on_the_cpu)
    assert found.found["benchmarks"].startswith(f"done: {count} of {count} rows")
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert {row["dtype"] for row in rows} == set(cases.GPU_DTYPES)
    assert all(row["seconds"] > 0 for row in rows)
    assert all(row["name"] in (tmp_path / "tables.txt").read_text() for row in rows)


def test_rows_that_there_was_no_time_for_are_a_cut(tmp_path, rows_on_the_cpu):
    found = gpu_acceptance.Report(tmp_path, minutes=0)
    gpu_acceptance.benchmark(found, quick=True)
    assert found.found["benchmarks"].startswith(f"cut: 0 of {len(rows_on_the_cpu)} rows")
    assert found.status == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_acceptance_of_a_gpu_needs_one(tmp_path, capsys):
    assert gpu_acceptance.main(["--output", str(tmp_path / "none")]) == 2
    assert "this needs" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
