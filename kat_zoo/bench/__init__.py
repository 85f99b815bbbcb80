"""Speed on a GPU: ceilings of the device, our operators beside those of PyTorch, our models beside timm's ViT."""
