"""An installed package at work: a forward pass of a shipped model, and the reference's result of an operator.

It needs the package and its dependencies alone: python tests/release/forward.py, by the compiled kernels, or with --plain where it was
installed without a compiler.
"""

import logging
import sys
from pathlib import Path

import timm
import torch

import kat_zoo
from kat_zoo.kernels import cpu_library, rational, rational_reference

plain = sys.argv[1:] == ["--plain"]
said = []
handler = logging.Handler()
handler.emit = said.append
logging.getLogger("kat_zoo").addHandler(handler)

assert (cpu_library.load() is None) == plain, "expected the compiled kernels" if not plain else "expected none"
flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
assert plain or cpu_library.isa() > 0 or not all(f" {flag} " in flags for flag in ("avx2", "fma", "bmi2")), (
    "the kernels do not use the machine's vectors"
)
x, numerator, denominator = torch.randn(50, 64), torch.randn(1, 6), torch.randn(8, 4)
expected = rational_reference(x.double(), numerator.double(), denominator.double()).float()
torch.testing.assert_close(rational(x, numerator, denominator), expected, rtol=1e-4, atol=1e-4)
model = timm.create_model("kat_pico_patch4_28.fmnist", pretrained=True).eval()
with torch.no_grad():
    assert model(torch.rand(2, 1, 28, 28)).isfinite().all()
assert sum("without its compiled CPU kernels" in record.getMessage() for record in said) == plain, "the slow path is announced once"
kernels = "plain PyTorch" if plain else f"C++, {cpu_library.ISAS[cpu_library.isa()]}"
print(f"kat_zoo {kat_zoo.__version__} of {kat_zoo.__file__}: {kernels}")
