"""Read figures off compiled GPU code: registers, spills, atomics, divisions, load widths, instructions on the hot path.

NVIDIA code is disassembled by the cuobjdump of Triton's wheel; AMD code is the text that LLVM emitted.
"""

import re
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton


@dataclass(frozen=True)
class Instruction:
    """One machine instruction; `target` is the index it may branch to."""

    opcode: str
    conditional: bool = False
    target: int | None = None
    falls_through: bool = True


@dataclass(frozen=True)
class Figures:
    """Figures of a compiled kernel; an element is one that its main loop stores, or loads if it stores none."""

    registers: int
    stack: int
    spills: int
    atomics: int
    load_bits: int
    loop_instructions: float  # per element
    divisions: float  # per element
    bytes_moved: float  # per element, global loads and stores
    overhead: int  # instructions of a thread outside the main loop, shortest path through it


def _nvidia_bytes(opcode: str) -> int:
    """Bytes of a memory instruction: LDG.E.128 -> 16, LDG.E -> 4, LDG.E.U16 -> 2."""
    parts = opcode.split(".")
    for bits in (256, 128, 64, 16, 8):
        if any(part in (str(bits), f"U{bits}", f"S{bits}") for part in parts):
            return bits // 8
    return 4


def _amd_bytes(opcode: str) -> int:
    if match := re.search(r"dword(?:x(\d))?", opcode):
        return 4 * int(match[1] or 1)
    if match := re.search(r"_b(\d+)$", opcode):
        return int(match[1]) // 8
    return 2 if "short" in opcode or "16" in opcode else 1


def _sass(cubin: bytes) -> tuple[list[Instruction], str]:
    """Disassemble; also the line of cuobjdump's resource usage."""
    tool = triton.knobs.nvidia.cuobjdump.path
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        outputs = [
            subprocess.run([tool, option, str(path)], capture_output=True, text=True, check=True).stdout
            for option in ("-sass", "--dump-resource-usage")
        ]
    lines = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@(\S+)\s+)?(\S+)(.*?);", outputs[0], re.MULTILINE)
    index = {int(address, 16): i for i, (address, *_) in enumerate(lines)}
    code = []
    for _, predicate, opcode, operands in lines:
        name, target = opcode.split(".")[0], None
        if name == "BRA" and (match := re.search(r"0x([0-9a-f]+)\s*$", operands)):
            target = index[int(match[1], 16)]
        conditional = bool(predicate) or bool(re.match(r"\s*!?U?P\d", operands) if name == "BRA" else False)
        code.append(Instruction(opcode, conditional, target, conditional or name not in ("BRA", "EXIT", "RET")))
    return code, outputs[1]


def _gcn(text: str) -> list[Instruction]:
    labels: dict[str, int] = {}
    lines: list[list[str]] = []
    body = text.split("s_endpgm")[0] + "s_endpgm\n"
    for line in body.splitlines():
        line = line.split(";")[0].rstrip()
        if match := re.match(r"^(\.\w+):", line):
            labels[match[1]] = len(lines)
        elif re.match(r"^\s+[a-z]+_\w+|^s_endpgm", line):
            lines.append(line.split())
    code = []
    for words in lines:
        branch = words[0].startswith(("s_branch", "s_cbranch"))
        conditional = words[0].startswith("s_cbranch")
        target = labels.get(words[-1]) if branch else None
        code.append(Instruction(words[0], conditional, target, words[0] not in ("s_branch", "s_endpgm")))
    return code


def _shortest(code: list[Instruction], start: int, goal: Callable[[int], bool]) -> int:
    """Number of instructions executed from `start` until (without) the first for which `goal` holds."""
    queue, distance = deque([start]), {start: 0}
    while queue:
        i = queue.popleft()
        if goal(i):
            return distance[i]
        following = [i + 1] if code[i].falls_through and i + 1 < len(code) else []
        if code[i].target is not None:
            following.append(code[i].target)  # type: ignore[arg-type]
        for j in following:
            if j not in distance:
                distance[j] = distance[i] + 1
                queue.append(j)
    raise ValueError("the kernel's main loop is not reachable; its code is not of the form this reader knows")


def _analyze(
    code: list[Instruction],
    element_bytes: int,
    is_load: Callable[[str], bool],
    is_store: Callable[[str], bool],
    is_division: Callable[[str], bool],
    size: Callable[[str], int],
    per_iteration: float | None,
) -> dict[str, float]:
    """Find the main loop: of the loops that move data, the one with the fewest instructions per element.

    Where the elements of an iteration are given, nothing that moves says which loop it is: the longest one then. A kernel without
    such a loop is one iteration, whole.
    """

    def total(test: Callable[[str], bool], part: Iterable[Instruction]) -> int:
        return sum(size(i.opcode) for i in part if test(i.opcode))

    candidates = []
    for end, instruction in enumerate(code):
        start = instruction.target
        if start is None or start >= end:
            continue
        loads, stores = (total(test, code[start : end + 1]) for test in (is_load, is_store))
        if not loads and (per_iteration is not None or not stores):
            continue
        length = end + 1 - start
        order = (not stores, length / (stores or loads)) if per_iteration is None else (False, -length)
        candidates.append((*order, start, end, stores or loads))
    stop = [i for i, instruction in enumerate(code) if instruction.opcode in ("EXIT", "s_endpgm")]
    if candidates:
        _, _, start, end, moved = min(candidates)
        leave = _shortest(code, end + 1, lambda i: i in stop)
        overhead = _shortest(code, 0, lambda i: i == start) + leave + 1
    else:
        start, end, overhead = 0, stop[-1], 0
        moved = total(is_store, code) or total(is_load, code)
    loop = code[start : end + 1]
    elements = moved / element_bytes if per_iteration is None else per_iteration
    return {
        "load_bits": max((8 * size(i.opcode) for i in loop if is_load(i.opcode)), default=0),
        "loop_instructions": len(loop) / elements,
        "divisions": sum(is_division(i.opcode) for i in loop) / elements,
        "bytes_moved": (total(is_load, loop) + total(is_store, loop)) / elements,
        "overhead": overhead,
    }


def figures(kernel: Any, element_bytes: int, per_iteration: float | None = None) -> Figures:
    """Figures of a compiled Triton kernel.

    Args:
        kernel: triton.compiler.CompiledKernel for an NVIDIA or AMD target.
        element_bytes: size of an element of the tensor that the main loop writes.
        per_iteration: elements that a thread handles in an iteration, for kernels whose elements are never in memory; None
            counts those that the loop stores or loads.

    Raises:
        ValueError: the code cannot be followed to its end.
    """
    if "cubin" in kernel.asm:
        code, usage = _sass(kernel.asm["cubin"])
        used = dict(re.findall(r"(REG|STACK):(\d+)", usage))
        opcodes = [i.opcode.split(".")[0] for i in code]
        measured = _analyze(
            code,
            element_bytes,
            lambda o: o.startswith("LDG"),
            lambda o: o.startswith("STG"),
            lambda o: o.startswith("MUFU.RCP"),
            _nvidia_bytes,
            per_iteration,
        )
        spills = sum(o in ("LDL", "STL") for o in opcodes)
        atomics = sum(o in ("ATOM", "ATOMG", "RED", "REDG") for o in opcodes)
        return Figures(int(used["REG"]), int(used["STACK"]), spills, atomics, **measured)  # type: ignore[arg-type]
    text = kernel.asm["amdgcn"]
    used = dict(re.findall(r"\.(\w+):\s+(\d+)", text.split(".amdgpu_metadata")[-1]))
    code = _gcn(text)
    measured = _analyze(
        code,
        element_bytes,
        lambda o: o.startswith(("global_load", "buffer_load", "flat_load")),
        lambda o: o.startswith(("global_store", "buffer_store", "flat_store")),
        lambda o: o.startswith("v_rcp"),
        _amd_bytes,
        per_iteration,
    )
    spills = int(used["vgpr_spill_count"]) + int(used["sgpr_spill_count"])
    atomics = sum("atomic" in i.opcode for i in code)
    return Figures(int(used["vgpr_count"]), int(used["private_segment_fixed_size"]), spills, atomics, **measured)  # type: ignore[arg-type]
