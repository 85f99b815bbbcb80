"""A KAN is an ordinary module: DistributedDataParallel and torch.compile with its default backend."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from kat_zoo.kan import KAN
from kat_zoo.layers import KANLinear


def network():
    model = KAN([2, [2, 1], 1], 4, seed=3)
    model.fix_symbolic(0, 0, 1, "sin", affine=(2.0, 0.3, 1.5, -0.2))
    model.remove_edge(0, 1, 0)
    return model


def train(model, x):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (model(x) - x[:, :1] * x[:, 1:]).square().mean().backward()
        optimizer.step()


def samples():
    return torch.rand(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1


def worker(path):
    torch.distributed.init_process_group("gloo")
    rank, model = torch.distributed.get_rank(), network()
    train(nn.parallel.DistributedDataParallel(model), samples().chunk(2)[rank])
    if rank == 0:
        torch.save(model.state_dict(), path)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    """Half the samples each; every parameter that asks for a gradient gets one, whatever is pruned or symbolic."""
    torchrun = Path(sys.executable).with_name("torchrun")
    command = [torchrun, "--standalone", "--nproc-per-node", "2", __file__, tmp_path / "state.pt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    alone = network()
    train(alone, samples())
    state = torch.load(tmp_path / "state.pt")
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=1e-10, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")


def layer(dtype):
    linear = KANLinear(3, 2, 4, dtype=dtype, generator=torch.Generator().manual_seed(0))
    linear.set_mask(torch.tensor([[1.0, 0, 1], [1, 1, 1]]))
    return linear, torch.rand(6, 5, 3, dtype=dtype) * 3 - 1.5  # beyond the grid, too


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: layer(torch.float32), lambda: layer(torch.float64), lambda: (network(), samples())])
def test_compiled_by_inductor(make):
    model, x = make()
    eager, leaf = copy.deepcopy(model), x.clone().requires_grad_()
    compiled, other = torch.compile(model, fullgraph=True), x.clone().requires_grad_()
    y, expected = compiled(other), eager(leaf)
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(other.grad, leaf.grad)
    for (name, p), q in zip(model.named_parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=lambda text, name=name: f"{name}: {text}")


if __name__ == "__main__":
    worker(sys.argv[1])
