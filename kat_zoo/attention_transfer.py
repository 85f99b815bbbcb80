"""`vit_to_karat` and `transfer_attention`: start from another model's weights, or from its queries and keys alone."""

import functools
from typing import Any

import timm
import torch
from timm.layers import Attention
from torch import Tensor, nn

from .models.karat import KArAt
from .transfer import architecture


def vit_to_karat(vit: nn.Module | str, freeze: bool = False, **kwargs: Any) -> KArAt:
    """Make a KArAt of a ViT: every weight is copied, the operators start fresh.

    Args:
        vit: a timm VisionTransformer, or the name of a pretrained one.
        freeze: keep the ViT's queries and keys as they are, see `transfer_attention`.
        **kwargs: of `KArAt`: grid_size, mode, rank, ...

    Returns:
        The KArAt, in eval mode on the ViT's device.

    Raises:
        ValueError: what a KArAt does not support (see `KArAt`).
    """
    source: Any = timm.create_model(vit, pretrained=True) if isinstance(vit, str) else vit
    parameter = next(source.parameters())
    size = {192: "tiny_g3b", 384: "small_g3b"}.get(int(source.embed_dim), "base_g1b")
    karat: Any = timm.create_model(f"karat_{size}_patch16_224", **{**architecture(source), **kwargs})
    karat = karat.to(parameter.device, parameter.dtype)
    missing, unexpected = karat.load_state_dict(source.state_dict(), strict=False)
    wrong = unexpected + [name for name in missing if ".attn.operators." not in name]
    if wrong:
        raise ValueError(f"vit has other weights than a KArAt of its architecture takes: {', '.join(wrong[:5])}")
    if freeze:
        transfer_attention(karat, source)
    return karat.eval()


def transfer_attention(student: nn.Module, teacher: nn.Module, freeze: bool = True) -> nn.Module:
    """Give a model another one's queries and keys, as in the paper's attention transfer (arXiv 2503.10632, Table 4).

    A softmax ViT taught by a KArAt keeps what the KArAt's training made of q and k, and learns all the rest anew.

    Args:
        student: a vision transformer; changed in place.
        teacher: one with the same depth, width and heads.
        freeze: let training leave them alone: the q and k rows of every attn.qkv get zero gradients, and `no_weight_decay`
            names attn.qkv, so that neither moves them. (They are rows of one matrix with v, which does learn.)

    Returns:
        The student.

    Raises:
        ValueError: the attention layers do not match.
    """
    layers = [{n: m for n, m in model.named_modules() if isinstance(m, Attention)} for model in (student, teacher)]
    if [(n, m.qkv.weight.shape, m.num_heads) for n, m in layers[0].items()] != [
        (n, m.qkv.weight.shape, m.num_heads) for n, m in layers[1].items()
    ]:
        raise ValueError("student and teacher differ in their attention layers; expected the same names, widths and heads")
    for name, own in layers[0].items():
        other = layers[1][name]
        rows = 2 * own.attn_dim
        pairs = [(own.qkv.weight, other.qkv.weight)]
        if own.qkv.bias is not None and other.qkv.bias is not None:
            pairs.append((own.qkv.bias, other.qkv.bias))
        for target, source in pairs:
            with torch.no_grad():
                target[:rows].copy_(source[:rows])
            if freeze:
                target.register_hook(functools.partial(_without_rows, rows=rows))
        for norm, source_norm in ((own.q_norm, other.q_norm), (own.k_norm, other.k_norm)):
            norm.load_state_dict(source_norm.state_dict())
            norm.requires_grad_(not freeze)
    if freeze:
        names = {f"{name}.qkv.weight" for name in layers[0]}
        inherited: set[str] = getattr(student, "no_weight_decay", set)()
        student.no_weight_decay = lambda: inherited | names  # type: ignore[assignment]
    return student


def _without_rows(grad: Tensor, rows: int) -> Tensor:
    return torch.cat([torch.zeros_like(grad[:rows]), grad[rows:]])
