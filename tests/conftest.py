import os

import pytest
import torch


def pytest_configure(config):
    # Triton kernels run in Triton's interpreter unless a GPU is asked for. This must be set before timm imports triton.
    if "gpu" not in config.getoption("markexpr").replace("not gpu", ""):
        os.environ["TRITON_INTERPRET"] = "1"


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
