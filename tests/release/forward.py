"""What an installed wheel must do: a forward pass of a shipped model by the compiled kernels, and the reference's result of each operator.

It needs the package and its dependencies alone: python tests/release/forward.py
"""

from pathlib import Path

import timm
import torch

import kat_zoo
from kat_zoo.kernels import cpu_library, rational, rational_reference

assert cpu_library.load() is not None, "the wheel holds no library for this platform"
flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
assert cpu_library.isa() > 0 or not all(f" {flag} " in flags for flag in ("avx2", "fma", "bmi2")), (
    "the kernels do not use the machine's vectors"
)
x, numerator, denominator = torch.randn(50, 64), torch.randn(1, 6), torch.randn(8, 4)
expected = rational_reference(x.double(), numerator.double(), denominator.double()).float()
torch.testing.assert_close(rational(x, numerator, denominator), expected, rtol=1e-4, atol=1e-4)
model = timm.create_model("kat_pico_patch4_28.fmnist", pretrained=True).eval()
with torch.no_grad():
    assert model(torch.rand(2, 1, 28, 28)).isfinite().all()
print(f"kat_zoo {kat_zoo.__version__} of {kat_zoo.__file__}: C++, {cpu_library.ISAS[cpu_library.isa()]}")
