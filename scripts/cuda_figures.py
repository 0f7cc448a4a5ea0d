"""Print what the compiler made of the CUDA kernels, and what they move and multiply.

Registers, local memory (there must be none: no spills), shared memory, occupancy and tensor-core
instructions are read from the binaries. What a kernel is launched with, and its traffic, comes from
the emulated GPU (tests/cuda_emulator/figures.cpp), as JSON. Exit status 1: a kernel uses local
memory, states no launch bound, or does not fit a multiprocessor.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuda_binary import Kernel, read_binaries
from cuda_occupancy import Occupancy, occupancy
from cuda_traffic import Traffic, read_traffic

DTYPES = {
    "double": "float64",
    "float": "float32",
    "dilconv::Half": "float16",
    "dilconv::BFloat16": "bfloat16",
    "signed char": "int8",
    "unsigned char": "uint8",
    "short": "int16",
    "int": "int32",
    "long": "int64",
}


@dataclass(frozen=True, order=True)
class Family:
    """The instances of a kernel's template that differ in neither dtype nor tile."""

    function: str
    multiplication: str
    dtype: str
    tile: str


def split_arguments(text: str) -> list[str]:
    """The template arguments in ``text``, which may have arguments themselves."""
    depth, arguments = 0, [""]
    for character in text:
        depth += {"<": 1, ">": -1}.get(character, 0)
        if character == "," and depth == 0:
            arguments.append("")
        else:
            arguments[-1] += character
    return [argument.strip() for argument in arguments]


def family_of(name: str) -> Family:
    """The family of the kernel with this demangled name."""
    found = re.search(r"(\w+)<(.*)>\(", name)
    if not found:
        return Family(name.split("(")[0].split("::")[-1], "", "", "")
    dtype, *others = split_arguments(found[2])
    multiplication = next((a.split("::")[-1] for a in others if a.endswith("Multiply")), "")
    tile = next((re.findall(r"\d+", a.split("Tile<")[1]) for a in others if "Tile<" in a), [])
    return Family(
        found[1].removesuffix("_kernel"),
        re.sub(r"(?<=[a-z])(?=[A-Z])", " ", multiplication.removesuffix("Multiply")).lower(),
        DTYPES[dtype],
        "x".join(tile[:2]),
    )


def occupancies(kernel: Kernel, traffic: Traffic) -> list[Occupancy]:
    """For what the kernel is launched with, least first; else for a block as large as its bound."""
    blocks = traffic.blocks.get(kernel.name) or {(kernel.bound or 1024, 0)}
    found = {
        occupancy(kernel.arch, kernel.registers, threads, shared + kernel.static_shared)
        for threads, shared in blocks
    }
    return sorted(found, key=lambda o: o.percent)


def faults(kernels: Iterable[Kernel], traffic: Traffic) -> list[str]:
    """What must not be, in words."""
    found = []
    for k in kernels:
        at = f"sm_{k.arch} {k.name}"
        if k.local_memory:
            found.append(f"{at}: spills: {k.local_memory}")
        if k.bound is None:
            found.append(f"{at}: no __launch_bounds__")
        elif any(threads > k.bound for threads, _ in traffic.blocks.get(k.name, ())):
            found.append(f"{at}: launched with more threads than __launch_bounds__")
        if occupancies(k, traffic)[0].blocks == 0:
            found.append(f"{at}: no multiprocessor holds a block")
    return found


def ranged(values: Iterable[float], text: str = "{:.0f}") -> str:
    """The least and the most, as text."""
    texts = [text.format(value) for value in sorted(values)]
    if not texts:
        return ""
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]}–{texts[-1]}"


def tensor_cores(kernels: list[Kernel]) -> str:
    names = sorted({name for k in kernels for name in k.tensor_core_instructions})
    return ", ".join(
        f"{ranged(k.tensor_core_instructions.get(name, 0) for k in kernels)} {name}"
        for name in names
    )


def by_family(kernels: list[Kernel]) -> list[tuple[dict[str, Any], list[Kernel]]]:
    """The kernels of each family, and what names it in a table."""
    families: dict[Family, list[Kernel]] = {}
    for k in kernels:
        families.setdefault(family_of(k.name), []).append(k)
    return [
        (
            {
                "kernel": f"{f.function} {f.multiplication}".strip(),
                "dtype": f.dtype,
                "tile": f.tile,
            },
            families[f],
        )
        for f in sorted(families)
    ]


def family_rows(kernels: list[Kernel], traffic: Traffic, arch: int) -> list[dict[str, Any]]:
    """A row for each family. Its instructions are those for ``arch``."""
    rows = []
    for name, members in by_family(kernels):
        names = {k.name for k in members}
        blocks = {block for name in names for block in traffic.blocks.get(name, ())}
        here = [k for k in members if k.arch == arch]
        occupied = (
            ranged(o.percent for k in members if k.arch == a for o in occupancies(k, traffic))
            for a in sorted({k.arch for k in members})
        )
        rows.append(
            name
            | {
                "variants": len(names),
                "threads": ranged(threads for threads, _ in blocks),
                "shared KiB": ranged((shared / 1024 for _, shared in blocks), "{:.3g}"),
                "registers": ranged(k.registers for k in members),
                "local": "SPILLS" if any(k.local_memory for k in members) else "none",
                "occupancy %": " ".join(occupied),
                f"tensor cores, sm_{arch}": tensor_cores(here),
                f"FMA, sm_{arch}": ranged(k.count("FFMA", "DFMA") for k in here),
            }
        )
    return rows


def traffic_rows(kernels: list[Kernel], traffic: Traffic) -> list[dict[str, Any]]:
    """A row for each family and layout that ran."""
    return [
        name | {"layout": layout} | summary
        for name, members in by_family(kernels)
        for layout, summary in traffic.summaries({k.name for k in members}).items()
    ]


def kernel_rows(kernels: list[Kernel], traffic: Traffic) -> list[dict[str, Any]]:
    """A row for each kernel and compute capability."""
    return [
        {
            "kernel": k.name,
            "arch": f"sm_{k.arch}",
            "registers": k.registers,
            "local memory": k.local_memory or "none",
            "static shared": k.static_shared,
            "bound": k.bound,
            "launched with (threads, shared bytes)": sorted(traffic.blocks.get(k.name, ())),
            "occupancy": [
                f"{o.percent:.0f} % ({o.blocks} blocks: {o.limit})" for o in occupancies(k, traffic)
            ],
            "tensor cores": k.tensor_core_instructions,
            "instructions": sum(k.instructions.values()),
        }
        for k in kernels
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown, columns aligned; those that are empty throughout are left out."""
    columns = [c for c in rows[0] if any(row[c] not in ("", None) for row in rows)]
    cells = [columns] + [[str(row[c]) for c in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [" | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in cells]
    lines.insert(1, "-|-".join("-" * w for w in widths))
    return "\n".join(f"| {line} |" if i != 1 else f"|-{line}-|" for i, line in enumerate(lines))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("binaries", nargs="+", type=Path, help="object files, libraries")
    parser.add_argument(
        "--traffic", type=Path, help="JSON of the emulator's build/emulator/figures"
    )
    parser.add_argument(
        "--arch", type=int, default=80, help="whose instructions are summed up (80)"
    )
    parser.add_argument("--all", action="store_true", help="each kernel and compute capability")
    parser.add_argument("--layers", action="store_true", help="the traffic of each layer by itself")
    parser.add_argument("--json", type=Path, help="write everything to this file as well")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    kernels = read_binaries(options.binaries)
    if not kernels:
        sys.exit("There is no GPU code in " + ", ".join(map(str, options.binaries)))
    traffic = read_traffic(json.loads(options.traffic.read_text()) if options.traffic else [])
    archs = sorted({k.arch for k in kernels})
    arch = options.arch if options.arch in archs else archs[0]
    print(
        table(kernel_rows(kernels, traffic) if options.all else family_rows(kernels, traffic, arch))
    )
    idle = {k.name for k in kernels if k.name not in traffic.blocks}
    print(f"\n{len(kernels)} kernels for " + ", ".join(f"sm_{a}" for a in archs))
    print(f"For want of a layer that launches them, {len(idle)} are rated by their launch bound.")
    if traffic.runs:
        rows = traffic.rows() if options.layers else traffic_rows(kernels, traffic)
        print("\n" + table(rows))
    if options.json:
        everything = {"kernels": kernel_rows(kernels, traffic), "layers": traffic.rows()}
        options.json.write_text(json.dumps(everything, indent=1) + "\n")
    problems = faults(kernels, traffic)
    print("\n".join(["", *problems] if problems else ["no spills, no local memory"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
