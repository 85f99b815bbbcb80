import argparse
import os
import tempfile

import pytest
import torch

from .hub.server import HubServer

# The environment is set here, at import, because the conftest of a folder given on the command line imports timm, and with it
# triton and huggingface_hub, before any hook runs. Triton kernels run in Triton's interpreter unless a GPU is asked for.
MARKS = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
MARKS.add_argument("-m", default="")
if "gpu" not in MARKS.parse_known_args()[0].m.replace("not gpu", ""):
    os.environ["TRITON_INTERPRET"] = "1"
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


def pytest_configure(config):
    config.hub_server = SERVER
    SERVER.start()


def pytest_unconfigure(config):
    SERVER.stop()
    HOME.cleanup()


def pytest_collection_modifyitems(config, items):
    if not torch.cuda.is_available():
        config.hook.pytest_deselected(items=[item for item in items if "gpu" in item.keywords])
        items[:] = [item for item in items if "gpu" not in item.keywords]


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
