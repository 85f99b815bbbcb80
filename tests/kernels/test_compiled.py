"""torch.compile sees into the operators of GPUs: its graphs launch the kernels that eager mode launches, and call no operator of ours."""

import pytest
import timm
import torch
from torch._dynamo.backends.common import aot_autograd
from torch.torch_version import TorchVersion

import kat_zoo  # noqa: F401 (registers the models)

from .aot import probe

NODES = TorchVersion(torch.__version__) >= "2.14"  # see kernels/launching.py
OPERATORS = ("rational", "fourier_attention", "spline 5", "spline 64")


@pytest.fixture(scope="module")
def compiled():
    return probe("compiled")


@pytest.mark.skipif(not NODES, reason="torch before 2.14 cannot read our kernels, see kernels/launching.py")
@pytest.mark.parametrize("name", OPERATORS)
def test_graphs_launch_the_kernels(compiled, name):
    """One graph a pass for three sizes of the batch, with launches where an operator was."""
    graphs = compiled[name]["graphs"]
    assert len(graphs) == 2, graphs
    assert all("triton_kernel_wrapper_functional" in graph for graph in graphs)
    assert not [target for graph in graphs for target in graph if target.startswith("kat_zoo")]


@pytest.mark.skipif(not NODES, reason="torch before 2.14 cannot read our kernels, see kernels/launching.py")
@pytest.mark.parametrize("name", OPERATORS)
def test_launches_are_those_of_eager_mode(compiled, name):
    """Kernels, grids, constants, numbers, shapes and strides."""
    assert compiled[name]["compiled"] == compiled[name]["eager"]


@pytest.mark.parametrize("name", OPERATORS)
def test_exported_graphs_keep_the_operator(compiled, name):
    """A graph that is saved runs on any device."""
    assert any(target.startswith("kat_zoo") for target in compiled[name]["exported"])


def test_a_block_on_cpu_is_one_graph():
    """Its C++ kernels are two nodes."""
    block, nodes = timm.create_model("kat_pico_patch4_28").blocks[0], []

    def keep(graph, _):
        nodes.extend(node.target for node in graph.graph.nodes)
        return graph

    x = torch.randn(2, 7, block.norm1.normalized_shape[0])
    with torch.no_grad():
        got = torch.compile(block, fullgraph=True, backend=aot_autograd(fw_compiler=keep))(x)
        torch.testing.assert_close(got, block(x))
    assert nodes.count(torch.ops.kat_zoo.rational.default) == 2
