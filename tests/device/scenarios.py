"""Runs every scenario on the stand-in device and prints, as JSON, the error of each: the empty string where it went well.

usage: scenarios.py [NAME ...]
"""

import json
import math
import os
import sys
import tempfile
import traceback
from pathlib import Path

os.environ["MPLBACKEND"] = "agg"

import numpy as np
import timm
import torch
from standin import register
from torch import nn

import kat_zoo
from kat_zoo import analysis, layers
from kat_zoo.kan import KAN, LAN, KANClassifier, KANRegressor
from kat_zoo.kan.operations import structure
from kat_zoo.kan.operations.charts import plot_edge, plot_history

DEVICE = register()
FOLDER = Path(tempfile.mkdtemp())
SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


def table(rows=120):
    generator = torch.Generator().manual_seed(0)
    X = 2 * torch.rand(rows, 2, generator=generator, dtype=torch.float64) - 1
    y = torch.exp(torch.sin(math.pi * X[:, :1]) + X[:, 1:] ** 2)
    return X.to(DEVICE), y.to(DEVICE)


def network(width=(2, 3, 1), **options):
    return KAN(list(width), device=DEVICE, **options)


def here(*tensors):
    for tensor in tensors:
        assert tensor.device.type == "standin", tensor.device


def both(module, x, **close):
    """The result and the gradients on the device are those on the CPU."""
    results = []
    for device in ("cpu", DEVICE):
        module = module.to(device)
        module.zero_grad()
        z = x.detach().to(device).requires_grad_(x.is_floating_point())
        y = module(z)
        y.float().pow(2).sum().backward()
        results.append([y.detach().cpu(), z.grad.cpu(), *(p.grad.cpu() for p in module.parameters() if p.grad is not None)])
    here(y, z.grad)
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, **close)


@scenario
def a_mix_of_devices_raises():
    try:
        torch.ones(3, device=DEVICE) + torch.ones(3)
    except RuntimeError as error:
        assert "two devices" in str(error)
    else:
        raise AssertionError("tensors of two devices were added")


@scenario
def activations():
    both(layers.GroupRational(4), torch.randn(3, 5, 16))
    both(layers.GRKAN(16, 32, num_groups=4), torch.randn(3, 5, 16))


@scenario
def splines():
    both(layers.KANLinear(4, 6), torch.randn(7, 4))
    layer = layers.KANLinear(4, 6, device=DEVICE, extrapolate="zero")
    layer.set_mask(torch.ones(6, 4, device=DEVICE))
    here(layer(torch.randn(3, 4, device=DEVICE)), layer.edges(torch.randn(3, 4, device=DEVICE)))


@scenario
def learned_attention():
    q, k, v = torch.randn(3, 2, 2, 10, 8, requires_grad=True)
    heads = layers.FourierHeads(2, 10, num_harmonics=2)
    on_host = heads(q, k, v)
    on_device = heads.to(DEVICE)(*(t.detach().to(DEVICE) for t in (q, k, v)))
    torch.testing.assert_close(on_device.cpu(), on_host, rtol=1e-4, atol=1e-5)


@scenario
def models():
    for name in timm.list_models():
        if not timm.model_entrypoint(name).__module__.startswith("kat_zoo.") or "pico" not in name:
            continue
        model = timm.create_model(name, num_classes=10).to(DEVICE).train()
        x = torch.randn(2, *model.pretrained_cfg["input_size"]).to(DEVICE)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        for precision in (torch.float32, torch.bfloat16):
            with torch.autocast("standin", torch.bfloat16, enabled=precision == torch.bfloat16):
                loss = nn.functional.cross_entropy(model(x), torch.tensor([1, 2]).to(DEVICE))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert math.isfinite(loss.item())


@scenario
def features_and_other_image_sizes():
    for name in ("kat_pico_patch4_28", "karat_pico_patch4_28"):
        model = timm.create_model(name, dynamic_img_size=True).to(DEVICE).eval()
        x = torch.randn(1, 1, 36, 32).to(DEVICE)
        here(model(x), *model.forward_intermediates(x, intermediates_only=True))


@scenario
def transfer():
    vit = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32, num_classes=3).to(DEVICE)
    images = torch.randn(2, 3, 32, 32)
    for given in (images, images.to(DEVICE)):
        here(kat_zoo.vit_to_kat(vit, images=given)[0](images.to(DEVICE)))


@scenario
def pictures():
    model = timm.create_model("karat_pico_patch4_28").to(DEVICE).eval()
    x = torch.randn(2, 1, 28, 28).to(DEVICE)
    analysis.plot_attention_maps({"KArAt": model}, x, FOLDER / "maps.png")
    analysis.plot_spectra({"KArAt": model}, x, FOLDER / "spectra.png")
    analysis.plot_quality({"KArAt": model}, x, None, FOLDER / "quality.png")
    analysis.plot_histograms({"one": model.state_dict()}, FOLDER / "histograms.png")
    analysis.plot_costs(analysis.measure_costs({"KArAt": model}, x, repeats=1), FOLDER / "costs.png")
    states = []
    for shift in (0.0, 0.01, 0.03):
        states.append({name: value + shift * torch.randn_like(value) for name, value in model.state_dict().items()})
    plane = analysis.principal_plane(states, [name for name, _ in model.named_parameters()])
    analysis.loss_surface(model, plane, lambda m: m(x).square().mean().item(), size=3)


def fits(**options):
    X, y = table()
    model = network()
    before = float((model(X) - y).square().mean())
    history = model.fit(X, y, **options)
    here(model(X))
    assert float((model(X) - y).square().mean()) < before
    return model, history


@scenario
def fit_lm():
    X_val, y_val = table(40)
    fits(steps=5, optimizer="lm", X_val=X_val, y_val=y_val)
    fits(steps=3, optimizer="lm", l1=1e-3, coef_smoothness=1e-4)
    X, y = table()
    network().fit(X, y, steps=2, optimizer="lm", sample_weight=torch.rand(len(X), dtype=torch.float64).to(DEVICE))


@scenario
def fit_lbfgs_and_adam():
    fits(steps=3, optimizer="lbfgs", l1=1e-3, entropy=1e-3)
    fits(steps=5, optimizer="adam", batch_size=32)
    X, y = table()
    network([2, [1, 1], 1]).fit(X, y, steps=2, grid_schedule=(3, 5))


@scenario
def numpy_inputs():
    X, y = (t.cpu().numpy() for t in table())
    model = network()
    model.fit(X, y, steps=2)
    here(model(torch.from_numpy(X).to(DEVICE)))


@scenario
def changes_of_a_network():
    X, y = table()
    model = network()
    model.fit(X, y, steps=3)
    model.refine(6)
    model.update_grid(X)
    attribution = model.attribute(X)
    here(attribution.inputs)
    for changed in (model.prune(X), model.prune_inputs(X)[0], model.remove_node(1, 0), model.expand_depth(), model.expand_width(1)):
        here(changed(X[:, : changed.nodes[0]]))
    model.remove_edge(0, 0, 0)
    model.save(FOLDER / "network.safetensors")
    assert torch.equal(KAN.load(FOLDER / "network.safetensors")(X.cpu()), model.cpu()(X.cpu()))


@scenario
def symbols():
    X, y = table()
    model = network([2, 1, 1])
    model.fit(X, y, steps=20)
    model.suggest_symbolic(0, 0, 0, X)
    model.fix_symbolic(0, 1, 0, "x^2", X)
    model.unfix(0, 1, 0, X)
    model.auto_symbolic(X, y)
    model.fit(X, y, steps=5)
    model.formula(X=X), model.latex()
    assert float((model(X) - y).abs().max()) < 1e-2


@scenario
def charts():
    X, y = table()
    model = network()
    history = model.fit(X, y, steps=2)
    model.plot(X), plot_edge(model, 0, 0, 0, X), plot_history(history)
    function, ends = model.edge(0, 0, 0)
    function(torch.linspace(*ends, 5, dtype=torch.float64, device=DEVICE))


@scenario
def structure_of_a_function():
    X, _ = table()
    model = network()
    here(structure.jacobian(model, X), structure.hessian(model, X))
    structure.detect_separability(model, X)
    structure.test_symmetry(network([3, 2, 1]), torch.cat([X, X[:, :1] ** 2], 1), [0, 1])


@scenario
def learned_activation_networks():
    X, y = table()
    net = LAN([2, 4, 1], device=DEVICE)
    net.fit(X, y, steps=2)
    mlp = nn.Sequential(nn.Linear(2, 4), nn.SiLU(), nn.Linear(4, 1)).to(DEVICE)
    here(net(X.float()), LAN.from_mlp(mlp, nn.functional.silu)(X.float()))


@scenario
def estimators():
    X, y = (t.cpu().numpy() for t in table())
    for kind, target in ((KANRegressor, y.ravel()), (KANClassifier, (y.ravel() > y.mean()).astype(int))):
        # Few steps, in which the rounding of one device does not grow into another minimum.
        on_device, on_host = (kind(device=device, steps=5).fit(X, target) for device in ("standin", None))
        assert next(on_device.network_.parameters()).device.type == "cpu"
        np.testing.assert_allclose(on_device.predict(X), on_host.predict(X), atol=1e-4)
    KANClassifier(symbolic=True, hidden=(), device="standin").fit(X, target)


if __name__ == "__main__":
    errors = {}
    for name in sys.argv[1:] or SCENARIOS:
        torch.manual_seed(0)
        try:
            SCENARIOS[name]()
            errors[name] = ""
        except Exception:
            errors[name] = traceback.format_exc()
            print(errors[name], file=sys.stderr)
    print(json.dumps(errors))
