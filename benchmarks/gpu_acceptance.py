"""Everything that only a GPU can tell, in one command of at most ten minutes.

Builds the extension for the card found, runs the test-suite on CUDA tensors, compute-sanitizer on a
few of them if it is there, and times the kernels beside cuDNN. Whatever ends it early, what was
found until then is in the output folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Layers of shapes.py, the most telling first. A GPU wants more samples at a time than a CPU.
LAYERS = (
    "depthwise-256-d2",
    "wide-256-d2",
    "aspp-512-33-r12",
    "narrow-64-d4",
    "pointwise-256-64",
    "depthwise-128-7x7",
    "depthwise-960-d4",
    "strided-128-d2",
    "wide-512-d4",
    "grouped-128-g32",
    "depthwise-96-31x31",
    "aspp-256-65-r6",
    "tasnet-512-d128",
    "spectrogram-32-d8",
)
QUICK_LAYERS = ("tiny-16-depthwise", "tiny-4-d2", "tiny-4-1d")
BATCH_FACTOR = 16
SECONDS, SAMPLE_SECONDS = 0.1, 0.002
# Of the time that is left when a part starts.
TEST_SHARE, SANITIZER_SHARE = 0.45, 0.15
# A few tests of every kernel, small enough for a tool that runs a hundred times slower.
SANITIZED = "test_kernel_on_problem and (dilated_per_axis or groups_2 or depthwise) and sm_"
WRITE_SECONDS = 15  # kept for tables and charts


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpu_acceptance", description=__doc__, epilog="benchmarks/README.md says more."
    )
    add = parser.add_argument
    add("--minutes", type=float, default=8, help="to take at most [%(default)s]")
    add("--skip", nargs="+", choices=("build", "tests", "sanitizer", "benchmarks"), default=())
    add("--quick", action="store_true", help="tiny layers; times without meaning")
    add("--tests", type=shlex.split, default=[], metavar="ARGS", help="more arguments for pytest")
    add("--output", type=Path, default=Path("output", "gpu"), metavar="DIR", help="[%(default)s]")
    return parser.parse_args(arguments)


class Report:
    """What was found so far; every change is written at once."""

    def __init__(self, folder: Path, minutes: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.found: dict[str, str] = {}
        self._start = time.monotonic()
        self._seconds = 60 * minutes

    def left(self) -> float:
        """Seconds."""
        return self._seconds - (time.monotonic() - self._start)

    def note(self, part: str, text: str) -> None:
        self.found[part] = text
        passed = time.monotonic() - self._start
        print(f"[{passed:4.0f} s] {part}: {text}", flush=True)
        lines = [f"{name}: {value}\n" for name, value in self.found.items()]
        (self.folder / "acceptance.txt").write_text("".join(lines), encoding="utf-8")

    @property
    def status(self) -> int:
        """1 if anything failed, 3 if the time ran out for anything, else 0."""
        if any(text.startswith("FAILED") for text in self.found.values()):
            return 1
        return 3 if any(text.startswith("cut") for text in self.found.values()) else 0


def run(
    command: Sequence[str], log: Path, seconds: float, **variables: str
) -> tuple[int | None, str]:
    """Run a command in the checkout for at most so long; an interrupt lets pytest still report.

    Its environment has ``variables`` besides ours, and first on the PATH what is installed beside
    this Python: a build looks there for ninja.

    Returns:
        Its status, None if it was cut, and the last line that it printed.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, "PATH": path, **variables}
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        status: int | None
        try:
            status = process.wait(max(seconds, 1))
        except subprocess.TimeoutExpired:
            status = None
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()  # a background job of a shell ignores interrupts
                process.wait()
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return status, lines[-1].strip("= ") if lines else ""


def verdict(status: int | None, last: str) -> str:
    if status is None:
        return ("FAILED and cut: " if "failed" in last else "cut: ") + last
    return ("passed: " if status == 0 else f"FAILED ({status}): ") + last


def build(report: Report) -> None:
    options = ["--no-build-isolation", "--no-deps", "--quiet", "-e", "."]
    command = [sys.executable, "-m", "pip", "install", *options]
    report.note("build", verdict(*run(command, report.folder / "build.txt", report.left())))


def pytest(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "--device", "cuda", "-q", *arguments]


def test(report: Report, further: Sequence[str]) -> None:
    log = report.folder / "tests.txt"
    report.note("tests", verdict(*run(pytest(*further), log, TEST_SHARE * report.left())))


def sanitize(report: Report) -> None:
    name, home = "compute-sanitizer", os.environ.get("CUDA_HOME", "/usr/local/cuda")
    tool = shutil.which(name) or shutil.which(name, path=f"{home}/bin")
    if tool is None:
        report.note("sanitizer", "not run: there is no compute-sanitizer")
        return
    for check in ("memcheck", "racecheck"):
        options = ["--tool", check, "--error-exitcode", "9", "--target-processes", "all"]
        command = [tool, *options, *pytest("-k", SANITIZED, "tests/test_ops.py")]
        log, seconds = report.folder / f"{check}.txt", SANITIZER_SHARE * report.left()
        # Each tensor an allocation of its own: else what is past its end is torch's memory, too.
        found = run(command, log, seconds, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
        report.note(check, verdict(*found))


def rows(quick: bool) -> Iterator[Any]:
    """By layer, then by dtype: whenever the time runs out, there are rows of every dtype."""
    from cases import DIRECTIONS, GPU_DTYPES, LAYOUTS, Row
    from shapes import SHAPES

    by_name = {shape.name: shape for shape in SHAPES}
    layers = [by_name[name] for name in (QUICK_LAYERS if quick else LAYERS)]
    factor = 1 if quick else BATCH_FACTOR
    for shape, dtype in itertools.product(layers, GPU_DTYPES):
        shape = replace(shape, n=factor * shape.n)
        for layout in LAYOUTS[:1] if shape.rank == 1 else LAYOUTS:
            for direction in DIRECTIONS:
                yield Row(shape, dtype, layout, 1, direction, "cuda")


def benchmark(report: Report, quick: bool) -> None:
    """Time until the time is up; tables are rewritten as they grow, charts drawn at the end."""
    import bench
    import charts
    import gpu
    from cases import GPU_DTYPES
    from report import environment
    from worker import Worker

    options = bench.parse(["--seconds", str(SECONDS)])  # for what bench.measure reads
    options.sample = SAMPLE_SECONDS
    wanted = list(rows(quick))
    results: list[Any] = []
    with Worker("spawn") as worker:
        machine = {1: worker.run(gpu.machine, GPU_DTYPES, quick)}
        about = environment()
        try:
            for row in wanted:
                if report.left() < WRITE_SECONDS:
                    break
                results.append(bench.measure(row, worker, options))
                if "failed" in results[-1].note:
                    worker.renew()  # an error of the GPU stays with the process
                if len(results) % 8 == 0:
                    write(report, results, machine, about)
                    report.note("benchmarks", f"{len(results)} of {len(wanted)} rows")
        except KeyboardInterrupt:
            print("interrupted: the rest is not measured", file=sys.stderr)
    write(report, results, machine, about)
    pictures = charts.draw_all(results, machine, report.folder)
    failed = [f"{r.row}: {r.note}" for r in results if r.failed]
    state = "FAILED" if failed else "done" if len(results) == len(wanted) else "cut"
    count = f"{len(results)} of {len(wanted)} rows, {len(pictures)} charts"
    report.note("benchmarks", "; ".join([f"{state}: {count}", *failed]))


def write(report: Report, results: list[Any], machine: Any, about: dict[str, Any]) -> None:
    from report import machine_table, row_table, summary_table, to_json

    tables = "\n\n".join(
        (
            row_table(results, machine),
            "Geometric means of cuDNN's time / ours (and the worst)\n" + summary_table(results),
            "The GPU\n" + machine_table(machine),
        )
    )
    (report.folder / "tables.txt").write_text(tables + "\n", encoding="utf-8")
    text = json.dumps(to_json(results, machine, about), indent=1)
    (report.folder / "results.json").write_text(text + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 1 if anything failed, 2 without a GPU, 3 if the time ran out for anything, else 0."""
    options = parse(arguments)
    import torch

    if not torch.cuda.is_available():
        what = "a CUDA build of torch" if torch.version.cuda is None else "a GPU and its driver"
        print(f"this needs {what}; torch here is {torch.__version__}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end like Ctrl-C's
    report = Report(options.output, options.minutes)
    card = torch.cuda.get_device_properties()
    report.note("machine", f"{card.name}, sm_{card.major}{card.minor}, torch {torch.__version__}")
    if "build" not in options.skip:
        build(report)
    sys.path.insert(0, str(ROOT))  # where the build is, also for the processes that measure
    from dilconv_ext import _C

    if not _C.kernels("cuda"):
        report.note("build", "FAILED: it has no CUDA kernels, see build.txt")
        return 1
    report.note(
        "kernels", f"{', '.join(_C.kernels('cuda'))} for {_C.build_info()['cuda_capabilities']}"
    )
    if "tests" not in options.skip:
        test(report, options.tests)
    if "sanitizer" not in options.skip:
        sanitize(report)
    if "benchmarks" not in options.skip:
        benchmark(report, options.quick)
    print(f"tables, charts and logs are in {report.folder}")
    return report.status


if __name__ == "__main__":
    sys.exit(main())
