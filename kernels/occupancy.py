"""How a compiled kernel would fill a GPU, from its registers, shared memory and grid: nothing here is measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Multiprocessors:
    """A GPU for data centers, or the largest for desktops, of an architecture.

    Attributes:
        count: number of multiprocessors.
        warps: warps that a multiprocessor holds at most.
        blocks: blocks that a multiprocessor holds at most.
        shared: KiB of shared memory of a multiprocessor.
        clock: boost clock in GHz.
        bandwidth: bandwidth of the memory in TB/s.
    """

    count: int
    warps: int
    blocks: int
    shared: int
    clock: float
    bandwidth: float


# CUDA C++ Programming Guide, technical specifications per compute capability; data sheets of A100, H200, B200 and RTX 5090.
GPUS = {
    "sm_80": Multiprocessors(108, 64, 32, 164, 1.41, 2.04),
    "sm_90": Multiprocessors(132, 64, 32, 228, 1.98, 4.8),
    "sm_100": Multiprocessors(148, 64, 32, 228, 1.965, 8.0),
    "sm_120": Multiprocessors(170, 48, 24, 100, 2.41, 1.79),
}
SCHEDULERS = 4  # of a multiprocessor; each issues an instruction of a warp in a clock
REGISTERS = 64 * 1024 // SCHEDULERS  # of a scheduler, given to its warps in pieces of 256
RESERVED = 1024  # bytes of shared memory that the system takes for every block


def resident_blocks(gpu: Multiprocessors, registers: int, shared: int, warps: int) -> int:
    """Blocks that a multiprocessor holds at once.

    Args:
        gpu: limits of the architecture.
        registers: registers of a thread.
        shared: bytes of shared memory of a block.
        warps: warps of a block.

    Returns:
        Their number; 0 where not even one fits.
    """
    of_warp = -(-registers * 32 // 256) * 256
    by_registers = SCHEDULERS * (REGISTERS // of_warp) // warps
    by_shared = gpu.shared * 1024 // (-(-shared // 128) * 128 + RESERVED)
    return min(gpu.warps // warps, gpu.blocks, by_registers, by_shared)


def occupancy(gpu: Multiprocessors, registers: int, shared: int, warps: int, programs: int) -> tuple[float, float]:
    """How full a launch leaves the GPU.

    Args:
        gpu: limits of the architecture.
        registers: registers of a thread.
        shared: bytes of shared memory of a block.
        warps: warps of a block.
        programs: blocks of the grid.

    Returns:
        The share of a multiprocessor's warps that are resident, and the waves of the grid: 1.1 waves take as long as 2 where all
        programs are alike.
    """
    blocks = resident_blocks(gpu, registers, shared, warps)
    return blocks * warps / gpu.warps, programs / (gpu.count * blocks) if blocks else float("inf")


def bandwidth_share(gpu: Multiprocessors, instructions: float, moved: float) -> float:
    """The roofline of a kernel without matrix products: the share of the memory's bandwidth that the issue of instructions leaves.

    Args:
        gpu: clock and bandwidth of the architecture.
        instructions: instructions of all threads.
        moved: bytes that are loaded and stored.

    Returns:
        At most 1, where the memory is the limit.
    """
    issue = instructions / 32 / (gpu.count * SCHEDULERS * gpu.clock * 1e9)
    return min(1.0, moved / (gpu.bandwidth * 1e12) / issue)
