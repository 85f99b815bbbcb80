"""The parts of a training loop that all tasks share: run folder, guarded updates, logs, checkpoints, stop signals.

A loop reads: `processes.start`, build data and model, `begin`, then `with stop_signals() as run.signals` over epochs: `Run.evaluated`
where an evaluation is due, `Run.backward` on each of `Run.micro_batches`; at the end `Run.finish`. See `segmentation.train`.
"""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, broadcast_object_list, set_seed, tqdm
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from kat_zoo.analysis import plot_curves
from kat_zoo.hub.repository import CARD, CONFIG, RECIPE, RESULT, WEIGHTS, dumps, folder_card

from .checkpoint import (
    Progress,
    drop_abandoned,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
    save_weights,
    whole_weights,
    write_atomically,
)
from .config import RunRecipe, parse, to_yaml
from .log import JsonlLog, read_log
from .optim import create_optimizer, create_scheduler
from .processes import signaled
from .runs import OLD_WEIGHTS
from .signals import stop_signals
from .workers import plain_errors
from .zero import configure_zero

logger = logging.getLogger("kat_zoo")


class TrainingDiverged(RuntimeError):
    """No finite gradient for `system.max_skipped` consecutive updates."""


class OutOfMemory(RuntimeError):
    """Memory ran out; the message says what would fit."""


@runtime_checkable
class Ordered(Protocol):
    """A loader whose order depends on more than seed and epoch."""

    def order_numbers(self) -> dict[str, int]:
        """The numbers that the order depends on."""

    def compare_order(self, before: dict[str, int]) -> None:
        """Say so where they were others."""


@dataclass
class Run:
    """A run in progress; made by `begin`.

    Attributes:
        recipe: recipe of any task.
        accelerator: accelerator of this process.
        bare: the model as it was built, with the current weights.
        model: the same, prepared for training: compiled, distributed.
        ema: averaged weights, or None.
        optimizer: prepared.
        scheduler: stepped per update.
        train_batches: loader, prepared, of micro-batches.
        test_batches: loader, prepared, of the evaluation split.
        updates_per_epoch: optimizer updates in one epoch.
        progress: state of the run, which a checkpoint keeps beside the weights.
        log: log of the main process; None in the others.
        bar: progress bar over updates.
        losses: loss name -> values of the micro-batches since the last log record.
        config: content of config.json.
        signals: stop signals received; bound by `with stop_signals() as run.signals`.
    """

    recipe: RunRecipe
    accelerator: Accelerator
    bare: nn.Module
    model: nn.Module
    ema: ModelEmaV3 | None
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler
    train_batches: Any
    test_batches: Any
    updates_per_epoch: int
    progress: Progress
    log: JsonlLog | None
    bar: Any
    losses: dict[str, list[Tensor]]
    config: Mapping[str, Any]
    signals: list[int] = field(default_factory=list)
    _skipped_in_a_row: int = 0
    _clock: tuple[float, int] = (0.0, 0)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.recipe.output)

    @property
    def total(self) -> int:
        """Updates in the whole run."""
        return self.recipe.schedule.epochs * self.updates_per_epoch

    @property
    def finished(self) -> bool:
        """Whether all updates are done."""
        return self.progress.update >= self.total

    @property
    def evaluation_due(self) -> bool:
        """Whether to evaluate now: at the end of every `eval_every`-th epoch, once, and at the end of the run."""
        epoch, done = divmod(self.progress.update, self.updates_per_epoch)
        at_end = not done and epoch > 0 and epoch % self.recipe.system.eval_every == 0
        return self.finished or (at_end and self.progress.evaluated < self.progress.update)

    @property
    def weights(self) -> dict[str, nn.Module]:
        """The weights to evaluate, prefix of their figures -> model: the raw weights, then the averaged ones, where there are any."""
        return {"": self.bare} | ({} if self.ema is None else {"ema_": self.ema.module})

    def micro_batches(self, sampler: Any) -> Iterator[Any]:
        """The rest of the epoch, with an update after each global batch; ends early where a process has received a stop signal.

        Args:
            sampler: sampler of the training batches; it seeks the first sample that has not been seen.

        Yields:
            Micro-batches, to be passed through `model` and `backward`.

        Raises:
            TrainingDiverged: too many updates in a row were skipped.
        """
        self.model.train()
        epoch, done = divmod(self.progress.update, self.updates_per_epoch)
        sampler.seek(epoch, done * self.recipe.batch_size)
        for batch in self.train_batches:
            with self.accelerator.accumulate(self.model):
                yield batch
            if self.accelerator.sync_gradients:
                self.update()
                if signaled(self.accelerator, self.signals):
                    return

    def backward(self, losses: Mapping[str, Tensor]) -> None:
        """Backward of one of `micro_batches`.

        Args:
            losses: name -> scalar, all of which are logged; `loss` is the one to minimize, or without it the sum, logged as `loss`.
        """
        if "loss" not in losses:
            losses = {"loss": torch.stack(list(losses.values())).sum(), **losses}
        self.accelerator.backward(losses["loss"])
        for name, value in losses.items():
            self.losses.setdefault(name, []).append(value.detach())

    def update(self) -> None:
        """One optimizer update from the accumulated gradients, skipped if they are not finite; then log and save where due.

        Raises:
            TrainingDiverged: too many updates in a row were skipped.
        """
        accelerator, progress, system = self.accelerator, self.progress, self.recipe.system
        # The norm of the gradient averaged over all processes: each of them sees the same NaN.
        norm = float(accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.clip_grad or math.inf))
        finite = math.isfinite(norm)
        if finite or accelerator.scaler is not None:  # fp16's scaler skips by itself, and adapts
            self.optimizer.step()
        self.optimizer.zero_grad()
        progress.update += 1
        self.scheduler.step_update(progress.update)
        if finite and self.ema is not None:
            self.ema.update(self.bare, step=progress.update)
        self.bar.update()
        self._skipped_in_a_row = 0 if finite else self._skipped_in_a_row + 1
        if not finite:
            self._skip(norm)
        if progress.update % system.log_every == 0 and self.losses:
            self._log_losses(norm)
        # At the end of an epoch before the evaluation, which may fail: the epoch is then not lost.
        if progress.update % (system.checkpoint_every or self.updates_per_epoch) == 0 or progress.update % self.updates_per_epoch == 0:
            self.save()

    def _skip(self, norm: float) -> None:
        self.progress.skipped += 1
        self.losses.clear()
        logger.warning("update %d skipped: the gradient norm is %s", self.progress.update, norm)
        if self._skipped_in_a_row >= self.recipe.system.max_skipped:
            good = next(reversed(list_checkpoints(self.folder)), "none")
            raise TrainingDiverged(f"no finite gradient in {self._skipped_in_a_row} updates in a row; last good checkpoint: {good}")

    def _log_losses(self, norm: float) -> None:
        means = {name: float(self.accelerator.reduce(torch.stack(values).mean(), "mean")) for name, values in self.losses.items()}
        since, update = self._clock
        speed = (self.progress.update - update) * self.recipe.batch_size / (time.perf_counter() - since)
        rate = self.optimizer.param_groups[0]["lr"]
        self.record({**means, "lr": rate, "grad_norm": norm, "images_per_second": speed})
        best = {} if self.progress.best is None else {"best": f"{self.progress.best:.2f}"}
        self.bar.set_postfix(loss=f"{means['loss']:.3f}", lr=f"{rate:.1e}", **best, refresh=False)
        self.losses.clear()
        self.restart_clock()

    def restart_clock(self) -> None:
        """Begin a new interval of `images_per_second`."""
        self._clock = (time.perf_counter(), self.progress.update)

    def record(self, values: Mapping[str, float]) -> None:
        """Write a record to metrics.jsonl and the trackers; every process calls it."""
        if self.log is not None:
            self.log.write({"update": self.progress.update, "epoch": self.progress.update / self.updates_per_epoch, **values})
        self.accelerator.log(dict(values), step=self.progress.update)

    def evaluated(self, values: Mapping[str, float], metric: str) -> None:
        """Record an evaluation, write model.safetensors, and best.safetensors where it is the best, and note it in the checkpoint.

        Args:
            values: figures by name, none of them called `loss`.
            metric: the one that decides which weights are best; larger is better, and NaN is never best.
        """
        progress, value = self.progress, values[metric]
        if progress.evaluated < progress.update or progress.best is None:
            self.record(values)
        better = not math.isnan(value) and (progress.best is None or value > progress.best)
        weights = whole_weights(self.ema.module if self.ema is not None else self.bare)
        if self.accelerator.is_main_process:
            for name in (WEIGHTS, "best.safetensors") if better else (WEIGHTS,):
                save_weights(weights, self.folder / name, progress.update)
            (self.folder / OLD_WEIGHTS).unlink(missing_ok=True)  # of an older version that began the run
            plot_curves({self.folder.name: read_log(self.folder / "metrics.jsonl")}, self.folder / "curves.png")
        progress.best, progress.evaluated = value if better else progress.best, progress.update
        self.save()
        self.restart_clock()

    def save(self) -> Path:
        """Save a checkpoint; every process calls it. Returns its folder."""
        self.progress.window = {name: self.accelerator.reduce(torch.stack(values), "mean").tolist() for name, values in self.losses.items()}
        return save_checkpoint(self.accelerator, self.folder, self.progress, self.ema, self.recipe.system.keep_checkpoints)

    def stopped(self) -> bool:
        """Whether any process has received a stop signal; the run is then saved and finished, and the loop returns."""
        stop = signaled(self.accelerator, self.signals)
        if stop:
            self.finish(f"stopped at update {self.progress.update} by a signal: {self.save()}; --resume auto continues")
        return stop

    def finish(self, message: str, result: Mapping[str, Any] | None = None) -> None:
        """Close bar and trackers and say how the run ended.

        Args:
            message: one line.
            result: content of result.json, which the card quotes; None while the run is not finished.
        """
        if result is not None and self.accelerator.is_main_process:
            write_atomically(self.folder / RESULT, dumps(result))
            write_atomically(self.folder / CARD, folder_card(self.folder, self.config).encode())
        self.bar.close()
        self.accelerator.print(message)
        for tracker in self.accelerator.trackers:
            tracker.finish()


def begin(
    recipe: RunRecipe,
    accelerator: Accelerator,
    checkpoint: Path | None,
    model: nn.Module,
    train_batches: Any,
    test_batches: Any,
    updates_per_epoch: int,
    summary: str,
    config: Mapping[str, Any],
    compiled: str = "",
) -> Run:
    """Make optimizer, schedule and average, prepare them for the processes, continue from a checkpoint, open the run folder.

    Args:
        recipe: recipe of any task.
        accelerator: accelerator that `start` made.
        checkpoint: checkpoint that `start` found, or None.
        model: model on the CPU; it is moved to the device.
        train_batches: loader of global micro-batches.
        test_batches: loader of the evaluation split.
        updates_per_epoch: optimizer updates in one epoch.
        summary: model and data in a few words, for the first line of output.
        config: content of config.json.
        compiled: the part of the model that `system.compile` compiles, by its path; all of it by default.

    Returns:
        The run, its random state that of the update it stands at.

    Raises:
        FileNotFoundError: `checkpoint` is not a checkpoint.
        ValueError: it is past the end of the run, or counts other epochs.
    """
    folder, system = Path(recipe.output), recipe.system
    memory_format = torch.channels_last if system.channels_last else torch.contiguous_format
    model.to(accelerator.device).to(memory_format=memory_format)
    ema = ModelEmaV3(model, decay=recipe.ema.decay, use_warmup=recipe.ema.warmup) if recipe.ema.decay else None
    bare, optimizer = model, create_optimizer(model, recipe.optimizer)
    dataset = getattr(train_batches, "dataset", None)
    images = len(dataset) if isinstance(dataset, Sized) else 0
    scheduler = create_scheduler(optimizer, recipe.schedule, updates_per_epoch)
    if system.compile:
        model.get_submodule(compiled).compile()  # in place: the names of the weights stay
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        configure_zero(recipe, accelerator, [model] if ema is None else [model, ema.module])
    model, optimizer, train_batches, test_batches = accelerator.prepare(model, optimizer, train_batches, test_batches)
    if ema is not None and accelerator.is_fsdp2:
        ema.module = fsdp2_prepare_model(accelerator, ema.module)  # sharded as the model, so that each process averages its part
    set_seed(recipe.seed, device_specific=True)  # from here on, dropout and mixup differ between processes

    progress = load_checkpoint(accelerator, checkpoint, ema) if checkpoint else Progress()
    counts = ((progress.images, images, "training images"), (progress.updates_per_epoch, updates_per_epoch, "updates an epoch"))
    for before, now, what in counts:
        if before and now and before != now:
            raise ValueError(
                f"there are {now} {what}, but {checkpoint} was made with {before}: the training images must stay what they were"
            )
    progress.images, progress.updates_per_epoch, progress.processes = images, updates_per_epoch, accelerator.num_processes
    if isinstance(train_batches, Ordered):
        if progress.stream:
            train_batches.compare_order(progress.stream)
        progress.stream = train_batches.order_numbers()
    total = recipe.schedule.epochs * updates_per_epoch
    if progress.update > total:
        raise ValueError(
            f"schedule.epochs {recipe.schedule.epochs} is {total} updates, but {checkpoint} stands at update {progress.update}; give "
            f"schedule.epochs {-(-progress.update // updates_per_epoch)} or more"
        )
    scheduler.step_update(progress.update)
    lost = [accelerator.is_main_process and drop_abandoned(folder, checkpoint, progress.update)]
    if broadcast_object_list(lost)[0]:  # in all processes, which evaluate together; the weights at hand are evaluated again
        progress.best, progress.evaluated = None, min(progress.evaluated, progress.update - 1)
    log = None
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / RECIPE, to_yaml(recipe).encode())
        write_atomically(folder / CONFIG, dumps(config))
        log = JsonlLog(folder / "metrics.jsonl", progress.update, progress.evaluated)
    accelerator.project_configuration.logging_dir = str(folder / "tensorboard")
    wandb = {"name": folder.name, "group": folder.name, "dir": str(folder), "config": asdict(recipe)}  # a continued run is a new one there
    accelerator.init_trackers("kat_zoo", init_kwargs={"tensorboard": {"purge_step": progress.update}, "wandb": wandb})
    accelerator.print(
        f"{summary}, {sum(p.numel() for p in bare.parameters()) / 1e6:.2f}M parameters, {total} updates of "
        f"{recipe.batch_size} images on {accelerator.num_processes} process(es), "
        + (f"continued from {checkpoint}" if checkpoint else f"run folder {folder}")
    )
    interval = 0.5 if sys.stderr.isatty() else 30.0  # a log file is no terminal
    bar = tqdm(total=total, initial=progress.update, desc="train", unit="update", mininterval=interval)
    losses = {name: [torch.tensor(v, device=accelerator.device) for v in values] for name, values in progress.window.items()}
    run = Run(
        recipe, accelerator, bare, model, ema, optimizer, scheduler, train_batches, test_batches, updates_per_epoch,
        progress, log, bar, losses, config,
    )  # fmt: skip
    run.restart_clock()
    return run


def command(
    argv: Sequence[str] | None,
    recipe_class: type[RunRecipe],
    train: Callable[[Any, str], Any],
    rehearse: Callable[[Any], str],
) -> int:
    """The command line of a task's loop.

    Args:
        argv: `--config FILE`, overrides as `--optimizer.lr 1e-3`, `--resume`, `--dry-run`; sys.argv by default.
        recipe_class: class of the recipes of the task.
        train: the loop, called as train(recipe, resume).
        rehearse: function for --dry-run, called as rehearse(recipe); returns the text to print.

    Returns:
        Exit code: 0, also after a signal; 1 when training diverged.
    """
    resume = {"default": "no", "help": "no, auto (newest checkpoint of the run folder), or a checkpoint's folder"}
    dry_run = {"action": "store_true", "help": "build everything, run one batch of noise, write nothing"}
    arguments = sys.argv[1:] if argv is None else argv
    recipe, flags = parse(recipe_class, arguments, "kat-zoo train", resume=resume, dry_run=dry_run)
    if flags.dry_run:
        print(rehearse(recipe))
        return 0
    try:
        with stop_signals(), plain_errors():
            train(recipe, flags.resume)
    except (TrainingDiverged, OutOfMemory) as error:
        logger.error("%s", error)
        return 1
    PartialState().destroy_process_group()  # after an error it is left alone: the launcher then stops the other processes
    return 0
