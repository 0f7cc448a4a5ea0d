"""Faults planted in the GPU's kernels, as data: each must be found, by the check that is named.

Of each kernel and each pass: a barrier that is missing, a mask that is off by one, memory that is
overrun, operands that are swapped, as far as it has such. To add one, add a row. ``old`` must occur
in the file, once unless ``times`` says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import PurePath

# What the emulator, or the comparison with the reference kernel, says.
RACE = r"race: (reads|writes)"
NOT_WAITED_FOR = r"asynchronous copy that was not waited for"
OUTSIDE_SHARED = r"accesses bytes .* of shared memory"
OUTSIDE_GLOBAL = r"accesses bytes .* of (x|w|y|bias|workspace)"
WRONG = r"relative error"


@dataclass(frozen=True)
class Mutant:
    """A fault: what is replaced in which file of csrc/cuda, and what must be said of it."""

    name: str
    kernel: str  # that has the fault
    problem: str  # of tests/kernels/sizes.h, on which it shows
    op: str
    unit: str  # the file to compile
    file: str
    old: str
    new: str
    finds: str
    times: int = 1

    def __str__(self) -> str:
        return f"{PurePath(self.unit).stem}-{self.op}-{self.name}"


def _depthwise(
    unit: str, name: str, *fault: str, op: str, problem: str = "depthwise, stride"
) -> Mutant:
    return Mutant(name, "depthwise", problem, op, f"depthwise/{unit}.cu", *fault)


_planes = partial(_depthwise, "planes", op="conv2d")
_planes_weight = partial(_depthwise, "planes_weight", op="grad_weight")
_pixels = partial(_depthwise, "pixels", op="conv2d")
_pixels_weight = partial(_depthwise, "pixels_weight", op="grad_weight")


def _gemm(
    kernel: str,
    name: str,
    *fault: str,
    op: str = "conv2d",
    problem: str = "channels fill vectors, strided",
) -> Mutant:
    unit = "tf32" if kernel == "tensor_cores_tf32" else kernel
    return Mutant(name, kernel, problem, op, f"gemm/{unit}.cu", *fault)


# What all ways to multiply share, in the one that is compiled soonest.
_pack = partial(_gemm, "tensor_cores_tf32")
_gemm_weight = partial(_gemm, "tensor_cores_tf32", op="grad_weight")
_split = partial(_gemm, op="grad_input", problem="split sum of a gradient")

# The faults that every implicit GEMM can have, whatever it multiplies with.
_PIPELINE = [
    (
        "missing barrier",
        "gemm/pipeline.h",
        "    block_barrier();\n",
        "",
        f"{RACE}|{NOT_WAITED_FOR}",
    ),
    (
        "wait for too few copies",
        "gemm/pipeline.h",
        "wait_async<kStages - 2>",
        "wait_async<kStages - 1>",
        NOT_WAITED_FOR,
    ),
    (
        "off by one in a mask",
        "gemm/image.h",
        "unsigned(row.x + column.x) < unsigned(image_.width)",
        "unsigned(row.x + column.x) <= unsigned(image_.width)",
        f"{WRONG}|{OUTSIDE_GLOBAL}",
    ),
    (
        "overrun of shared memory",
        "gemm/tiles.h",
        "kGatherTableBytes + kStages * kStageBytes",
        "kGatherTableBytes + (kStages - 1) * kStageBytes",
        OUTSIDE_SHARED,
    ),
]

MUTANTS = [
    _planes(
        "off by one in a mask",
        "depthwise/planes.cu",
        "if (first + r < to_)",
        "if (first + r <= to_)",
        f"{RACE}|{OUTSIDE_GLOBAL}",
        op="grad_input",
    ),
    _planes(
        "missing barrier",
        "depthwise/planes.cu",
        "      block_barrier();\n      add(sums, tap, shift);",
        "      add(sums, tap, shift);",
        RACE,
    ),
    _planes(
        "off by one in an edge",
        "depthwise/tile.h",
        "unsigned(w) < unsigned(source.width)",
        "unsigned(w) <= unsigned(source.width)",
        f"{WRONG}|{OUTSIDE_GLOBAL}",
    ),
    _planes(
        "overrun of shared memory",
        "depthwise/planes.cu",
        "round_up(plan.tile.planes, 2) * int64_t(sizeof(int64_t)) +",
        "",
        OUTSIDE_SHARED,
    ),
    _planes(
        "overrun in the padding",
        "depthwise/sums.h",
        "    if (first >= last) return;  // then `first` may lie beyond what there is to read\n",
        "",
        OUTSIDE_SHARED,
        problem="depthwise, tiles in the padding",
    ),
    _planes(
        "vectors of weights off their place",
        "depthwise/planes.cu",
        "return round_up(plan.rows.most_taps(), rows);",
        "return plan.rows.most_taps();",
        f"{WRONG}|{RACE}|{OUTSIDE_SHARED}|aligned",
        op="grad_input",
    ),
    _planes_weight(
        "missing barrier",
        "depthwise/planes_weight.cu",
        "    find_planes(first_image);\n    block_barrier();\n",
        "    find_planes(first_image);\n",
        RACE,
    ),
    _planes_weight(
        "overrun of shared memory",
        "depthwise/planes_weight.cu",
        "return 2 * plan.y_tile.planes * int64_t(sizeof(int64_t))",
        "return plan.y_tile.planes * int64_t(sizeof(int64_t))",
        OUTSIDE_SHARED,
    ),
    _planes_weight(
        "off by one in a mask",
        "depthwise/planes_weight.cu",
        "if (row >= plan_.rows.kernel ||",
        "if (row > plan_.rows.kernel ||",
        f"{RACE}|{OUTSIDE_GLOBAL}",
    ),
    _planes_weight(
        "off by one in the splits",
        "depthwise/partial_sums.h",
        "split < plan.splits;",
        "split <= plan.splits;",
        f"{WRONG}|{OUTSIDE_GLOBAL}",
    ),
    _planes_weight(
        "lanes left out",
        "depthwise/partial_sums.h",
        "for (int mask = kWarp / 2; mask > 0; mask /= 2)",
        "for (int mask = kWarp / 2; mask > 1; mask /= 2)",
        WRONG,
    ),
    _pixels(
        "missing barrier before new weights",
        "depthwise/pixels.cu",
        "        block_barrier();  // all have read the weights before these\n",
        "",
        RACE,
        op="grad_input",
    ),
    _pixels(
        "missing barrier after new weights",
        "depthwise/pixels.cu",
        "width, d);\n        block_barrier();\n",
        "width, d);\n",
        RACE,
    ),
    _pixels(
        "off by one in the top and bottom edge",
        "depthwise/pixels.cu",
        "if (unsigned(row) >= unsigned(axis.read_size))",
        "if (unsigned(row) > unsigned(axis.read_size))",
        f"{WRONG}|{OUTSIDE_GLOBAL}",
    ),
    _pixels(
        "off by one in the left and right edge",
        "depthwise/pixels.cu",
        "if (unsigned(column) >= unsigned(plan.columns.read_size)) continue;",
        "if (unsigned(column) > unsigned(plan.columns.read_size)) continue;",
        f"{WRONG}|{OUTSIDE_GLOBAL}",
    ),
    _pixels(
        "off by one in a mask",
        "depthwise/pixels.cu",
        "if (place.from + r >= plan.rows.phase_size(place.phase)) break;",
        "if (place.from + r > plan.rows.phase_size(place.phase)) break;",
        f"{RACE}|{OUTSIDE_GLOBAL}",
        op="grad_input",
    ),
    _pixels(
        "overrun of shared memory",
        "depthwise/pixels.cu",
        "grid.shared_bytes = size_t(taps) *",
        "grid.shared_bytes = size_t(taps - 1) *",
        OUTSIDE_SHARED,
    ),
    _pixels_weight(
        "missing barrier",
        "depthwise/pixels_weight.cu",
        "    block_barrier();\n    if (!wanted()) return;",
        "    if (!wanted()) return;",
        RACE,
    ),
    _pixels_weight(
        "off by one in a mask",
        "depthwise/pixels_weight.cu",
        "if (first_tap_ + t >= plan_.rows.kernel) break;",
        "if (first_tap_ + t > plan_.rows.kernel) break;",
        f"{RACE}|{OUTSIDE_GLOBAL}",
    ),
    _pixels_weight(
        "overrun of shared memory",
        "depthwise/pixels_weight.cu",
        "grid.shared_bytes = size_t(plan.slices.value()) *",
        "grid.shared_bytes = size_t(plan.slices.value() - 1) *",
        OUTSIDE_SHARED,
    ),
    *(_gemm("tensor_cores", *fault) for fault in _PIPELINE),
    _gemm(
        "tensor_cores",
        "swapped fragment",
        "gemm/tensor_core.h",
        "result[0] = {both.at[0], both.at[1]};",
        "result[0] = {both.at[1], both.at[0]};",
        WRONG,
    ),
    _gemm(
        "tensor_cores",
        "swapped transposed fragment",
        "gemm/tensor_core.h",
        "a.at(row + lane / 8 % 2 * 8, depth + lane / 16 * 8 + lane % 8)",
        "a.at(row + lane / 16 * 8, depth + lane / 8 % 2 * 8 + lane % 8)",
        WRONG,
        op="grad_weight",
    ),
    _gemm(
        "tensor_cores",
        "off by one in the epilogue",
        "gemm/gather.h",
        "return channel < p.written_channels ? channel * p.written_channel : kNotWritten;",
        "return channel <= p.written_channels ? channel * p.written_channel : kNotWritten;",
        f"{RACE}|{OUTSIDE_GLOBAL}|{WRONG}",
    ),
    _gemm(
        "tensor_cores",
        "missing barrier after the tables of rows",
        "gemm/gather.h",
        "  block_barrier();\n  DepthLoader",
        "  DepthLoader",
        RACE,
    ),
    _gemm(
        "tensor_cores",
        "tap that is kept too long",
        "gemm/loaders.h",
        "if (column_.inner + kStep < matrix_.columns().inner())",
        "if (column_.inner + kStep <= matrix_.columns().inner())",
        f"{WRONG}|{OUTSIDE_GLOBAL}",
    ),
    _gemm(
        "tensor_cores",
        "swapped fragment of float64",
        "gemm/tensor_core.h",
        "load_shared<double>(a.at(row + lane / 4, depth + lane % 4))",
        "load_shared<double>(a.at(row + lane % 8, depth + lane / 8))",
        WRONG,
    ),
    _pack(
        "overrun by packing",
        "gemm/passes.h",
        "i < elements; i += step) {\n      int row",
        "i <= elements; i += step) {\n      int row",
        f"{RACE}|{OUTSIDE_GLOBAL}",
    ),
    _pack(
        "swapped axes in packing",
        "gemm/passes.h",
        "read * p.read + row * p.row + column * p.column",
        "read * p.read + row * p.column + column * p.row",
        WRONG,
    ),
    _pack(
        "off by one in packing's mask",
        "gemm/passes.h",
        "read < p.read_channels",
        "read <= p.read_channels",
        OUTSIDE_GLOBAL,
        problem="plain 3x3",
    ),
    *(_gemm_weight(*fault) for fault in _PIPELINE[:2]),
    _gemm_weight(
        "missing barrier before the loop",
        "gemm/pipeline.h",
        "    block_barrier();  // a loader",
        "    // a loader",
        RACE,
    ),
    _gemm_weight(
        "overrun of shared memory",
        "gemm/tiles.h",
        "kWeightTableBytes + kStages * kStageBytes",
        "kWeightTableBytes + (kStages - 1) * kStageBytes",
        OUTSIDE_SHARED,
    ),
    _gemm_weight(
        "off by one in the useful positions",
        "gemm/grad_weight.h",
        "highest / stride + 1;",
        "highest / stride;",
        WRONG,
    ),
    _gemm_weight(
        "off by one in the rows",
        "gemm/grad_weight.h",
        "row < p.rows ?",
        "row <= p.rows ?",
        f"{RACE}|{OUTSIDE_GLOBAL}",
    ),
    _gemm_weight(
        "rows of the next slice over those of this one",
        "gemm/loaders.h",
        "    odd_ ^= 1;\n",
        "",
        RACE,
    ),
    _gemm_weight(
        "off by one in the samples",
        "gemm/loaders.h",
        "if (position.outer >= batch)",
        "if (position.outer > batch)",
        f"{WRONG}|{OUTSIDE_GLOBAL}",
    ),
    _gemm_weight(
        "off by one in the table of taps",
        "gemm/loaders.h",
        "tap * channels_per_tap < kTableEntries",
        "(tap + 1) * channels_per_tap < kTableEntries",
        f"{WRONG}|{OUTSIDE_GLOBAL}",
    ),
    _gemm_weight(
        "off by one in the splits",
        "gemm/passes.h",
        "split < splits; ++split",
        "split < splits - 1; ++split",
        WRONG,
        problem="wide rows",
    ),
    _gemm_weight(
        "off by one in the last pass's mask",
        "gemm/passes.h",
        "if (depth >= p.depths) continue;",
        "if (depth > p.depths) continue;",
        f"{RACE}|{OUTSIDE_GLOBAL}",
        problem="plain 3x3",
    ),
    _split(
        "tensor_cores",
        "dropped last split",
        "gemm/passes.h",
        "split < splits; ++split",
        "split < splits - 1; ++split",
        WRONG,
    ),
    _split(
        "tensor_cores",
        "split that begins too early",
        "gemm/gather.h",
        "block.split() * p.split_channels",
        "block.split() * (p.split_channels - 1)",
        f"{WRONG}|misaligned|multiple",
    ),
    _split(
        "tensor_cores",
        "splits that write to one place",
        "gemm/gather.h",
        "written + block.split() * p.written_split + block",
        "written + block",
        RACE,
    ),
    _split(
        "simt",
        "bias not added to splits",
        "gemm/passes.h",
        "if (p.bias) sum +=",
        "if (false) sum +=",
        WRONG,
    ),
    *(_gemm("tensor_cores_tf32", *fault) for fault in _PIPELINE),
    _gemm(
        "tensor_cores_tf32",
        "swapped fragment",
        "gemm/tensor_core.h",
        "a.at(row + lane / 4 + i % 2 * 8, depth + lane % 4 + i / 2 * 4)",
        "a.at(row + lane / 4 + i / 2 * 8, depth + lane % 4 + i % 2 * 4)",
        WRONG,
        op="grad_weight",
    ),
    *(_gemm("simt", *fault) for fault in _PIPELINE),
    _gemm(
        "simt",
        "swapped fragment",
        "gemm/simt.h",
        "multiply_add(upcast(left[i].at[v]), upcast(right.at[v]), sums_[i][j])",
        "multiply_add(upcast(left[i].at[v]), upcast(right.at[v ^ 1]), sums_[i][j])",
        WRONG,
    ),
]
