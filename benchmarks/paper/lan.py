"""Appendix B: image fitting by a SIREN MLP, a LAN, and a LAN that starts from the trained MLP."""

import math

import torch
from matplotlib.figure import Figure

from kat_zoo.kan import LAN

from .common import Rows, parameters


def lan(small: bool) -> tuple[Rows, Figure]:
    """PSNR on scikit-image's photograph; all three take the same number of steps."""
    from skimage import data
    from skimage.transform import resize

    side = 48 if small else 128
    image = torch.from_numpy(resize(data.camera(), (side, side), anti_aliasing=True)).float()
    t = torch.linspace(-1, 1, side)
    x, y = torch.cartesian_prod(t, t), image.reshape(-1, 1) * 2 - 1
    width = [2, 64, 64, 64, 1] if small else [2, 128, 128, 128, 128, 1]
    steps = 200 if small else 1500

    def train(model: LAN, steps: int, rate: float) -> None:
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], rate)
        generator = torch.Generator().manual_seed(0)
        for _ in range(steps):
            pick = torch.randperm(len(x), generator=generator)[:4096]
            optimizer.zero_grad()
            (model(x[pick]) - y[pick]).square().mean().backward()
            optimizer.step()

    def frozen() -> LAN:
        model = LAN(width, base="sin")
        for activation in model.activations:
            activation.coef.requires_grad_(False)
        return model

    siren, fresh, continued = frozen(), LAN(width, base="sin"), frozen()
    for model in (siren, fresh):
        train(model, steps, 1e-3)
        train(model, steps // 2, 1e-4)
    train(continued, steps, 1e-3)
    for activation in continued.activations:
        activation.coef.requires_grad_(True)
    train(continued, steps // 2, 1e-4)
    rows: Rows = []
    figure = Figure(figsize=(9, 2.7), layout="constrained")
    panels = figure.subplots(1, 4)
    panels[0].imshow(image, cmap="gray", vmin=0, vmax=1)
    panels[0].set_title("photograph", fontsize=9)
    for panel, (name, model) in zip(panels[1:], (("SIREN MLP", siren), ("LAN", fresh), ("LAN from MLP", continued)), strict=True):
        with torch.no_grad():
            guess = ((model(x) + 1) / 2).clamp(0, 1).reshape(side, side)
        psnr = -10 * math.log10(float((guess - image).square().mean()))
        rows.append(
            {
                "model": name,
                "shape": width,
                "parameters": parameters(model),
                "steps": steps * 3 // 2,
                "psnr_db": f"{psnr:.2f}",
            }
        )
        panel.imshow(guess, cmap="gray", vmin=0, vmax=1)
        panel.set_title(f"{name}: {psnr:.1f} dB", fontsize=9)
    for panel in panels:
        panel.axis("off")
    return rows, figure
