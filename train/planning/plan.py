"""`kat-zoo plan`: what a recipe needs on given GPUs - memory, batch that fits, updates, time - before any of them is booked."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ..classification.recipe import Recipe
from ..core.config import OptimizerConfig, RunRecipe, parse, require
from ..core.optim import first_step
from ..core.processes import check_shares
from ..segmentation.recipe import SegmentationRecipe
from ..tasks import find_task
from .footprint import Footprint, count
from .workload import RECIPES, PlannedRecipe, workload

STRATEGIES = ("ddp", "fsdp2")
# Dense peak of an A100 in TFLOP/s (NVIDIA's data sheet): float32 without TF32, which PyTorch leaves off, and 16-bit.
A100 = {"no": 19.5, "bf16": 312.0, "fp16": 312.0}


@dataclass(frozen=True)
class Machine:
    """The GPUs that a plan is for.

    Attributes:
        gpus: number of GPUs, one process each.
        gpu_memory: memory of one GPU, in GB (1e9 bytes).
        strategy: `ddp`, everything on every GPU; `fsdp2`, weights, gradients, optimizer and average in equal parts on all GPUs,
            gathered block by block.
        tflops: peak of one GPU in the recipe's precision, in 1e12 operations per second; None is an A100's.
        utilization: part of the peak that training reaches, in (0, 1]. It is assumed, not computed.
        reserve: part of the memory left to CUDA, libraries' work space, fragments and temporary tensors, in [0, 1).
    """

    gpus: int = 8
    gpu_memory: float = 80.0
    strategy: str = "ddp"
    tflops: float | None = None
    utilization: float = 0.3
    reserve: float = 0.15

    def __post_init__(self) -> None:
        """Refuse machines that do not exist.

        Raises:
            ValueError: naming the option, its value and what is right.
        """
        require(
            ("--gpus", self.gpus, self.gpus >= 1, "at least 1"),
            ("--gpu-memory", self.gpu_memory, self.gpu_memory > 0, "positive, in GB"),
            ("--strategy", self.strategy, self.strategy in STRATEGIES, f"one of {', '.join(STRATEGIES)}"),
            ("--tflops", self.tflops, self.tflops is None or self.tflops > 0, "positive"),
            ("--utilization", self.utilization, 0 < self.utilization <= 1, "in (0, 1]"),
            ("--reserve", self.reserve, 0 <= self.reserve < 1, "in [0, 1)"),
        )


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU.

    Attributes:
        weights: float32 weights and buffers; under FSDP2 with two blocks gathered, the one in use and the next.
        gradients: float32 gradients; under DDP with the buckets it sends them in, which are a second copy.
        optimizer: state of the optimizer.
        average: the averaged weights.
        copies: 16-bit weights that autocast keeps for the backward pass.
        per_image: activations, largest recomputed block and input of one image.
    """

    weights: float
    gradients: float
    optimizer: float
    average: float
    copies: float
    per_image: float

    @property
    def fixed(self) -> float:
        """Bytes that are held whatever the batch."""
        return self.weights + self.gradients + self.optimizer + self.average + self.copies

    def images(self, available: float) -> int:
        """Images per pass that fit into so many bytes."""
        return max(0, int((available - self.fixed) // self.per_image))


@dataclass(frozen=True)
class Plan:
    """The needs of a run; index 0 without and 1 with gradient checkpointing, for models that have it.

    Attributes:
        footprint: counts of one pass.
        memory: bytes on one GPU.
        fits: images per GPU and pass that fit.
        images_per_pass: images per GPU and pass that the recipe asks for.
        grad_accum: passes per update with which the recipe's batch fits; None where not one image does.
        updates_per_epoch: optimizer updates in one epoch.
        updates: updates of the whole run.
        hours: hours of the whole run, evaluation left out.
        images_per_second: images that all GPUs together train, and all loaders must deliver, in a second.
        assumed: assumption of the counts about the images, a sentence; empty where nothing depends on them.
    """

    footprint: tuple[Footprint, ...]
    memory: tuple[Memory, ...]
    fits: tuple[int, ...]
    images_per_pass: int
    grad_accum: tuple[int | None, ...]
    updates_per_epoch: int
    updates: int
    hours: tuple[float, ...]
    images_per_second: tuple[float, ...]
    assumed: str = ""


def plan(recipe: PlannedRecipe, machine: Machine) -> Plan:
    """Work out what a recipe needs.

    Args:
        recipe: recipe of any task; no data is opened and no weights are fetched.
        machine: the GPUs.

    Returns:
        Its needs. Activations are counted (`footprint.count`), not estimated; the time is FLOPs / (GPUs x peak x utilization).

    Raises:
        ValueError: unknown model, or a batch that the GPUs cannot share equally.
    """
    if isinstance(recipe, Recipe):
        recipe = recipe.after_probe  # which has no updates in mode linear_probe
    accum, batch = recipe.optimizer.grad_accum, recipe.data.batch_size
    check_shares(recipe, machine.gpus)
    work = workload(recipe)
    footprints = count(work.build, work.loss, recipe.system.precision)
    state = optimizer_state(work.build(), recipe.optimizer)
    memory = tuple(_memory(f, state, recipe, machine, 4 * torch.Size(work.image).numel()) for f in footprints)
    fits = tuple(m.images(1e9 * machine.gpu_memory * (1 - machine.reserve)) for m in memory)
    peak = 1e12 * (machine.tflops or A100[recipe.system.precision])
    speeds = tuple(machine.gpus * peak * machine.utilization / (f.forward_flops + f.backward_flops) for f in footprints)
    updates = work.updates_per_epoch * recipe.schedule.epochs
    # Batch norm takes two images or more, of all GPUs together.
    least = max(1, 2 // machine.gpus) if isinstance(recipe, SegmentationRecipe) else 1
    return Plan(
        footprint=footprints,
        memory=memory,
        fits=fits,
        images_per_pass=batch // (accum * machine.gpus),
        grad_accum=tuple(_accumulation(batch // machine.gpus, n, least, recipe.images_together) for n in fits),
        updates_per_epoch=work.updates_per_epoch,
        assumed=work.assumed,
        updates=updates,
        hours=tuple(updates * batch / speed / 3600 for speed in speeds),
        images_per_second=speeds,
    )


def optimizer_state(model: nn.Module, config: OptimizerConfig) -> float:
    """Elements of optimizer state that a model's trained parameters need.

    The optimizer takes one step on one small parameter of every rank there is; what it then holds for it, per element, is what
    it will hold for the others. (Factored optimizers hold less on large matrices.)

    Args:
        model: model on any device; parameters with `requires_grad` count.
        config: the optimizer.

    Returns:
        Elements; a counter of steps is left out.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = first_step(config, {p.ndim for p in trained})
    held = {
        p.ndim: sum(v.numel() for v in optimizer.state[p].values() if isinstance(v, Tensor) and v.numel() > 1) / p.numel()
        for group in optimizer.param_groups
        for p in group["params"]
    }
    return sum(p.numel() * held[p.ndim] for p in trained)


def _memory(footprint: Footprint, state: float, recipe: RunRecipe, machine: Machine, image: int) -> Memory:
    """Bytes on one GPU; float32 but for what autocast copies."""
    sharded = machine.strategy == "fsdp2"
    part = machine.gpus if sharded else 1
    weights = footprint.parameters + footprint.buffers
    buckets = footprint.trained if machine.gpus > 1 and not sharded else 0
    return Memory(
        weights=4 * (weights / part + (2 * footprint.largest_block if part > 1 else 0)),
        gradients=4 * (footprint.trained / part + buckets),
        optimizer=4 * state / part,
        average=4 * weights / part if recipe.ema.decay else 0.0,
        copies=footprint.copies,
        per_image=footprint.saved + footprint.recomputed + image,
    )


def _accumulation(images: int, fits: int, least: int = 1, together: int = 1) -> int | None:
    """The fewest equal passes for so many images of which `fits` fit at a time, each of `least` or more and a multiple of `together`.

    Returns:
        Their number; None where none do.
    """
    return next((n for n in range(1, images + 1) if not images % (n * together) and least <= images // n <= fits), None)


def render(recipe: PlannedRecipe, machine: Machine, needs: Plan) -> Table:
    """The plan as a table for the terminal."""
    name = recipe.model.name if isinstance(recipe, Recipe) else f"{recipe.model.head} of {recipe.model.backbone}"
    heads = ["as it is", "with checkpointing"][: len(needs.footprint)]
    chosen = heads[-1 if recipe.system.grad_checkpointing else 0]
    table = Table(
        title=f"{name} on {machine.gpus} GPU(s) of {machine.gpu_memory:g} GB, {machine.strategy}, "
        f"{recipe.system.precision if recipe.system.precision != 'no' else 'float32'}",
        caption=f"Counted from the model, not measured on a GPU. Time: {machine.utilization:.0%} of "
        f"{machine.tflops or A100[recipe.system.precision]:g} TFLOP/s, assumed; evaluation left out. "
        f"{machine.reserve:.0%} of the memory is kept for temporary tensors and libraries."
        + (" The teacher's forward pass and weights are left out." if isinstance(recipe, Recipe) and recipe.distill.teacher else "")
        + (f" {needs.assumed}" if needs.assumed else ""),
    )
    table.add_column("")
    for head in heads:
        table.add_column(f"{head} (recipe)" if head == chosen else head, justify="right")

    def row(name: str, values: Sequence[Any], form: Callable[[Any], str] = lambda v: f"{v:,}", end: bool = False) -> None:
        table.add_row(name, *map(form, values), end_section=end)

    counts, memory = needs.footprint, needs.memory
    row("parameters", [f.parameters for f in counts])
    row("trained", [f.trained for f in counts])
    row("forward, GFLOP per image", [f.forward_flops / 1e9 for f in counts], lambda v: f"{v:.3g}")
    row("step, GFLOP per image", [(f.forward_flops + f.backward_flops) / 1e9 for f in counts], lambda v: f"{v:.3g}")
    updates = recipe.data.batch_size / 1e12
    row("step, TFLOP per update", [(f.forward_flops + f.backward_flops) * updates for f in counts], lambda v: f"{v:.3g}", True)
    for name, pick in (
        ("weights", lambda m: m.weights), ("gradients", lambda m: m.gradients), ("optimizer", lambda m: m.optimizer),
        ("averaged weights", lambda m: m.average), ("16-bit copies", lambda m: m.copies), ("activations per image", lambda m: m.per_image),
        (f"total at {needs.images_per_pass} images per GPU and pass", lambda m: m.fixed + needs.images_per_pass * m.per_image),
    ):  # fmt: skip
        row(name, [pick(m) for m in memory], size_text, name.startswith("total"))
    row("images per GPU and pass that fit", needs.fits)
    row("grad_accum that the batch needs", [n or "does not fit" for n in needs.grad_accum], str, True)
    row("updates per epoch", [needs.updates_per_epoch] * len(counts))
    row("updates", [needs.updates] * len(counts))
    row("images/s to load and train", needs.images_per_second, lambda v: f"{v:,.0f}")
    row("hours", needs.hours, lambda v: f"{v:.3g}")
    return table


def size_text(size: float) -> str:
    """Bytes in the decimal unit that reads best."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def main(argv: Sequence[str] | None = None) -> int:
    """`kat-zoo plan`: print what a recipe needs.

    Args:
        argv: a recipe's arguments, `--gpus`, `--gpu-memory`, `--strategy`, `--tflops`, `--utilization`, `--reserve`.

    Returns:
        Exit code.

    Raises:
        ValueError: options that do not fit.
    """
    helps = {
        "gpus": "number of GPUs",
        "gpu_memory": "of one GPU, in GB",
        "strategy": "ddp or fsdp2",
        "tflops": "peak of one GPU in the recipe's precision; an A100's if not given",
        "utilization": "part of the peak that training reaches",
        "reserve": "part of the memory left to libraries and temporary tensors",
    }
    flags: dict[str, dict[str, Any]] = {
        field.name: {"type": float if field.name == "tflops" else type(field.default), "default": field.default, "help": helps[field.name]}
        for field in dataclasses.fields(Machine)
    }
    arguments = sys.argv[1:] if argv is None else argv
    recipe, options = parse(RECIPES[find_task(arguments)], arguments, "kat-zoo plan", {"output": "unused"}, **flags)
    machine = Machine(**vars(options))
    Console(soft_wrap=False).print(render(recipe, machine, plan(recipe, machine)))
    return 0
