"""The exported Kernel Hub kernel, loaded by the `kernels` package in a process that knows nothing of kat_zoo."""

import subprocess
import sys

import pytest
import torch

from kat_zoo.cli.main import main
from kat_zoo.kernels import fourier_attention_reference, rational_reference

# Not from the repository root: there, the folder kernels/ hides the package of that name.
LOAD = """
import sys
from pathlib import Path
import torch
from torch import nn
import kernels
from kernels import LocalLayerRepository, Mode, get_local_kernel, kernelize, use_kernel_forward_from_hub, use_kernel_mapping

folder, tensors = Path(sys.argv[1]), torch.load(sys.argv[2])
kernel = get_local_kernel(folder)
done = {}
for name, operator in (("rational", kernel.rational), ("fourier_attention", kernel.fourier_attention)):
    inputs = [x.requires_grad_() for x in tensors[name]]
    if sys.argv[3] == "compiled":
        operator = torch.compile(operator, fullgraph=True, backend="aot_eager")
    out = operator(*inputs)
    done[name] = [out.detach(), *torch.autograd.grad(out.sum(), inputs)]

@use_kernel_forward_from_hub("GroupRational")
class Activation(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight_numerator, self.weight_denominator = map(nn.Parameter, tensors["rational"][1:])
    def forward(self, x):
        raise RuntimeError("not replaced")

model = nn.Sequential(Activation())
layer = LocalLayerRepository(folder, layer_name="GroupRational")
with use_kernel_mapping({"GroupRational": {"cpu": layer}}):
    done["layer"] = kernelize(model, mode=Mode.TRAINING | Mode.TORCH_COMPILE, device="cpu")(tensors["rational"][0]).detach()
done["imported"] = [name for name in sys.modules if name.split(".")[0] in ("kat_zoo", "timm")]
torch.save(done, sys.argv[2])
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "kat-kernels"
    assert main(["kernels", "hub-export", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def tensors():
    torch.manual_seed(0)
    attention = [torch.randn(2, 3, 10, 8) for _ in range(3)]
    attention += [0.1 * torch.randn(3, 4, 10, 2) for _ in range(2)] + [0.1 * torch.randn(3, 10, 4)]
    return {"rational": [torch.randn(5, 16), torch.randn(1, 6), torch.randn(8, 4)], "fourier_attention": attention}


@pytest.mark.parametrize("mode", ["eager", pytest.param("compiled", marks=pytest.mark.slow)])
def test_loads_and_agrees_with_the_oracle(exported, tensors, tmp_path, mode):
    file = tmp_path / "tensors.pt"
    torch.save(tensors, file)
    subprocess.run([sys.executable, "-c", LOAD, str(exported), str(file), mode], check=True, cwd=tmp_path)
    done = torch.load(file)
    assert done["imported"] == []
    for name, oracle in (("rational", rational_reference), ("fourier_attention", fourier_attention_reference)):
        inputs = [x.double().requires_grad_() for x in tensors[name]]
        out = oracle(*inputs)
        expected = [out.detach(), *torch.autograd.grad(out.sum(), inputs)]
        for got, want in zip(done[name], expected, strict=True):
            torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(done["layer"], done["rational"][0])


def test_layout(exported):
    """As kernel-builder makes it: its own parser reads build.toml, and every build has its namespace to itself."""
    names = {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}
    assert {"build.toml", "README.md", "tests/test_kat_kernels.py", "torch-ext/kat_kernels/__init__.py"} <= names
    assert {f"build/torch-{backend}/metadata.json" for backend in ("cpu", "cuda", "rocm")} <= names
    for path in exported.rglob("*.py"):
        text = path.read_text()
        assert "torch.ops.kat_zoo" not in text and "import kat_zoo" not in text and "from kat_zoo" not in text
        compile(text, str(path), "exec")


@pytest.mark.slow
def test_its_own_tests_pass(exported, tmp_path):
    subprocess.run([sys.executable, "-m", "pytest", "-q", str(exported / "tests")], check=True, cwd=tmp_path)


def test_build_configuration_is_kernel_builders(exported, tmp_path):
    """Its own parser accepts it."""
    code = "import sys; from kernels._rust import Build; print(Build.open(sys.argv[1]).general)"
    command = [sys.executable, "-c", code, str(exported)]
    assert "Cpu, Cuda, Rocm" in subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True).stdout


def test_refuses_a_folder_in_use(exported, capsys):
    assert main(["kernels", "hub-export", str(exported)]) == 2
    assert "is not empty" in capsys.readouterr().err
