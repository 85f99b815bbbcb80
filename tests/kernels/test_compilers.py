"""The C++ sources under the compilers of other systems. They are compiled, not run."""

import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[2] / "kernels"
FLAGS = ["-std=gnu++17", "-O0", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["x86_64-windows-gnu", "aarch64-macos", "x86_64-macos", "aarch64-linux-gnu.2.28", "x86_64-linux-musl"])
def test_every_source_compiles_for(target, tmp_path):
    for source in sorted(KERNELS.glob("*.cpp")):
        command = [sys.executable, "-m", "ziglang", "c++", "-target", target, *FLAGS, "-c", source, "-o", tmp_path / "out.o"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, f"{source.name} for {target}:\n{done.stderr}"
