"""What each of two processes does in test_distributed.py; the argument is the folder of the recipes."""

import os
import shutil
import signal
import sys
from pathlib import Path

import timm
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, init_device_mesh
from torch.torch_version import TorchVersion

from kat_zoo.train.classification.evaluate import evaluate
from kat_zoo.train.classification.loop import train
from kat_zoo.train.classification.recipe import Recipe
from kat_zoo.train.core import processes, run
from kat_zoo.train.core.checkpoint import list_checkpoints, whole_weights
from kat_zoo.train.core.config import parse

SHARDS = TorchVersion(torch.__version__) >= "2.9"  # before, gloo added up the gradients that fully_shard wants the mean of


def cut_copy(whole: str, cut: str, update: int) -> None:
    """A copy of a run, as if it had been killed after `update`; checkpoints were written at every update."""
    if PartialState().is_main_process:
        shutil.copytree(whole, cut)
        for checkpoint in list_checkpoints(Path(cut))[update:]:
            shutil.rmtree(checkpoint)
    PartialState().wait_for_everyone()


def sharded_accelerator(*args, **kwargs) -> Accelerator:
    """accelerate's own FSDP2, which it reserves for GPUs, on gloo."""
    accelerator = Accelerator(*args, **kwargs)
    PartialState().distributed_type = accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["Block"],
        state_dict_type="SHARDED_STATE_DICT",
    )
    return accelerator


def step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    loss = nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def compare_sharding(name: str) -> None:
    """A step under `fully_shard` by block is the step under DDP, and our operators are given plain tensors."""
    rank, kwargs = PartialState().process_index, {"depth": 2, "embed_dim": 24, "num_classes": 10}
    images = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))[rank::2]
    labels = torch.arange(8)[rank::2]
    torch.manual_seed(0)
    plain = timm.create_model(name, **kwargs)
    sharded = timm.create_model(name, **kwargs)
    sharded.load_state_dict(plain.state_dict())
    mesh = init_device_mesh("cpu", (2,))
    for block in sharded.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    parts = [p for p in sharded.parameters() if isinstance(p, DTensor)]
    assert len(parts) == len(list(plain.parameters())) and sum(p.to_local().numel() for p in parts) < sum(p.numel() for p in parts)

    given = []
    for module in sharded.modules():
        if type(module).__name__ in ("GroupRational", "FourierHeads"):
            module.register_forward_pre_hook(
                lambda m, inputs: given.extend(isinstance(t, DTensor) for t in [*inputs, *m.parameters(recurse=False)])
            )
    losses = [step(model, images, labels) for model in (nn.parallel.DistributedDataParallel(plain), sharded)]
    assert abs(losses[0] - losses[1]) < 1e-6 and given and not any(given)
    whole = whole_weights(sharded)
    assert max((value - whole[key]).abs().max().item() for key, value in plain.state_dict().items()) < 1e-6


def fail_and_die(recipe: Recipe) -> None:
    """Process 1 alone has a loss that is no number in update 3, and is gone after update 4: process 0 must not wait for it."""
    backward, update = run.Run.backward, run.Run.update
    doomed = PartialState().process_index == 1

    def poisoned(self: run.Run, losses: dict[str, torch.Tensor]) -> None:
        factor = float("nan") if doomed and self.progress.update == 2 else 1.0
        backward(self, {name: factor * value for name, value in losses.items()})

    def counted(self: run.Run) -> None:
        update(self)
        print(f"update {self.progress.update} skipped {self.progress.skipped}", flush=True)
        if doomed and self.progress.update == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    run.Run.backward, run.Run.update = poisoned, counted  # type: ignore[method-assign, assignment]
    train(recipe)


def share_statistics() -> None:
    """Batch norm's statistics are those of a process's own images: evaluation takes the first one's in both."""
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 10))
    model[0].running_mean.fill_(float(PartialState().process_index))  # type: ignore[union-attr, operator]
    evaluate(Accelerator(cpu=True), model, [(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))])
    assert not model[0].running_mean.any()  # type: ignore[union-attr, operator]


def main(folder: Path) -> None:
    torch.set_num_threads(1)

    def recipe(name: str, output: str) -> Recipe:
        return parse(Recipe, ["--config", str(folder / f"{name}.yaml"), "--output", str(folder / output)], "test")[0]

    train(recipe("plain", "plain2"))
    share_statistics()
    whole, cut = recipe("random", "whole2"), recipe("random", "cut2")
    train(whole)
    cut_copy(whole.output, cut.output, 8)
    train(cut, resume="auto")
    train(recipe("plain", "one_to_two"), resume="auto")

    if SHARDS:
        for name in ("kat_pico_patch4_28", "karat_pico_patch4_28"):
            compare_sharding(name)
        processes.Accelerator = sharded_accelerator  # type: ignore[misc]
        whole, cut = recipe("plain", "sharded2"), recipe("plain", "sharded_cut2")
        train(whole)
        cut_copy(whole.output, cut.output, 8)
        train(cut, resume="auto")
        processes.Accelerator = Accelerator  # type: ignore[misc]
        PartialState().distributed_type = DistributedType.MULTI_CPU

    print("done", flush=True)
    fail_and_die(recipe("plain", "dead"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
