"""KAT and KArAt beside timm's ViT: inference and a training step under bfloat16 autocast, eager, compiled, as one CUDA graph."""

import copy
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import timm
import torch
from torch import Tensor, nn

from .. import models as models  # registers them
from .task import Scale, Task, checked
from .timing import Call, Timer, Timing

FAMILIES = {
    "ViT": {
        "pico": "vit_mlp_pico_patch4_28",
        "tiny": "vit_tiny_patch16_224",
        "small": "vit_small_patch16_224",
        "base": "vit_base_patch16_224",
    },
    "KAT": {
        "pico": "kat_pico_patch4_28",
        "tiny": "kat_tiny_patch16_224",
        "small": "kat_small_patch16_224",
        "base": "kat_base_patch16_224",
    },
    "KArAt": {
        "pico": "karat_pico_patch4_28",
        "tiny": "karat_tiny_g3b_patch16_224",
        "small": "karat_small_g3b_patch16_224",
        "base": "karat_base_g1b_patch16_224",
    },
    "KAT + KArAt": {"pico": "karat_kat_pico_patch4_28"},
}
# Place in the order of all tasks, for the first batch; later for the next, and for larger models that are compiled.
RANKS = {
    ("training", "eager"): 2,
    ("training", "graph"): 2,
    ("inference", "eager"): 5,
    ("inference", "graph"): 5,
    ("training", "compiled"): 5,
    ("inference", "compiled"): 7,
}
NUM_CLASSES = 1000
DISTINCT = 4  # images; a batch repeats them, so that its gradient is theirs, which float64 has in a moment
# bfloat16 through all blocks, of a model that is not trained.
LOGITS, GRADIENT = 0.05, 0.1


class Subject:
    """A model on the device, and its results in float64.

    Args:
        name: name of the model for timm.
        device: device of PyTorch.
    """

    def __init__(self, name: str, device: str) -> None:
        self.model = timm.create_model(name, num_classes=NUM_CLASSES).to(device)
        config: Any = self.model.pretrained_cfg
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(DISTINCT, *config["input_size"], generator=generator).to(device)
        self.labels = torch.arange(DISTINCT, device=device)
        exact = copy.deepcopy(self.model).double().train()
        logits = exact(self.images.double())
        nn.functional.cross_entropy(logits, self.labels).backward()
        self.logits, self.gradient = logits.detach(), gradient(exact).float()


def gradient(model: nn.Module) -> Tensor:
    """All gradients of a model as one vector."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def _measure(subjects: Callable[[str], Subject], name: str, batch: int, training: bool, mode: str, timer: Timer) -> Timing:
    known = subjects(name)
    model = known.model.train(training)
    forward = timer.compile(model) if mode == "compiled" else model
    images = known.images.repeat(batch // DISTINCT, 1, 1, 1)
    labels = known.labels.repeat(batch // DISTINCT)
    # At a learning rate of 0 all is computed and the weights stay, so that the gradient of any step is the one in float64.
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True, capturable=timer.device == "cuda")

    def infer() -> Tensor:
        with torch.no_grad(), torch.autocast(timer.device, torch.bfloat16):
            return forward(images)

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(timer.device, torch.bfloat16):
            loss = nn.functional.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()

    def check(result: Any) -> float:
        if training:
            return checked([gradient(model)], [known.gradient], GRADIENT)
        return checked([result[:DISTINCT]], [known.logits], LOGITS)

    def make() -> Call:
        return train if training else infer

    graph = mode == "graph"
    try:
        return timer.measure(make, check, graph=graph, issue_graph=graph)
    finally:
        optimizer.zero_grad(set_to_none=True)


def tasks(scale: Scale, device: str) -> Iterator[Task]:
    """All models, the training step first, as it is what others publish; compiling takes longest and comes late."""
    subjects = functools.cache(lambda name: Subject(name, device))  # for all modes and batches
    for (direction, mode), rank in RANKS.items():
        for i, batch in enumerate(scale.batches):
            for size, family in itertools.product(scale.sizes, FAMILIES):
                if name := FAMILIES[family].get(size):
                    run = functools.partial(_measure, subjects, name, batch, direction == "training", mode)
                    seconds = 25.0 if mode == "compiled" else 1.5
                    later = 4 * i + (2 * scale.sizes.index(size) if mode == "compiled" else 0)
                    yield Task("models", f"{size}, batch {batch}, {mode}", family, direction, run, rank + later, seconds, float(batch))
