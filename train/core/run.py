"""The parts of a training loop that all tasks share: guarded updates, logs, checkpoints, stop signals.

A loop is `lock.exclusive` and reads: `processes.start`, build data and model, `begin.begin`, then `with stop_signals() as run.signals` over
epochs: `Run.evaluated` where an evaluation is due, `Run.backward` on each of `Run.micro_batches`; at the end `Run.finish`. See
`segmentation.train`.
"""

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from kat_zoo._text import one_line
from kat_zoo.analysis import plot_curves
from kat_zoo.hub.repository import CARD, RESULT, WEIGHTS, dumps, folder_card
from kat_zoo.models._pretrained import grid_metadata

from .checkpoint import (
    Progress,
    list_checkpoints,
    save_checkpoint,
    save_weights,
    whole_weights,
    write_atomically,
)
from .config import RunRecipe
from .log import JsonlLog, read_log
from .optim import average, skips_by_itself
from .processes import signaled
from .runs import OLD_WEIGHTS

logger = logging.getLogger("kat_zoo")


class TrainingDiverged(RuntimeError):
    """No finite gradient for `system.max_skipped` consecutive updates."""


class OutOfMemory(RuntimeError):
    """Memory ran out; the message says what would fit."""


@dataclass
class Run:
    """A run in progress; made by `begin.begin`.

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
    _unread: list[tuple[int, Tensor | float, dict[str, int]]] = field(default_factory=list)  # update, gradient norm, losses by then
    _skipped_in_a_row: int = 0
    _clock: tuple[float, int] = (0.0, 0)
    _share: Tensor | None = None
    _last_loss: Tensor | None = None

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.recipe.output)

    @property
    def total(self) -> int:
        """Updates in the whole run."""
        return self.recipe.schedule.epochs * self.updates_per_epoch

    @property
    def log_every(self) -> int:
        """Updates between log records: those of the recipe, or fewer in a run so short that they would make one record or none."""
        every = self.recipe.system.log_every
        return every if self.total >= 2 * every else max(1, min(every, self.total // 10))

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

    def micro_batches(self, sampler: Any, count: Callable[[Any], Tensor] | None = None) -> Iterator[Any]:
        """The rest of the epoch, with an update after each global batch; ends early where a process has received a stop signal.

        Args:
            sampler: sampler of the training batches; it seeks the first sample that has not been seen.
            count: function that counts, in a micro-batch, the items that its loss is the mean of; the loss of an update is then the mean
                over the items of all its micro-batches in all processes. Without it, each micro-batch counts alike.

        Yields:
            Micro-batches, to be passed through `model` and `backward`.

        Raises:
            TrainingDiverged: too many updates in a row were skipped.
        """
        self.model.train()
        epoch, done = divmod(self.progress.update, self.updates_per_epoch)
        sampler.seek(epoch, done * self.recipe.batch_size)
        for batch, share in self._with_shares(count):
            self._share = share
            with self.accelerator.accumulate(self.model):
                yield batch
            if self.accelerator.sync_gradients:
                self.update()
                if signaled(self.accelerator, self.signals):
                    return

    def _with_shares(self, count: Callable[[Any], Tensor] | None) -> Iterator[tuple[Any, Tensor | None]]:
        """Each micro-batch with the factor of its loss: its part of the update's items, where micro-batches of equal size have 1."""
        if count is None:
            yield from ((batch, None) for batch in self.train_batches)
            return
        batches, accum = iter(self.train_batches), self.accelerator.gradient_accumulation_steps
        while group := list(itertools.islice(batches, accum)):
            counts = torch.stack([count(batch) for batch in group]).float()
            total = self.accelerator.reduce(counts.sum(), "sum").clamp(min=1)
            yield from zip(group, counts * accum * self.accelerator.num_processes / total, strict=True)

    def backward(self, losses: Mapping[str, Tensor]) -> None:
        """Backward of one of `micro_batches`.

        Args:
            losses: name -> scalar, all of which are logged; `loss` is the one to minimize, or without it the sum, logged as `loss`.
        """
        if "loss" not in losses:
            losses = {"loss": torch.stack(list(losses.values())).sum(), **losses}
        if self._share is not None:
            losses = {name: value * self._share for name, value in losses.items()}
        self._last_loss = losses["loss"].detach()
        self.accelerator.backward(losses["loss"])
        for name, value in losses.items():
            self.losses.setdefault(name, []).append(value.detach())

    def update(self) -> None:
        """One optimizer update from the accumulated gradients, skipped if they are not finite; then log and save where due.

        An optimizer that skips by itself is told so by a tensor, and the norm is read when a log, a checkpoint or `max_skipped` asks for
        it: the host does not wait for the device, and can be several updates ahead.

        Raises:
            TrainingDiverged: too many updates in a row were skipped.
        """
        accelerator, progress, system = self.accelerator, self.progress, self.recipe.system
        # The norm of the gradient averaged over all processes: each of them sees the same NaN.
        norm = accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.clip_grad or math.inf)
        ahead = skips_by_itself(self.optimizer) and accelerator.scaler is None and type(norm) is Tensor
        norm = norm if ahead else float(norm)
        progress.update += 1
        if ahead:
            skip = 1 - torch.isfinite(cast(Tensor, norm)).float()
            self.optimizer.optimizer.found_inf = skip  # type: ignore[attr-defined]  # the one that accelerate wraps
            self.optimizer.step()
            if self.ema is not None:
                average(self.ema, self.bare, progress.update, skip)
        else:
            finite = math.isfinite(norm)
            if finite or accelerator.scaler is not None:  # fp16's scaler skips by itself, and adapts
                self.optimizer.step()
            if finite and self.ema is not None:
                self.ema.update(self.bare, step=progress.update)
        self.optimizer.zero_grad()
        self.scheduler.step_update(progress.update)
        self.bar.update()
        self._unread.append((progress.update, norm, {name: len(values) for name, values in self.losses.items()}))
        log_due = progress.update % self.log_every == 0
        # At the end of an epoch before the evaluation, which may fail: the epoch is then not lost.
        save_due = (
            progress.update % (system.checkpoint_every or self.updates_per_epoch) == 0 or progress.update % self.updates_per_epoch == 0
        )
        if not ahead or log_due or save_due or len(self._unread) >= system.max_skipped:
            norm = self._read_norms()
        if log_due and self.losses:
            self._log_losses(norm)
        if save_due:
            self.save()

    def _read_norms(self) -> float:
        """Read the gradient norms since the last time, count and report the skipped updates, and return the last one.

        Raises:
            TrainingDiverged: too many updates in a row were skipped.
        """
        unread, self._unread = self._unread, []
        value, spoiled = math.nan, {}
        for update, norm, losses in unread:
            value = float(norm)
            if math.isfinite(value):
                self._skipped_in_a_row = 0
            else:
                self._skip(update, value)
                spoiled = losses
        self.losses = {name: values[spoiled.get(name, 0) :] for name, values in self.losses.items()}
        self.losses = {name: values for name, values in self.losses.items() if values}
        return value

    def _skip(self, update: int, norm: float) -> None:
        self.progress.skipped += 1
        self._skipped_in_a_row += 1
        logger.warning("update %d skipped: the gradient norm is %s", update, norm)
        if self._skipped_in_a_row >= self.recipe.system.max_skipped:
            good = next(reversed(list_checkpoints(self.folder)), "none")  # each was saved after a finite loss, see `good`
            raise TrainingDiverged(f"no finite gradient in {self._skipped_in_a_row} updates in a row; last good checkpoint: {good}")

    def _log_losses(self, norm: float) -> None:
        means = {name: float(self.accelerator.reduce(torch.stack(values).mean(), "mean")) for name, values in self.losses.items()}
        since, update = self._clock
        speed = (self.progress.update - update) * self.recipe.batch_size / (time.perf_counter() - since)
        rate = max(group["lr"] for group in self.optimizer.param_groups)  # with layer_decay, the first group is the lowest layer
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
        if self.accelerator.is_main_process and all(bool(weight.isfinite().all()) for weight in weights.values()):
            for name in (WEIGHTS, "best.safetensors") if better else (WEIGHTS,):
                save_weights(weights, self.folder / name, progress.update, grid_metadata(self.bare))
            (self.folder / OLD_WEIGHTS).unlink(missing_ok=True)  # of an older version that began the run
            self._decorate(
                "curves.png",
                lambda: plot_curves({self.folder.name: read_log(self.folder / "metrics.jsonl")}, self.folder / "curves.png"),
            )
        progress.best, progress.evaluated = value if better else progress.best, progress.update
        self.save()
        self.restart_clock()

    @property
    def good(self) -> bool:
        """Whether the state is worth keeping: the last loss and all weights are finite, no update is being skipped; the same everywhere."""
        tensors = [*self.bare.state_dict().values(), *([] if self._last_loss is None else [self._last_loss])]
        values = (value.to_local() if isinstance(value, DTensor) else value for value in tensors)
        finite = all(bool(value.isfinite().all()) for value in values if value.is_floating_point())
        bad = torch.tensor([float(self._skipped_in_a_row > 0 or not finite)], device=self.accelerator.device)
        return not float(self.accelerator.reduce(bad, "sum"))

    def save(self) -> Path | None:
        """Save a checkpoint, unless training has diverged; every process calls it.

        Returns:
            The newest good checkpoint: this one, or the one before; None where there is none.
        """
        self._read_norms()
        if not self.good:
            before = next(reversed(list_checkpoints(self.folder)), None)
            logger.warning("update %d is not saved, for its loss or weights are not finite; kept: %s", self.progress.update, before)
            return before
        self.progress.window = {name: self.accelerator.reduce(torch.stack(values), "mean").tolist() for name, values in self.losses.items()}
        return save_checkpoint(self.accelerator, self.folder, self.progress, self.ema, self.recipe.system.keep_checkpoints)

    def stopped(self) -> bool:
        """Whether any process has received a stop signal; the run is then saved and finished, and the loop returns."""
        stop = signaled(self.accelerator, self.signals)
        if stop:
            saved = self.save()
            advice = "--resume auto continues" if saved else "nothing could be saved, for the loss is not finite"
            self.finish(f"stopped at update {self.progress.update} by a signal: {saved}; {advice}")
        return stop

    def _decorate(self, name: str, write: Callable[[], object]) -> None:
        """Write a file that only tells of the run: whatever goes wrong there, as in a library that draws, must not end the run."""
        try:
            write()
        except Exception as error:
            logger.warning("%s could not be written: %s", self.folder / name, one_line(error)[:200])

    def finish(self, message: str, result: Mapping[str, Any] | None = None) -> None:
        """Close bar and trackers and say how the run ended.

        Args:
            message: one line.
            result: content of result.json, which the card quotes; None while the run is not finished.
        """
        if result is not None and self.accelerator.is_main_process:
            write_atomically(self.folder / RESULT, dumps(result))
            self._decorate(CARD, lambda: write_atomically(self.folder / CARD, folder_card(self.folder, self.config).encode()))
        self.bar.close()
        self.accelerator.print(message)
        for tracker in self.accelerator.trackers:
            tracker.finish()
