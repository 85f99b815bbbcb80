"""What leaves the library: ONNX, torch.export programs and AOTInductor packages compute what the model does."""

import subprocess
import sys
import warnings

import pytest
import timm
import torch

from kat_zoo import export
from kat_zoo.cli import export as cli_export
from kat_zoo.cli import main as cli
from kat_zoo.kernels import rational, rational_reference
from kat_zoo.kernels.rational_torch import rational_portable


def model_and_images(name, batch=2, **kwargs):
    torch.manual_seed(0)
    model = timm.create_model(name, **kwargs).eval()
    for parameter in model.parameters():  # untrained heads and biases are 0: nothing would be compared
        parameter.data.add_(torch.randn_like(parameter), alpha=0.02)
    return model, torch.randn(batch, *model.pretrained_cfg["input_size"])


def assert_same(exported, model, images, tolerance=1e-5):
    with torch.inference_mode():
        got, expected = exported(images), model(images)
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("rows", [(1, 4), (4, 1), (1, 1)])
@pytest.mark.parametrize("channel_dim", [-1, 1])
@pytest.mark.parametrize("order", [(5, 4), (0, 1), (3, 8)])
def test_the_formula_is_the_operator(rows, channel_dim, order, generator):
    x = torch.randn(3, 8, 4, 16, generator=generator, dtype=torch.float64)
    a = torch.randn(rows[0], order[0] + 1, generator=generator, dtype=torch.float64)
    b = torch.randn(rows[1], order[1], generator=generator, dtype=torch.float64)
    expected = rational_reference(x, a, b, channel_dim)
    torch.testing.assert_close(rational_portable(x, a, b, channel_dim), expected)
    half = rational_portable(x.bfloat16(), a.float(), b.float(), channel_dim)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half, rational(x.bfloat16(), a.float(), b.float(), channel_dim))


def check_format(name, form, tmp_path, tolerance=1e-5):
    model, images = model_and_images(name)
    path = tmp_path / f"model{export.FORMATS[form]}"
    {"onnx": export.to_onnx, "pt2": export.to_pt2, "aoti": export.to_aoti}[form](model, images, path)
    exported = export.load(path, form)
    for batch in (images, images[:1], images.repeat(3, 1, 1, 1)):
        assert_same(exported, model, batch, tolerance)
    return model, images, path


def test_torch_export_keeps_the_operator(tmp_path):
    check_format("test_kat", "pt2", tmp_path)
    program = torch.export.load(tmp_path / "model.pt2")
    assert any(node.target is torch.ops.kat_zoo.rational.default for node in program.graph.nodes)


@pytest.mark.slow
def test_onnx_runtime_agrees(tmp_path):
    import onnx

    *_, path = check_format("test_kat", "onnx", tmp_path)
    written = onnx.load(path)
    assert {opset.domain for opset in written.opset_import} == {""}, "only standard operators"
    assert written.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


BASELINES = ["vit_kan", "vit_fourier", "vit_lan", "karat_kat", "kat_mixer"]


@pytest.mark.parametrize(
    "family", ["vit_kan", "karat_kat", *(pytest.param(f, marks=pytest.mark.slow) for f in ("vit_fourier", "vit_lan", "kat_mixer"))]
)
def test_decomposed_baselines_compute_the_same(family):
    size = {"num_blocks": 1} if family == "kat_mixer" else {"depth": 1}
    model, images = model_and_images(f"{family}_pico_patch4_28", **size)
    program = export.capture(model, images, decompose=True)
    assert "kat_zoo" not in str(program.graph)
    assert_same(program.module(), model, torch.cat([images, images]), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "pt2"])
@pytest.mark.parametrize("name", [*(f"{family}_pico_patch4_28" for family in BASELINES), "kan_mlp_pico_28"])
def test_baselines(name, form, tmp_path):
    check_format(name, form, tmp_path, 1e-4)


def test_command(tmp_path, capsys):
    path = tmp_path / "pico.pt2"
    arguments = [
        "export",
        "kat_pico_patch4_28",
        "--format",
        "pt2",
        "--out",
        str(path),
        "--batch-size",
        "1",
        "--repeats",
        "1",
    ]
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    assert path.exists() and "of the model's largest output" in captured.out
    assert captured.err.count("kat_pico_patch4_28 is exported untrained") == len(captured.err.strip().splitlines()) == 1
    assert cli.main([*arguments, "--pretrained"]) == 0
    assert not capsys.readouterr().err
    assert cli.main(["export", "kat_huge", "--format", "onnx"]) == 2
    assert "kat_huge" in capsys.readouterr().err


def test_a_format_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ValueError, match="format='PT2': expected one of onnx, pt2, aoti"):
        export.load(tmp_path / "x.pt2", "PT2")


def test_a_head_of_zeros_and_a_wrong_export(tmp_path, capsys, monkeypatch):
    path = tmp_path / "mixer.pt2"
    arguments = ["export", "kat_mixer_pico_patch4_28", "--format", "pt2", "--out", str(path), "--repeats", "1"]
    assert cli.main(arguments) == 0
    assert "differs by 0.0e+00" in capsys.readouterr().out
    written = path.read_bytes()
    for difference in (1e-3, float("nan")):
        monkeypatch.setattr(cli_export, "largest_difference", lambda *_, value=difference: value)
        assert cli.main(arguments) == 2
        assert "is not the model: expected what the model computes" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == written


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_kat_tiny(form, tmp_path):
    check_format("kat_tiny_patch16_224", form, tmp_path)


@pytest.mark.slow
def test_aot_inductor_runs_without_kat_zoo(tmp_path):
    """In a fresh process that imports torch alone."""
    model, images, path = check_format("kat_tiny_patch16_224", "aoti", tmp_path)
    torch.save((images, model(images).detach()), tmp_path / "case.pt")
    code = f"""
import sys, torch
images, expected = torch.load({str(tmp_path / "case.pt")!r})
got = torch._inductor.aoti_load_package({str(path)!r})(images)
assert "kat_zoo" not in sys.modules
print(float((got - expected).abs().max() / expected.abs().max()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) <= 1e-5


def loss_and_gradients(model, images):
    model.zero_grad()
    loss = model(images).square().mean()
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning")  # fx modules annotate in their constructor
@pytest.mark.parametrize("capture", ["compile", "script", "fx", "fx, then script"])
def test_captured_training_of_kat_tiny(capture):
    """Loss and every gradient of a captured model equal those of the model."""
    model, images = model_and_images("kat_tiny_patch16_224")
    expected = loss_and_gradients(model, images)
    if capture == "compile":
        captured = torch.compile(model, fullgraph=True)
    else:
        captured = torch.fx.symbolic_trace(model) if "fx" in capture else model
        captured = torch.jit.script(captured) if "script" in capture else captured
    for got, want in zip(loss_and_gradients(captured, images), expected, strict=True):
        assert (got - want).norm() <= 1e-4 * want.norm() + 1e-7


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("name", ["test_kat", "test_karat", "vit_kan_pico_patch4_28", "kat_mixer_pico_patch4_28"])
def test_the_exporter_of_torch_takes_models_as_they_are(name, dynamo, tmp_path):
    """As timm's onnx_export.py, Lightning's to_onnx and optimum call it."""
    import onnxruntime

    size = {"num_blocks": 1} if "mixer" in name else {"depth": 1}
    model, images = model_and_images(name, **size)
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters
        torch.onnx.export(model, (images,), str(path), dynamo=dynamo, verbose=False, input_names=["images"], external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = model(images)
    torch.testing.assert_close(torch.from_numpy(got), expected, rtol=1e-3, atol=1e-4)


def test_what_would_not_be_the_model_is_refused(tmp_path):
    model, images = model_and_images("test_kat", depth=1)
    with pytest.raises(ValueError, match="model in training mode: expected model.eval"):
        export.to_pt2(model.train(), images, tmp_path / "model.pt2")
    with pytest.raises(ValueError, match="expected two or more for a dynamic batch"):
        export.to_pt2(model.eval(), images[:1], tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())
