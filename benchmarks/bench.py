"""Time dilconv_ext beside F.conv2d on named layers; every result is checked before it is timed."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

import counting
import jobs
import random_shapes
import report
import timing
from cases import DIRECTIONS, DTYPES, LAYOUTS, Row, is_wrong
from report import Machine, Result
from shapes import FAMILIES, SHAPES, Shape
from worker import CrashedError, Worker

QUICK_SECONDS = 0.01
LIMIT_SECONDS = 0.5  # for each of the machine's limits
BOTH = ("ours", "baseline")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, epilog="benchmarks/README.md explains the columns."
    )
    add = parser.add_argument
    add("--list", action="store_true", help="list the layers that were chosen, and stop")
    add(
        "--families",
        nargs="+",
        metavar="FAMILY",
        choices=(*FAMILIES, *random_shapes.FAMILIES),
        help=f"of {', '.join(FAMILIES)}; or {', '.join(random_shapes.FAMILIES)} [all]",
    )
    add(
        "--shapes",
        type=re.compile,
        default="",
        metavar="REGEX",
        help="only layers whose name contains a match",
    )
    add("--random", type=int, metavar="N", help="N layers drawn at random instead of the list")
    add("--seed", type=int, default=1, help="of --random [%(default)s]")
    add("--dtypes", nargs="+", choices=DTYPES, default=["float32"])
    add("--layouts", nargs="+", choices=LAYOUTS, default=LAYOUTS, help="memory formats [both]")
    add("--threads", nargs="+", type=int, metavar="N", help="[1 2, as far as there are CPUs]")
    add("--directions", nargs="+", choices=DIRECTIONS, default=DIRECTIONS, help="[all]")
    add("--seconds", type=float, default=0.3, help="to spend on timing each row [%(default)s]")
    add(
        "--clock",
        choices=tuple(timing.CLOCKS),
        default="wall",
        help="cpu: the process's own time, for one thread on a machine that does other work, too",
    )
    add("--memory", action="store_true", help="measure each row's peak memory, too")
    add(
        "--quick",
        action="store_true",
        help="a smoke run: the cheapest layer of each family, one thread, times without meaning",
    )
    add(
        "--output",
        type=Path,
        default=Path("output", "bench"),
        metavar="DIR",
        help="where results.json, tables.txt and the charts go [%(default)s]",
    )
    add("--json", action="store_true", help="print the JSON instead of the tables")
    options = parser.parse_args(arguments)
    options.sample = timing.SAMPLE_SECONDS
    if options.quick:
        options.seconds, options.sample = QUICK_SECONDS, QUICK_SECONDS / 20
    if options.threads is None:
        options.threads = [1] if options.quick or os.cpu_count() == 1 else [1, 2]
    options.shapes = chosen_shapes(options)
    if not options.shapes:
        parser.error("no layer has such a name in these families; see --list")
    return options


def chosen_shapes(options: argparse.Namespace) -> list[Shape]:
    shapes = list(SHAPES)
    if options.random is not None:
        shapes = random_shapes.draw(options.random, options.seed)
    if options.families:
        shapes = [shape for shape in shapes if shape.family in options.families]
    shapes = [shape for shape in shapes if re.search(options.shapes, shape.name)]
    if not options.quick:
        return shapes
    cheapest: dict[str, Shape] = {}
    for shape in sorted(shapes, key=counting.useful_products):
        cheapest.setdefault(shape.family, shape)
    return list(cheapest.values())


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """Every combination, but those that make no difference or that no chart shows."""
    for shape, dtype in itertools.product(options.shapes, options.dtypes):
        sweep = shape.value is not None
        # A tensor in 1-D has no memory formats.
        layouts = options.layouts[:1] if sweep or shape.rank == 1 else options.layouts
        for layout, threads in itertools.product(layouts, options.threads):
            for direction in options.directions:
                if not (sweep and direction == "step"):
                    yield Row(shape, dtype, layout, threads, direction)


def measure(row: Row, worker: Worker, options: argparse.Namespace) -> Result:
    """Check both sides, then time those that are right."""
    result = Result(row)
    checked = attempt(worker, jobs.check_ours, row)
    if isinstance(checked, CrashedError):  # perhaps an earlier row's F.conv2d had spoilt memory
        checked = attempt(worker, jobs.check_ours, row)
    if isinstance(checked, Exception):
        result.note = f"ours {failure(checked)}"
        return result
    result.error, result.kernel = checked["error"], checked["kernel"]
    result.workspace_bytes = checked["workspace_bytes"]
    if is_wrong(row, result.error):
        result.note = "ours wrong"
        return result
    check_baseline(result, worker)
    sides = BOTH[:1] if result.note else BOTH
    how = (options.seconds, options.sample, options.clock)
    times = attempt(worker, jobs.time_row, row, sides, *how)
    if isinstance(times, CrashedError) and sides == BOTH:
        result.note = "F.conv2d crashed"
        times = attempt(worker, jobs.time_row, row, BOTH[:1], *how)
    if isinstance(times, Exception):
        result.note = f"ours {failure(times)}"
        return result
    result.set_times(times)
    if options.memory:
        result.extra_bytes = extra_memory(row, "ours")
        if not result.note:
            result.baseline_extra_bytes = extra_memory(row, "baseline")
    return result


def check_baseline(result: Result, worker: Worker) -> None:
    """Run F.conv2d once, and note what is wrong with it."""
    checked = attempt(worker, jobs.check_baseline, result.row)
    if isinstance(checked, Exception):
        result.note = f"F.conv2d {failure(checked)}"
        return
    result.baseline_error, result.backend = checked["error"], checked["backend"]
    if is_wrong(result.row, result.baseline_error):
        result.note = "F.conv2d wrong"
        worker.renew()  # who writes garbage may have written elsewhere, too


def attempt(worker: Worker, job: Callable[..., Any], *arguments: Any) -> Any:
    """What a job returned or, as a value, what it raised."""
    try:
        return worker.run(job, *arguments)
    except (CrashedError, RuntimeError) as error:
        return error


def failure(error: Exception) -> str:
    if isinstance(error, CrashedError):
        return "crashed"
    return "failed: " + str(error).splitlines()[0][:80]


def extra_memory(row: Row, side: str) -> int | None:
    """The peak, in a process of its own; None where it is unknown."""
    with Worker() as fresh:
        found = attempt(fresh, jobs.extra_memory, row, side)
    return None if isinstance(found, Exception) else found


def limits(worker: Worker, options: argparse.Namespace) -> Machine:
    """What the machine can do at most, by the number of threads."""
    rest = (tuple(options.dtypes), QUICK_SECONDS if options.quick else LIMIT_SECONDS)
    return {threads: worker.run(jobs.machine, threads, *rest) for threads in options.threads}


def run(options: argparse.Namespace) -> tuple[list[Result], Machine]:
    """Measure the machine before and after the rows; an interrupt ends them with what there is."""
    results: list[Result] = []
    with Worker() as worker:
        before = limits(worker, options)
        try:
            # The bar goes to stderr, the tables to stdout.
            with tqdm(list(rows(options)), unit="row", dynamic_ncols=True) as bar:
                for row in bar:
                    bar.set_description(str(row), refresh=False)
                    results.append(measure(row, worker, options))
        except KeyboardInterrupt:
            print("interrupted: the rest is not measured", file=sys.stderr)
            worker.renew()
        return results, report.best_of(before, limits(worker, options))


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 1 if any of our results was wrong, or failed; else 0."""
    options = parse(arguments)
    if options.list:
        for shape in options.shapes:
            print(f"{shape.family:16}{shape.name:26}{shape}")
        return 0
    about = report.environment()
    if about["load"][0] > 0.5:
        print(f"the load is {about['load'][0]:.1f}: times will be noisy", file=sys.stderr)
    results, machine = run(options)
    about["load after"] = list(os.getloadavg())
    written = report.to_json(results, machine, about)
    tables = "\n\n".join(
        [
            report.row_table(results, machine),
            "Geometric means of F.conv2d's time / ours (and the worst)\n"
            + report.summary_table(results),
            "Rows slower than F.conv2d\n" + report.slower_table(results),
            "The worst rows\n" + report.worst_table(results),
            "The machine\n" + report.machine_table(machine),
        ]
    )
    options.output.mkdir(parents=True, exist_ok=True)
    for name, text in (("results.json", json.dumps(written, indent=1)), ("tables.txt", tables)):
        (options.output / name).write_text(text + "\n", encoding="utf-8")
    print(json.dumps(written) if options.json else tables)
    import charts  # not above: every worker imports this file, and matplotlib takes its time

    paths = charts.draw_all(results, machine, options.output)
    print(f"{len(paths)} charts and results.json are in {options.output}", file=sys.stderr)
    failed = [f"{r.row}: {r.note}" for r in results if r.failed]
    print(*failed, sep="\n", end="\n" if failed else "", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
