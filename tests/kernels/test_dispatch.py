"""Where Triton cannot launch: one sentence, and the formula."""

import os
import subprocess
import sys

import pytest
import torch

from kat_zoo.kernels import rational_op

# Triton's own driver for NVIDIA, which compiles a C file before it asks for a GPU.
SCRIPT = """
import logging, sys
import torch, triton
logging.basicConfig(format="%(message)s")
from kat_zoo.kernels import rational_op, rational_reference

class Driver:
    def get_current_target(self):
        from triton.backends.nvidia.driver import CudaUtils
        return CudaUtils()

triton.runtime.driver.set_active(Driver())
x, a, b = torch.randn(3, 8), torch.randn(1, 6), torch.randn(2, 4)
for _ in range(2):
    y = rational_op._forward_cuda(x, a, b)
    rational_op._backward_cuda(x, x, a, b)
assert torch.equal(y, rational_reference(x, a, b))
"""


def run(**environment):
    environment = {key: value for key, value in os.environ.items() if key not in ("TRITON_INTERPRET", "CC")} | environment
    return subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("broken", ["no compiler", "no cache"])
def test_a_triton_that_cannot_launch_is_announced_once(broken, tmp_path):
    (tmp_path / "file").write_text("")
    environment = {"PATH": str(tmp_path), "TRITON_CACHE_DIR": str(tmp_path / "cache"), "TRITON_LIBCUDA_PATH": str(tmp_path)}
    if broken == "no cache":
        environment = {"TRITON_CACHE_DIR": str(tmp_path / "file" / "cache"), "TRITON_LIBCUDA_PATH": str(tmp_path)}
    done = run(**environment)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("kat_zoo: Triton cannot launch kernels")]
    assert len(lines) == 1 and "plain PyTorch" in lines[0], done.stderr


def test_more_groups_than_the_second_axis_of_a_grid_takes(monkeypatch):
    """The kernels' grids have groups first: CUDA takes 65,535 programs along the other axes."""
    from kat_zoo.kernels import rational_triton

    grids = {}
    for name in ("rational_forward_kernel", "rational_backward_kernel", "rational_reduce_kernel"):

        class Recorded:
            def __getitem__(self, grid, name=name):
                grids[name] = grid
                return lambda *args, **kwargs: None

        monkeypatch.setattr(rational_triton, name, Recorded())
    x, a, b = torch.zeros(1, 70000), torch.zeros(70000, 6), torch.zeros(70000, 4)
    rational_op._forward_cuda(x, a, b)
    rational_op._backward_cuda(x, x, a, b)
    assert len(grids) == 3 and all(max(grid[1:]) <= 65535 and grid[0] >= 70000 for grid in grids.values()), grids


def test_a_product_and_a_sum_are_one_instruction(monkeypatch):
    """An option of each launch where Triton would not do it by itself, as from 3.10 on."""
    from triton import knobs

    from kat_zoo.kernels import rational_triton

    def option():
        a, b = torch.zeros(1, 6), torch.zeros(2, 4)
        problem = rational_triton.problem(9, 2, 24, torch.float32, a, b, False, rational_triton.Gpu(32, True))
        return problem.constants.get("enable_fp_fusion")

    monkeypatch.setattr(knobs.language, "default_fp_fusion", True)
    assert option() is None
    monkeypatch.setattr(knobs.language, "default_fp_fusion", False)
    assert option() is True
