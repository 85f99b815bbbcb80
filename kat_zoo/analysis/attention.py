"""Attention of every layer of a ViT before and after its activation, and maps of it over the image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.layers.attention import Attention
from torch import Tensor, nn

from .output import NotApplicable, save


@dataclass(frozen=True)
class AttentionLayer:
    """Attention of one layer.

    Attributes:
        logits: (B, h, N, N), A = q k^T / sqrt(d), before the activation.
        attention: (B, h, N, N) factors of the values: softmax(A), or w Phi(A) in a KArAt.
        learnable: whether the activation is learned, per head.
    """

    logits: Tensor
    attention: Tensor
    learnable: tuple[bool, ...]


def _layer(module: Any, x: Tensor) -> AttentionLayer:
    batch, tokens, _ = x.shape
    qkv = module.qkv(x).reshape(batch, tokens, 3, module.num_heads, -1).permute(2, 0, 3, 1, 4)
    q, k = module.q_norm(qkv[0]), module.k_norm(qkv[1])
    logits = module.scale * (q @ k.transpose(-1, -2))
    if not hasattr(module, "operators"):
        return AttentionLayer(logits, logits.softmax(-1), (False,) * module.num_heads)
    parts, learnable = [], []
    for operator, part in zip(module.operators, logits.split(module.operators.head_counts, 1), strict=True):
        parts.append(operator.attention(part))
        learnable += [bool(list(operator.parameters()))] * part.shape[1]
    return AttentionLayer(logits, torch.cat(parts, 1), tuple(learnable))


@torch.no_grad()
def capture_attention(model: nn.Module, images: Tensor) -> dict[str, AttentionLayer]:
    """Run the model and return the attention of every timm `Attention` in it, by module name.

    Args:
        model: ViT of timm or of this package, put into evaluation mode for the call.
        images: (B, C, H, W), preprocessed, of the model's own size.

    Raises:
        NotApplicable: the model has no such layer.
        ValueError: images of another size.
    """
    inputs: dict[str, Tensor] = {}
    modules = {name: m for name, m in model.named_modules() if isinstance(m, Attention)}
    if not modules:
        raise NotApplicable(f"model {type(model).__name__} without a timm Attention layer: expected a vision transformer")
    # Of a dynamic size too: operators and maps belong to the model's grid of patches.
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if size is not None and images.shape[-2:] != tuple(size):
        raise ValueError(f"images of {tuple(images.shape[-2:])} pixels: expected the model's {tuple(size)}; its set_input_size changes it")
    hooks = [m.register_forward_pre_hook(lambda _, args, name=name: inputs.__setitem__(name, args[0])) for name, m in modules.items()]
    training = model.training
    model.eval()
    try:
        model(images)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return {name: _layer(modules[name], x) for name, x in inputs.items()}


def token_maps(model: Any, layer: AttentionLayer) -> Tensor:
    """Return maps of where the class token looks, or, without one, the average token.

    Softmax heads show their attention. Learnable heads show the pre-activation A with negative values ignored, as in
    the paper's figures: A says how alike two tokens are, while w Phi(A) has no sign convention.

    Args:
        model: plain ViT of timm or of this package.
        layer: attention of one of its layers.

    Returns:
        (B, h, height, width), each map within [0, 1].

    Raises:
        NotApplicable: the model's tokens are not those of a plain ViT.
    """
    if not hasattr(model, "has_class_token") or not hasattr(model, "num_prefix_tokens"):
        raise NotApplicable(f"model {type(model).__name__}: expected a plain ViT, with prefix tokens and then those of the patches")
    learnable = torch.tensor(layer.learnable, device=layer.logits.device)[:, None, None]
    maps = torch.where(learnable, layer.logits.relu(), layer.attention)
    prefix = model.num_prefix_tokens
    rows = maps[:, :, 0] if model.has_class_token else maps[:, :, prefix:].mean(2)
    grid = rows[..., prefix:].unflatten(-1, model.patch_embed.grid_size)
    return grid / grid.amax((-1, -2), keepdim=True).clamp(min=1e-12)


def capture_layer(model: nn.Module, images: Tensor, layer: int) -> AttentionLayer:
    """Capture the attention of one layer.

    Args:
        model: vision transformer.
        images: (B, C, H, W), preprocessed.
        layer: index of the layer, negative from the end.

    Raises:
        ValueError: no such layer.
    """
    captured = list(capture_attention(model, images).values())
    if not -len(captured) <= layer < len(captured):
        raise ValueError(f"layer={layer}: expected {-len(captured)} to {len(captured) - 1}, the model has {len(captured)} layers")
    return captured[layer]


def plot_attention_maps(models: Mapping[str, nn.Module], images: Tensor, path: Path, layer: int = -1) -> Path:
    """Draw each image beside the map of every head of one layer, a block of rows per model.

    Args:
        models: models by label.
        images: (B, C, H, W), preprocessed; 2 to 6 fit a page.
        path: path of the picture (.png); the maps go to the .csv beside it.
        layer: index of the layer, negative from the end.

    Returns:
        The picture's path.

    Raises:
        ValueError: no such layer.
    """
    from matplotlib.figure import Figure

    maps = {}
    for label, model in models.items():
        maps[label] = token_maps(model, capture_layer(model, images, layer)).cpu()
    heads = max(m.shape[1] for m in maps.values())
    count = len(images)
    figure = Figure(figsize=(1.5 * (heads + 1), 1.55 * count * len(maps) + 0.7), layout="compressed")
    axes = figure.subplots(count * len(maps), heads + 1, squeeze=False)
    rows: list[dict[str, object]] = []
    drawn: Any = None
    for block, (label, values) in enumerate(maps.items()):
        for i in range(count):
            line: Sequence[Any] = axes[block * count + i]
            picture = images[i].cpu().movedim(0, -1).squeeze(-1)
            line[0].imshow((picture - picture.min()) / (picture.max() - picture.min() + 1e-12), cmap="gray")
            line[0].set_ylabel(label, fontsize=8)
            for h in range(heads):
                if h < values.shape[1]:
                    drawn = line[h + 1].imshow(values[i, h], vmin=0, vmax=1, cmap="viridis")
                    rows += [
                        {"model": label, "image": i, "head": h, "y": y, "x": x, "value": round(float(v), 6)}
                        for y, r in enumerate(values[i, h])
                        for x, v in enumerate(r)
                    ]
                if block == i == 0:
                    line[0].set_title("image", fontsize=8)
                    line[h + 1].set_title(f"head {h + 1}", fontsize=8)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    label = "attention paid to the patch / the largest of the map"
    figure.colorbar(drawn, ax=axes, location="bottom", shrink=0.7, aspect=40, label=label)
    return save(figure, rows, path)
