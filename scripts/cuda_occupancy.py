"""How many blocks of a kernel a multiprocessor holds at once, by its compute capability."""

from __future__ import annotations

from dataclasses import dataclass

WARP = 32
REGISTERS = 65536  # of a multiprocessor, and of a block at most
PARTITIONS = 4  # of a multiprocessor, each with its own warps and registers
REGISTER_UNIT = 256  # in which a warp gets registers
SHARED_UNIT = 128  # bytes, in which a block gets shared memory


@dataclass(frozen=True)
class Multiprocessor:
    """The limits of a multiprocessor. Sizes are in KiB."""

    warps: int
    blocks: int
    shared: int
    shared_of_block: int  # that it may opt in to
    reserved: int  # that the system takes of each block's


# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"; the reserved KiB:
# its sections on shared memory of compute capabilities 8.x and later.
MULTIPROCESSORS = {
    75: Multiprocessor(warps=32, blocks=16, shared=64, shared_of_block=64, reserved=0),
    80: Multiprocessor(warps=64, blocks=32, shared=164, shared_of_block=163, reserved=1),
    86: Multiprocessor(warps=48, blocks=16, shared=100, shared_of_block=99, reserved=1),
    89: Multiprocessor(warps=48, blocks=24, shared=100, shared_of_block=99, reserved=1),
    90: Multiprocessor(warps=64, blocks=32, shared=228, shared_of_block=227, reserved=1),
    100: Multiprocessor(warps=64, blocks=32, shared=228, shared_of_block=227, reserved=1),
    120: Multiprocessor(warps=48, blocks=24, shared=100, shared_of_block=99, reserved=1),
}


def _round_up(n: int, unit: int) -> int:
    return -(-n // unit) * unit


@dataclass(frozen=True)
class Occupancy:
    """Blocks that a multiprocessor holds, their share of its warps, and what limits them."""

    blocks: int
    percent: float
    limit: str


def occupancy(arch: int, registers: int, threads: int, shared: int) -> Occupancy:
    """Of blocks of ``threads`` threads of ``registers`` each, with ``shared`` bytes a block."""
    m = MULTIPROCESSORS[arch]
    warps = -(-threads // WARP)
    of_warp = _round_up(max(registers, 1) * WARP, REGISTER_UNIT)
    warps_with_registers = REGISTERS // PARTITIONS // of_warp * PARTITIONS
    of_block = _round_up(shared + m.reserved * 1024, SHARED_UNIT)
    limits = {
        "warps": m.warps // warps,
        "blocks": m.blocks,
        "registers": warps_with_registers // warps,
        "shared memory": m.shared * 1024 // of_block if of_block else m.blocks,
    }
    if shared > m.shared_of_block * 1024:
        limits["shared memory"] = 0
    blocks = min(limits.values())
    limit = next(name for name, most in limits.items() if most == blocks)
    return Occupancy(blocks, 100 * blocks * warps / m.warps, limit)
