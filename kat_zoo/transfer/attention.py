"""`vit_to_karat` and `transfer_attention`: start from another model's weights, or from its queries and keys alone."""

from typing import Any

import timm
import torch
from timm.layers.attention import Attention
from timm.layers.create_act import create_act_layer
from torch import Tensor, nn
from torch.nn import functional as F

from .._text import one_line
from ..models.karat import KArAt
from .architecture import check_plain_vit, create_like

# timm's names of activations without parameters.
ACTIVATIONS = (
    "gelu", "gelu_tanh", "quick_gelu", "silu", "mish", "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "sigmoid", "tanh",
    "hard_sigmoid", "hard_swish", "hard_mish", "identity",
)  # fmt: skip


def vit_to_karat(vit: nn.Module | str, freeze: bool = False, **kwargs: Any) -> KArAt:
    """Make a KArAt of a ViT: every weight is copied, the operators start fresh; with layers=[] it computes the ViT's function.

    Args:
        vit: timm VisionTransformer with plain blocks, or the name of a pretrained one. Its activation, preprocessing and
            license are kept, and so are gradient checkpointing and the weights that do not require gradients.
        freeze: whether training leaves the ViT's queries and keys as they are, as with `transfer_attention`.
        **kwargs: arguments of `KArAt`. Unless given, grid_size is 3, rank 12 and mode "blockwise", whatever the ViT's size.

    Returns:
        The KArAt, in eval mode on the ViT's device.

    Raises:
        ValueError: a model that a KArAt cannot represent (the message names the part), or arguments that `KArAt` refuses.
    """
    source: Any = timm.create_model(vit, pretrained=True) if isinstance(vit, str) else vit
    check_plain_vit(source)
    if source.attn_pool is not None:  # its MLP would get the activation of the blocks
        raise ValueError(f"global_pool={source.global_pool!r}: expected no attention pooling")
    size = {384: "small_g3b", 768: "base_g1b"}.get(int(source.embed_dim), "tiny_g3b")
    defaults = {"grid_size": 3, "rank": 12, "mode": "blockwise", "act_layer": _activation(source)}
    karat = create_like(source, f"karat_{size}_patch16_224", **{**defaults, **kwargs})
    try:
        missing, unexpected = karat.load_state_dict(source.state_dict(), strict=False)
    except RuntimeError as error:
        raise ValueError(f"{', '.join(kwargs) or 'vit'}: expected the sizes of the ViT's weights; {one_line(error)[:300]}") from error
    wrong = unexpected + [name for name in missing if ".attn.operators." not in name]
    if wrong:
        raise ValueError(f"vit with weights {', '.join(wrong[:5])}: expected those of a KArAt of its architecture")
    frozen = {name for name, parameter in source.named_parameters() if not parameter.requires_grad}
    for name, parameter in karat.named_parameters():
        parameter.requires_grad_(name not in frozen)
    karat.set_grad_checkpointing(source.grad_checkpointing)
    if freeze:
        transfer_attention(karat, source)
    return karat


def _activation(vit: Any) -> str:
    """Return timm's name of the activation in every block, found by its values."""
    x = torch.linspace(-8, 8, 1001)
    known: dict[str, Any] = {name: create_act_layer(name) for name in ACTIVATIONS}
    found = {}
    for i, block in enumerate(vit.blocks):
        values = block.mlp.act(x.clone())
        names = [name for name, act in known.items() if torch.allclose(act(x.clone()), values, rtol=0, atol=1e-6)]
        if not names:
            raise ValueError(f"blocks.{i} with activation {block.mlp.act}: expected one of {', '.join(ACTIVATIONS)}")
        found[names[0]] = i
    if len(found) > 1:
        raise ValueError(f"vit with activations {', '.join(found)}: expected the same in all blocks")
    return next(iter(found))


class FrozenQueryKey(nn.Module):
    """attn.qkv as a linear layer of which only the rows of v learn.

    The rows of q and k are buffers, so that no optimizer and no weight decay knows of them; they survive copy.deepcopy and
    torch.save. The state dict has the `weight` and `bias` of the linear layer that this replaces, and takes them back.

    Args:
        qkv: linear layer with the rows of q, k and v in this order; its values are copied.
        rows: number of rows of q and k.
    """

    frozen_weight: Tensor
    frozen_bias: Tensor
    value_weight: Tensor
    value_bias: Tensor

    def __init__(self, qkv: nn.Linear, rows: int) -> None:
        super().__init__()
        self.in_features, self.out_features = qkv.in_features, qkv.out_features
        for name in ("weight", "bias"):
            value: Tensor | None = getattr(qkv, name)
            self.register_buffer(f"frozen_{name}", None if value is None else value.detach()[:rows].clone())
            self.register_parameter(f"value_{name}", None if value is None else nn.Parameter(value.detach()[rows:].clone()))
        self.register_state_dict_post_hook(_join_rows)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_split_rows)  # type: ignore[no-untyped-call]

    @property
    def weight(self) -> Tensor:
        """(3 x attention width, C), rows of q, k and v; a copy."""
        return torch.cat([self.frozen_weight, self.value_weight])

    @property
    def bias(self) -> Tensor | None:
        """(3 x attention width,), or None; a copy."""
        return None if self.value_bias is None else torch.cat([self.frozen_bias, self.value_bias])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to q, k and v, (B, N, 3 x attention width)."""
        return F.linear(x, self.weight, self.bias)


def _join_rows(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, _: Any) -> None:
    for name in ("weight", "bias"):
        if f"{prefix}value_{name}" in state_dict:
            rows = [state_dict.pop(f"{prefix}{part}_{name}") for part in ("frozen", "value")]
            state_dict[prefix + name] = torch.cat(rows)


def _split_rows(module: Any, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    rows = len(module.frozen_weight)
    for name in ("weight", "bias"):
        if prefix + name in state_dict:
            value = state_dict.pop(prefix + name)
            state_dict[f"{prefix}frozen_{name}"], state_dict[f"{prefix}value_{name}"] = value[:rows], value[rows:]


def transfer_attention(student: nn.Module, teacher: nn.Module, freeze: bool = True) -> nn.Module:
    """Give a model another one's queries and keys, as in the paper's attention transfer (arXiv 2503.10632, Table 4).

    A softmax ViT taught by a KArAt keeps the queries and keys of the trained KArAt, and learns all the rest anew.

    Args:
        student: vision transformer, changed in place.
        teacher: vision transformer with the same depth, width and heads.
        freeze: whether training leaves queries and keys alone, whatever the optimizer: every attn.qkv becomes a `FrozenQueryKey`,
            and norms of q and k do not require gradients. Create the optimizer afterwards. Another call with False lets them
            learn again.

    Returns:
        The student.

    Raises:
        ValueError: the attention layers do not match.
    """
    layers = [{n: m for n, m in model.named_modules() if isinstance(m, Attention)} for model in (student, teacher)]
    shapes = [[(n, m.qkv.weight.shape, m.qkv.bias is None, m.num_heads) for n, m in found.items()] for found in layers]
    if shapes[0] != shapes[1]:
        raise ValueError("attention layers of student and teacher: expected the same names, widths, biases and heads")
    for name, own in layers[0].items():
        other = layers[1][name]
        rows = 2 * own.attn_dim
        learning = own.qkv.value_weight if isinstance(own.qkv, FrozenQueryKey) else own.qkv.weight
        bias = other.qkv.bias is not None
        sizes = own.qkv.in_features, own.qkv.out_features, bias
        qkv = nn.utils.skip_init(nn.Linear, *sizes, device=learning.device, dtype=learning.dtype)
        qkv.load_state_dict(own.qkv.state_dict())
        with torch.no_grad():
            qkv.weight[:rows].copy_(other.qkv.weight[:rows])
            if bias:
                qkv.bias[:rows].copy_(other.qkv.bias[:rows])
        own.qkv = FrozenQueryKey(qkv, rows) if freeze else qkv  # type: ignore[assignment]
        for norm, source_norm in ((own.q_norm, other.q_norm), (own.k_norm, other.k_norm)):
            norm.load_state_dict(source_norm.state_dict())
            norm.requires_grad_(not freeze)
    return student
