"""Kernels in forked children: torch's pool is ended before a fork, and where it cannot be, a child takes one thread."""

import subprocess
import sys

import pytest
import torch

from kat_zoo.kernels import cpu_library, rational

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning"),
    pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc; other platforms start children anew"),
]

SETUP = """
import os, torch
from kat_zoo.kernels import cpu_library, rational
torch.set_num_threads(3)
x, a, b = torch.randn(3000, 64), torch.ones(1, 6), torch.ones(1, 4)
tasks = lambda: len(os.listdir("/proc/self/task"))
"""
CHILD = """
def in_child(work):
    if (pid := os.fork()) == 0:
        os._exit(0 if work() else 3)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def run(code):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SETUP + CHILD + code], capture_output=True, text=True, timeout=120)
    return done.stdout.split() or done.stderr


def test_a_child_has_torchs_threads_whether_the_pool_was_used_or_not():
    """The grandchild, too; torch.equal of so many numbers enters the pool, in which a child of torch alone would hang."""
    code = """
def work():
    before = tasks()
    y = rational(x, a, b)
    ours = tasks() - before
    return ours == 2 and cpu_library.num_threads() == 3 and torch.equal(y, rational(x, a, b)) and torch.equal(x.exp(), x.exp())
print(in_child(work))                              # the pool was never used
expected = rational(x, a, b)
print(in_child(lambda: work() and in_child(work) == 0))
print(tasks() >= 1 and torch.equal(expected, rational(x, a, b)), cpu_library.num_threads())
"""
    assert run(code) == ["0", "0", "True", "3"]


@pytest.mark.parametrize("pause", ["None", "lambda kind: -1"])
def test_a_child_that_lost_the_pool_takes_one_thread(pause):
    code = f"""
pool = cpu_library._torch_openmp()
cpu_library._torch_openmp = lambda: pool._replace(pause={pause})
y = rational(x, a, b)
same = lambda: cpu_library.num_threads() == 1 and (rational(x, a, b).numpy() == y.numpy()).all()  # torch.equal would enter the pool
print(in_child(lambda: same() and in_child(same) == 0), cpu_library.num_threads())
"""
    assert run(code) == ["0", "3"]


def forward_and_backward(x):
    """The activation's result and its gradient, for an x of its own."""
    x = x.clone().requires_grad_()
    y = rational(x, torch.linspace(-1, 1, 6)[None], torch.full((1, 4), 0.3))
    return y.detach(), *torch.autograd.grad(y.sum(), x)


class FromOperator(torch.utils.data.Dataset):
    """Rows made by the operator in a worker, with the number of threads it would take there."""

    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return *forward_and_backward(self.x[i]), cpu_library.num_threads()


def test_forked_data_loader_workers_take_one_thread_each(threads, generator):
    threads(2)
    x = torch.randn(4, 2000, 64, generator=generator)
    expected = forward_and_backward(x)  # the parent's pool runs before the fork
    loader = torch.utils.data.DataLoader(FromOperator(x), batch_size=2, num_workers=2, multiprocessing_context="fork")
    *got, counts = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert counts.tolist() == [1] * 4  # DataLoader asks for it
    for one, two in zip(got, expected, strict=True):
        assert torch.equal(one, two)
