"""Models that were made on the meta device and filled by a state dict compute as the model that it came from."""

import pytest
import timm
import torch

import kat_zoo  # noqa: F401


@pytest.mark.parametrize("name", ["kat_pico_patch4_28", "karat_pico_patch4_28", "vit_kan_pico_patch4_28", "vit_fourier_pico_patch4_28"])
@pytest.mark.parametrize("assign", [False, True])
def test_to_empty_and_load(name, assign, generator):
    model = timm.create_model(name, depth=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    other = timm.create_model(name, depth=1, device="meta").eval()
    if not assign:
        other.to_empty(device="cpu")
        with torch.no_grad():
            for tensor in (*other.parameters(), *other.buffers()):
                tensor.fill_(float("nan"))  # as bad as memory can be
    other.load_state_dict(model.state_dict(), assign=assign)
    x = torch.randn(2, 1, 28, 28, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(other(x), model(x))
