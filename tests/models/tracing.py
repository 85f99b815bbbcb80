"""What torch.fx can follow."""

import torch
from torch.nn import functional as F


def prepare_for_fx(model):
    """Let timm's attention go the way that torch.fx can follow.

    Torch 2.8 wants a bool for `is_causal` of its fused attention, not the stand-in of a trace: nor are timm's own ViTs traced there.
    """
    try:
        torch.fx.symbolic_trace(lambda q, causal: F.scaled_dot_product_attention(q, q, q, is_causal=causal))
    except TypeError:
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False
