import ctypes
import os
import tempfile
from pathlib import Path

import hypothesis
import pytest
import torch

from .hub.server import HubServer

# The environment is set here, at import, because the conftest of a folder given on the command line imports timm, and with it
# triton and huggingface_hub, before any hook runs. `make test-gpu` sets KAT_ZOO_TEST_GPU; everything else runs Triton's kernels in
# its interpreter and hides GPUs, on which interpreted kernels would go through host copies.
GPU = os.environ.get("KAT_ZOO_TEST_GPU") == "1"
if GPU:
    os.environ.pop("TRITON_INTERPRET", None)
else:
    os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
# No test reaches the network: the Hub is a server on loopback.
SERVER = HubServer()
HOME = tempfile.TemporaryDirectory()
os.environ |= {
    "HF_ENDPOINT": SERVER.url,
    "HF_HOME": HOME.name,
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "NO_PROXY": "127.0.0.1",
}
for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN", "TRANSFORMERS_CACHE"):
    os.environ.pop(name, None)

# The same examples every time, so that a change is judged by what it changed; `make fuzz` draws others.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("fuzz", derandomize=False, deadline=None)
hypothesis.settings.load_profile("repeatable")


def watch(library, own_threads):
    """Let the kernels come from another build of the C library (`make test-sanitizers`), with torch's threads or with its own."""
    from kat_zoo.kernels import cpu_library

    cpu_library._library_path = lambda: Path(library)
    if own_threads:
        loaded = ctypes.CDLL(library)
        parallel, number = (ctypes.cast(f, ctypes.c_void_p).value for f in (loaded.kat_test_parallel, loaded.kat_test_thread_num))
        cpu_library._torch_openmp = lambda: cpu_library._OpenMP(parallel, number, None)


def pytest_configure(config):
    if library := os.environ.get("KAT_ZOO_TEST_CPU_LIBRARY"):
        watch(library, os.environ.get("KAT_ZOO_TEST_THREADS") == "1")
    if GPU:
        import triton

        if not torch.cuda.is_available() or triton.knobs.runtime.interpret:
            raise pytest.UsageError("KAT_ZOO_TEST_GPU=1: expected a GPU that PyTorch sees, and kernels that are not interpreted")
    config.hub_server = SERVER
    SERVER.start()


def pytest_unconfigure(config):
    SERVER.stop()
    HOME.cleanup()


def pytest_collection_modifyitems(config, items):
    of_gpu = [item.get_closest_marker("gpu") is not None for item in items]  # not by keywords, which names of folders are, too
    config.hook.pytest_deselected(items=[item for item, gpu in zip(items, of_gpu, strict=True) if gpu != GPU])
    items[:] = [item for item, gpu in zip(items, of_gpu, strict=True) if gpu == GPU]


@pytest.fixture
def device():
    return "cuda" if GPU else "cpu"


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def threads():
    """Sets torch's number of threads for a test and puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def hub(pytestconfig, tmp_path, monkeypatch):
    """The loopback Hub, empty, and an empty local cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    pytestconfig.hub_server.reset()
    return pytestconfig.hub_server
