"""The analyses' numbers against what they are by definition."""

import copy
import csv

import matplotlib
import matplotlib.pyplot

matplotlib.use("Agg")

import pytest
import timm
import torch
from torch import nn

import kat_zoo.models  # noqa: F401  (registers)
from kat_zoo import analysis
from kat_zoo.analysis.attention import token_maps

X = torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def models():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = {"depth": 3, "num_classes": 4}
        return {
            "karat": timm.create_model("test_karat", edge_scale=True, w_bias=True, **options).eval(),
            "softmax": timm.create_model("test_karat", layers=[], **options).eval(),
            "hybrid": timm.create_model("test_karat", hybrid_heads=1, layers=[-1], **options).eval(),
            "general": timm.create_model("test_karat", basis="dog", **options).eval(),
        }


def rows(path):
    with path.with_suffix(".csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ["karat", "softmax", "hybrid", "general"])
def test_captured_attention_times_values_is_the_layer(models, name):
    model = models[name]
    captured = analysis.capture_attention(model, X)
    assert list(captured) == [f"blocks.{i}.attn" for i in range(3)]
    inputs = {}
    hook = model.blocks[2].attn.register_forward_hook(lambda m, args, out: inputs.update(x=args[0], out=out))
    model(X)
    hook.remove()
    attn = model.blocks[2].attn
    v = attn.qkv(inputs["x"]).reshape(3, 37, 3, 2, 32)[:, :, 2].transpose(1, 2)
    layer = captured["blocks.2.attn"]
    expected = attn.proj((layer.attention @ v).transpose(1, 2).reshape(3, 37, 64))
    torch.testing.assert_close(inputs["out"], expected, atol=1e-4, rtol=1e-4)
    assert layer.learnable == {"softmax": (False, False), "hybrid": (False, True)}.get(name, (True, True))


def test_token_maps(models):
    for model in models.values():
        layer = analysis.capture_attention(model, X)["blocks.2.attn"]
        maps = token_maps(model, layer)
        assert maps.shape == (3, 2, 6, 6) and maps.min() >= 0 and maps.max() <= 1
    layer = analysis.capture_attention(models["karat"], X)["blocks.2.attn"]
    raw = layer.logits[:, :, 0, 1:].relu().unflatten(-1, (6, 6))
    torch.testing.assert_close(token_maps(models["karat"], layer), raw / raw.amax((-1, -2), keepdim=True))


@pytest.mark.parametrize("options", [{}, {"dynamic_img_size": True}, {"dynamic_img_size": True, "layers": []}], ids=str)
@pytest.mark.parametrize("size", [(128, 96), (64, 64)])
def test_images_of_another_size_are_refused_by_name(options, size):
    model = timm.create_model("test_karat", depth=1, **options)
    with pytest.raises(ValueError, match=r"images of \(.*\) pixels: expected the model's \(96, 96\)"):
        analysis.capture_attention(model, torch.zeros(1, 3, *size))


def test_spectrum_after_the_operator_has_its_rank(models):
    without_bias = timm.create_model("test_karat", rank=4, depth=1).eval()
    values = analysis.singular_values(without_bias, X)
    assert values["before"].shape == values["after"].shape == (3, 2, 37)
    assert values["after"][..., :4].min() > 1e-4 and values["after"][..., 4:].max() < 1e-6
    assert (values["before"][..., 0] == 1).all()


def test_quality_of_known_maps(models, monkeypatch):
    foreground = torch.zeros(3, 96, 96, dtype=torch.bool)
    foreground[:, :48] = True
    result = analysis.attention_quality(models["karat"], X, foreground)
    assert len(result) == 3
    for row in result:
        assert row["chance"] == 0.5
        assert all(0 <= row[key] <= 1 for key in ("entropy", "effective_rank", "pointing", "foreground"))
    module = __import__("kat_zoo.analysis.quality", fromlist=["token_maps"])
    peaked = torch.zeros(3, 2, 6, 6)
    peaked[..., 1, 2] = 1
    monkeypatch.setattr(module, "token_maps", lambda model, layer: peaked)
    row = analysis.attention_quality(models["karat"], X, foreground)[0]
    assert (row["entropy"], row["pointing"], row["foreground"]) == (0, 1, 1)
    monkeypatch.setattr(module, "token_maps", lambda model, layer: torch.ones(3, 2, 6, 6))
    row = analysis.attention_quality(models["karat"], X, foreground)[0]
    assert row["entropy"] == pytest.approx(1) and row["foreground"] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="foreground of shape"):
        analysis.attention_quality(models["karat"], X, foreground[:2])


def quadratic_path():
    """Checkpoints in a plane of a linear model's weights, known in advance."""
    model = nn.Linear(3, 2, bias=True)
    e, f = torch.zeros(8), torch.zeros(8)
    e[0], f[5] = 1, 1
    points = torch.tensor([[3.0, 0.5], [2.0, -1.0], [1.0, 0.25], [0.0, 0.0]])
    states = []
    for p in points:
        flat = torch.arange(8.0) + p[0] * e + p[1] * f
        states.append({"weight": flat[:6].reshape(2, 3), "bias": flat[6:], "counter": torch.tensor(7)})
    return model, states, points


def test_principal_plane_and_surface():
    model, states, points = quadratic_path()
    plane = analysis.principal_plane(states, ["weight", "bias"])
    assert sum(plane.explained) == pytest.approx(1)
    torch.testing.assert_close(plane.path.norm(dim=1), points.norm(dim=1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.cdist(plane.path, plane.path), torch.cdist(points, points), atol=1e-3, rtol=1e-3)
    dot = sum((plane.directions[0][n] * plane.directions[1][n]).sum() for n in plane.center)
    assert abs(float(dot)) < 1e-4
    before = copy.deepcopy(model.state_dict())

    def loss(m):
        return float(sum(((p - plane.center[n]) ** 2).sum() for n, p in m.named_parameters()))

    x, y, values = analysis.loss_surface(model, plane, loss, size=5)
    torch.testing.assert_close(values, y[:, None] ** 2 + x[None, :] ** 2, atol=1e-3, rtol=1e-3)
    assert all(torch.equal(model.state_dict()[n], before[n]) for n in before)
    assert x[0] < plane.path[:, 0].min() and x[-1] > plane.path[:, 0].max()


def test_plane_needs_a_plane():
    _, states, _ = quadratic_path()
    with pytest.raises(ValueError, match="2 checkpoints"):
        analysis.principal_plane(states[:2], ["weight"])
    with pytest.raises(ValueError, match="on a line"):
        analysis.principal_plane([states[0], states[0], states[-1]], ["weight", "bias"])


def test_arguments_out_of_range_are_named(models, tmp_path):
    with pytest.raises(ValueError, match="layer=9: expected -3 to 2, the model has 3 layers"):
        analysis.singular_values(models["softmax"], X, 9)
    with pytest.raises(ValueError, match="layer=-4: expected -3 to 2"):
        analysis.plot_attention_maps({"one": models["softmax"]}, X[:1], tmp_path / "maps.png", -4)
    with pytest.raises(ValueError, match="repeats=0: expected"):
        analysis.measure_costs({"one": models["softmax"]}, X[:1], repeats=0)
    with pytest.raises(ValueError, match=r"path='.*maps': expected a name that ends in .png"):
        analysis.plot_attention_maps({"one": models["softmax"]}, X[:1], tmp_path / "maps")


def test_costs_count_what_autograd_keeps():
    narrow, wide = nn.Linear(64, 64), nn.Linear(64, 64)
    x = torch.randn(10, 64, requires_grad=True)
    costs = analysis.measure_costs({"one": narrow, "two": nn.Sequential(wide, nn.Tanh())}, x, repeats=2)
    assert [c["model"] for c in costs] == ["one", "two"]
    # input and output of 10 x 64 float32; the second also keeps what tanh made
    assert costs[1]["saved_mb"] - costs[0]["saved_mb"] == pytest.approx(0, abs=0.011)
    assert all(c["step_ms"] >= c["step_ms_min"] > 0 for c in costs)


@pytest.mark.slow
def test_pictures_and_numbers(models, tmp_path):
    pair = {name: models[name] for name in ("karat", "softmax")}
    foreground = X.mean(1) > 0.5
    paths = [
        analysis.plot_attention_maps(pair, X[:2], tmp_path / "maps.png"),
        analysis.plot_spectra(pair, X, tmp_path / "spectra.png"),
        analysis.plot_quality(pair, X, foreground, tmp_path / "quality.png"),
        analysis.plot_histograms({"start": models["karat"].state_dict()}, tmp_path / "deep" / "histograms.png"),
        analysis.plot_curves({"run": [{"epoch": 1, "loss": 2.0}, {"epoch": 1, "top1": 50.0, "eval_loss": 1.5}]}, tmp_path / "c.png"),
        analysis.plot_costs(analysis.measure_costs(pair, X[:1], repeats=1), tmp_path / "costs.png"),
    ]
    for path in paths:
        assert path.stat().st_size > 5000 and rows(path)
    groups = {r["group"] for r in rows(tmp_path / "deep" / "histograms.png")}
    assert groups == {"qkv", "attention output", "MLP", "operator a (cos)", "operator b (sin)", "operator w", "operator scales"}
    with pytest.raises(ValueError, match="states without weights"):
        analysis.plot_histograms({"start": {"x": torch.zeros(3, dtype=torch.int64)}}, tmp_path / "none.png")


def test_models_without_attention():
    with pytest.raises(ValueError, match="vision transformer"):
        analysis.capture_attention(nn.Linear(2, 2), X)


def test_every_axis_is_labeled(models, tmp_path, monkeypatch):
    figures = []
    modules = [__import__(f"kat_zoo.analysis.{name}", fromlist=["save"]) for name in ("attention", "costs", "quality")]
    for module in modules:
        monkeypatch.setattr(module, "save", lambda figure, rows, path: figures.append(figure))
    pair = {name: models[name] for name in ("karat", "softmax")}
    analysis.plot_costs([{"model": "one", "step_ms": 1.0, "images_per_s": 2.0, "saved_mb": 3.0}], tmp_path / "costs.png")
    analysis.plot_quality(pair, X, X.mean(1) > 0.5, tmp_path / "quality.png")
    for figure in figures:
        assert all(axis.get_xlabel() and axis.get_ylabel() for axis in figure.axes)
    assert "entropy" in figures[1].axes[0].get_ylabel()
    analysis.plot_attention_maps(pair, X[:1], tmp_path / "maps.png")
    assert [axis.get_title() for axis in figures[2].axes[:3]] == ["image", "head 1", "head 2"]
    assert matplotlib.pyplot.get_fignums() == []  # none is pyplot's, which would keep it


def test_histograms_take_any_weights(tmp_path):
    """Weights of no known name, weights that are all zero, and the range over all states."""
    states = {"start": {"x": torch.zeros(50), "zero": torch.zeros(2)}, "end": {"x": torch.ones(50), "zero": torch.zeros(2)}}
    analysis.plot_histograms(states, tmp_path / "x.png", bins=4)
    assert {r["group"] for r in rows(tmp_path / "x.png")} == {"all weights"}
    assert {float(r["value"]) for r in rows(tmp_path / "x.png")} == {-0.75, -0.25, 0.25, 0.75}
    analysis.plot_histograms({"start": {"zero": torch.zeros(9)}}, tmp_path / "zero.png", bins=4)
    assert all(float(r["density"]) >= 0 for r in rows(tmp_path / "zero.png"))
