"""Figures of CUDA kernels: what cuobjdump and the emulator say is read right, spills are found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import cuda_figures
from cuda_binary import Kernel, find_tool, read_bounds, read_instructions, read_resources
from cuda_occupancy import occupancy
from cuda_traffic import read_traffic

# Of two kernels, compiled by nvcc 13.0; shortened.
RESOURCES = """
Fatbin elf code:
================
arch = sm_80
code version = [1,8]

Resource usage:
 Common:
  GLOBAL:0
 Function _Z1fPf:
  REG:20 STACK:0 SHARED:512 LOCAL:0 CONSTANT[0]:360 TEXTURE:0 SURFACE:0 SAMPLER:0

Fatbin ptx code:
================
arch = sm_90

Fatbin elf code:
================
arch = sm_90

Resource usage:
 Function _Z1fPf:
  REG:24 STACK:16 SHARED:1536 LOCAL:0 CONSTANT[0]:536 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
INSTRUCTIONS = """
	code for sm_80
	.target	sm_80

		Function : _Z1fPf
	.headerflags	@"EF_CUDA_SM80 EF_CUDA_VIRTUAL_SM(EF_CUDA_SM80)"
        /*0000*/                   MOV R1, c[0x0][0x28] ;         /* 0x00000a0000017a02 */
                                                                  /* 0x000fe40000000f00 */
        /*0010*/                   HFMA2.MMA R2, -RZ, RZ, 0, 2 ;  /* 0x00000004ff027435 */
        /*0020*/                   HMMA.16816.F32 R4, R8, R2, R4 ; /* 0x0000000208047235 */
        /*0030*/              @!P0 HMMA.16816.F32 R4, R8, R2, R4 ; /* 0x0000000208047235 */
        /*0040*/             @!UP1 STL.64 [R1], R4 ;              /* 0x0000000401007387 */
        /*0050*/                   DMMA.884 R4, R8, R2, R4 ;      /* 0x000000020804723f */
"""
BOUNDS = """
arch = sm_80
.nv.info._Z1fPf
	<0x1>
	Attribute:	EIATTR_MAXREG_COUNT
	Format:	EIFMT_HVAL
	Value:	0xff
	<0x2>
	Attribute:	EIATTR_MAX_THREADS
	Format:	EIFMT_SVAL
	Value:	0x80 0x2 0x1

.text._Z1fPf
bar = 1	reg = 20	lmem=0	smem=512
0x00017a02 0x00000a00 0x00000f00 0x000fe400
"""


class Kernels(dict[tuple[str, int], Kernel]):
    def __call__(self, symbol: str, arch: int) -> Kernel:
        return self.setdefault((symbol, arch), Kernel(symbol, arch))


@pytest.fixture
def kernels() -> Kernels:
    """What the recorded outputs tell of the kernel f."""
    found = Kernels()
    read_resources(RESOURCES.splitlines(keepends=True), found)
    read_instructions(INSTRUCTIONS.splitlines(keepends=True), found)
    read_bounds(BOUNDS.splitlines(keepends=True), found)
    return found


def test_each_architecture_has_its_registers(kernels: Kernels) -> None:
    assert {arch: k.registers for (_, arch), k in kernels.items()} == {80: 20, 90: 24}


def test_what_the_system_reserves_is_not_the_kernels_shared_memory(kernels: Kernels) -> None:
    assert {k.static_shared for k in kernels.values()} == {512}


def test_launch_bound_is_a_product(kernels: Kernels) -> None:
    assert kernels["_Z1fPf", 80].bound == 256
    assert kernels["_Z1fPf", 90].bound is None


def test_matrix_products_are_counted_and_nothing_else(kernels: Kernels) -> None:
    expected = {"HMMA.16816.F32": 2, "DMMA.884": 1}
    assert kernels["_Z1fPf", 80].tensor_core_instructions == expected


def test_a_spill_is_found_by_its_instructions_or_its_stack(kernels: Kernels) -> None:
    assert kernels["_Z1fPf", 80].local_memory == "1 stores to local memory"
    assert kernels["_Z1fPf", 90].local_memory == "16 bytes of stack"


@pytest.mark.parametrize(
    ("arch", "registers", "threads", "shared", "blocks", "limit"),
    [
        (80, 32, 256, 0, 8, "warps"),  # 64 warps
        (80, 33, 256, 0, 6, "registers"),  # 40 a thread, 12 warps to a partition
        (80, 255, 256, 0, 1, "registers"),
        (80, 209, 128, 51 * 1024, 2, "registers"),  # 2 warps to a partition
        (86, 209, 128, 51 * 1024, 1, "shared memory"),  # 100 KiB; two take 104 with the reserved
        (75, 128, 128, 32 * 1024, 2, "shared memory"),  # nothing reserved
        (90, 16, 32, 0, 32, "blocks"),
        (120, 16, 32, 0, 24, "blocks"),
        (80, 16, 32, 164 * 1024, 0, "shared memory"),  # a block may have 163
        (80, 255, 1024, 0, 0, "registers"),
    ],
)
def test_occupancy(
    arch: int, registers: int, threads: int, shared: int, blocks: int, limit: str
) -> None:
    found = occupancy(arch, registers, threads, shared)
    assert (found.blocks, found.limit) == (blocks, limit)


def test_occupancy_is_a_share_of_the_warps() -> None:
    assert occupancy(86, 80, 256, 0).percent == pytest.approx(100 * 24 / 48)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        (
            "void dilconv::cuda::gather_kernel<dilconv::Half, dilconv::cuda::TensorCoreMultiply, "
            "dilconv::cuda::Tile<128, 64, 64, 32>, (dilconv::cuda::Chunks)1>"
            "(dilconv::cuda::GatherParams)",
            ("gather", "tensor core", "float16", "128x64"),
        ),
        (
            "void dilconv::cuda::depthwise::(anonymous namespace)::planes_kernel<double, 4, true>"
            "(dilconv::cuda::depthwise::GatherPlan, double const*, double const*, double*)",
            ("planes", "", "float64", ""),
        ),
        ("reset(float*)", ("reset", "", "", "")),
    ],
)
def test_family(name: str, row: tuple[str, ...]) -> None:
    assert cuda_figures.family_of(name) == cuda_figures.Family(*row)


def launch(**counted: Any) -> dict[str, Any]:
    nothing = {"requests": 0, "sectors": 0, "least_sectors": 0, "distinct_sectors": 0}
    no_passes = {"requests": 0, "passes": 0, "least_passes": 0}
    result = {"kernel": "f(float*)", "threads": 64, "shared_bytes": 1024, "fma": 0}
    result |= {"tensor_core_fma": 0, "loads": nothing, "stores": nothing}
    return result | {"shared_loads": no_passes, "shared_stores": no_passes} | counted


def run(size: str, *launches: dict[str, Any]) -> dict[str, Any]:
    about = dict.fromkeys(("layer", "op", "dtype", "layout", "kernel"), "any")
    least = {"least_bytes": 3200, "least_products": 100}
    return {**about, **least, "size": size, "launches": list(launches)}


def test_traffic_is_that_of_all_launches_beside_the_least() -> None:
    loads = {"requests": 10, "sectors": 40, "least_sectors": 20, "distinct_sectors": 60}
    stores = {"requests": 10, "sectors": 80, "least_sectors": 80, "distinct_sectors": 40}
    shared = {"requests": 5, "passes": 15, "least_passes": 5}
    main = launch(fma=150, loads=loads, shared_loads=shared)
    traffic = read_traffic([run("small", launch(kernel="pack()", stores=stores), main)])
    (figures,) = (r.figures for r in traffic.runs)
    assert figures == {
        "memory": 32 * 100 / 3200,
        "requested": 32 * 120 / 3200,
        "products": 1.5,
        "sectors": 4,
        "least": 2,
        "conflicts": 2,
    }
    assert traffic.summaries({"f(float*)"})["any"]["conflicts / access"] == "2.00"
    assert traffic.summaries({"pack()"}) == {}


def test_summary_is_the_least_and_the_most_of_a_layout() -> None:
    runs = [
        run("a", launch(fma=n)) | {"layout": x} for n, x in ((100, "x"), (300, "x"), (200, "y"))
    ]
    found = read_traffic(runs).summaries({"f(float*)"})
    assert {layout: s["products / least"] for layout, s in found.items()} == {
        "x": "1.00–3.00",
        "y": "2.00",
    }


def test_launches_of_full_layers_decide_the_occupancy() -> None:
    traffic = read_traffic([run("full", launch(threads=1024, shared_bytes=0)), run("s", launch())])
    kernel = Kernel("_Z1fPf", 80, "f(float*)", registers=64, bound=1024)
    (found,) = cuda_figures.occupancies(kernel, traffic)
    assert (found.blocks, found.percent) == (1, 50)
    assert cuda_figures.faults([kernel], traffic) == []
    kernel.bound = 512
    assert "more threads than __launch_bounds__" in cuda_figures.faults([kernel], traffic)[0]


# 64 sums to a thread do not fit the 64 registers that 1024 threads leave it; `fits` has fewer
# threads.
SOURCE = """
template <int threads> __device__ void sums(float* p, int n) {
  float a[64];
  #pragma unroll
  for (int i = 0; i < 64; ++i) a[i] = p[i * n];
  for (int k = 0; k < n; ++k)
    #pragma unroll
    for (int i = 0; i < 64; ++i) a[i] = a[i] * a[(i + 7) % 64] + p[k];
  #pragma unroll
  for (int i = 0; i < 64; ++i) p[i * n] = a[i];
}
__global__ void __launch_bounds__(1024) spills(float* p, int n) { sums<1024>(p, n); }
__global__ void __launch_bounds__(128) fits(float* p, int n) { sums<128>(p, n); }
__global__ void promises_nothing(float* p) { *p = 0; }
"""


def has_tools() -> bool:
    try:
        return bool(shutil.which("nvcc") and find_tool("cuobjdump"))
    except SystemExit:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not has_tools(), reason="needs nvcc and cuobjdump (pip install -e '.[cuda]')")
def test_spills_of_real_kernels_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kernels.cu").write_text(SOURCE)
    binary = tmp_path / "kernels.o"
    command = ["nvcc", "-arch=sm_80", "-c", "-o", binary, tmp_path / "kernels.cu"]
    subprocess.run(command, check=True)
    written = tmp_path / "figures.json"
    assert cuda_figures.main([str(binary), "--json", str(written)]) == 1
    output = capsys.readouterr().out
    assert "sm_80 spills(float*, int): spills: " in output
    assert "sm_80 promises_nothing(float*): no __launch_bounds__" in output
    assert "fits(float*, int): " not in output
    figures = {row["kernel"]: row for row in json.loads(written.read_text())["kernels"]}
    assert figures["fits(float*, int)"]["local memory"] == "none"
    assert figures["fits(float*, int)"]["bound"] == 128
    assert 64 < figures["fits(float*, int)"]["registers"] <= 255
