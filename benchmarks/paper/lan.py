"""Appendix B: image fitting by a SIREN MLP, a LAN, and a LAN that starts from the trained MLP."""

import math
from functools import partial

import torch
from matplotlib.figure import Figure
from torch import Tensor

from kat_zoo.kan import LAN

from .common import Rows, Runs, parameters

MODELS = {  # name -> are the activations trained in the first part, at 1e-3, and in the second, at 1e-4
    "SIREN MLP": (False, False),
    "LAN": (True, True),
    "LAN from MLP": (False, True),
}


def _photograph(side: int) -> Tensor:
    from skimage import data
    from skimage.transform import resize

    return torch.from_numpy(resize(data.camera(), (side, side), anti_aliasing=True)).float()


def _train(model: LAN, x: Tensor, y: Tensor, steps: int, rate: float) -> None:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        pick = torch.randperm(len(x), generator=generator)[:4096]
        optimizer.zero_grad()
        (model(x[pick]) - y[pick]).square().mean().backward()
        optimizer.step()


def _run(name: str, image: Tensor, width: list[int], steps: int) -> tuple[Tensor, int]:
    """What a trained model paints, and its number of parameters. A LAN without its splines is the SIREN MLP."""
    t = torch.linspace(-1, 1, len(image))
    x, y = torch.cartesian_prod(t, t), image.reshape(-1, 1) * 2 - 1
    model = LAN(width, base="sin")
    for part, rate, learned in zip((steps, steps // 2), (1e-3, 1e-4), MODELS[name], strict=True):
        for activation in model.activations:
            activation.coef.requires_grad_(learned)
        _train(model, x, y, part, rate)
    with torch.no_grad():
        return ((model(x) + 1) / 2).clamp(0, 1).reshape(image.shape), parameters(model)


def lan(small: bool, runs: Runs) -> tuple[Rows, Figure]:
    """PSNR on scikit-image's photograph; all three take the same number of steps."""
    image = _photograph(48 if small else 128)
    width, steps = ([2, 64, 64, 64, 1], 200) if small else ([2, 128, 128, 128, 128, 1], 1500)
    found = runs({name: partial(_run, name, image, width, steps) for name in MODELS})
    rows: Rows = []
    figure = Figure(figsize=(9, 2.7), layout="constrained")
    panels = figure.subplots(1, 4)
    panels[0].imshow(image, cmap="gray", vmin=0, vmax=1)
    panels[0].set_title("photograph", fontsize=9)
    for panel, (name, (guess, count)) in zip(panels[1:], found.items(), strict=True):
        psnr = -10 * math.log10(float((guess - image).square().mean()))
        rows.append({"model": name, "shape": width, "parameters": count, "steps": steps * 3 // 2, "psnr_db": f"{psnr:.2f}"})
        panel.imshow(guess, cmap="gray", vmin=0, vmax=1)
        panel.set_title(f"{name}: {psnr:.1f} dB", fontsize=9)
    for panel in panels:
        panel.axis("off")
    return rows, figure
