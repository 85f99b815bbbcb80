"""Integers of NumPy are integers to every model, in the arguments that are not timm's own."""

import numpy as np
import pytest
import timm
import torch

import kat_zoo  # noqa: F401 (registers the models)
from kat_zoo.layers import KANMlp
from kat_zoo.models.kan_vit import MixerViT

MODELS = {
    "test_kat": {"num_groups": 4, "order": [3, 2]},
    "test_karat": {"grid_size": [1, 2, 1, 2, 1, 2], "rank": 3, "layers": [0, -1], "hybrid_heads": 1},
    "kat_mixer_pico_patch4_28": {"num_groups": 4},
    "vit_kan_pico_patch4_28": {"mixer_kwargs": {"num_bases": 5}},
    "kan_mlp_pico_28": {"hidden": [8, 4], "num_bases": 5, "num_classes": 3, "in_chans": 2},
}


def as_numpy(value):
    if isinstance(value, dict):
        return {name: as_numpy(part) for name, part in value.items()}
    return [np.int64(part) for part in value] if isinstance(value, list) else np.int64(value)


@pytest.mark.parametrize("name", MODELS)
def test_integers_of_numpy(name):
    plain, numpy = (timm.create_model(name, **arguments) for arguments in (MODELS[name], as_numpy(MODELS[name])))
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in numpy.state_dict().items()}


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("test_karat", {"grid_size": 0}, "grid_size=0: expected an integer of at least 1"),
        ("test_karat", {"rank": True}, "rank=True: expected an integer of at least 1"),
        ("test_karat", {"layers": [True]}, r"layers=\[True\]: expected a list of indices"),
        ("test_karat", {"hybrid_heads": True}, "hybrid_heads=True: expected an integer of at least 0 and at most 1"),
        ("test_karat", {"norm_layer": 5}, "norm_layer=5: expected one of layernorm"),
        ("kan_mlp_pico_28", {"drop_rate": 2}, "drop_rate=2: expected a finite number of at least 0 and at most 1"),
        ("kan_mlp_pico_28", {"hidden": [True]}, r"hidden=\[True\]: expected a list of integers"),
        ("kan_mlp_pico_28", {"img_size": (28,)}, r"img_size=\(28,\): expected an integer of at least 1, or \(height, width\)"),
        ("test_karat", {"block_fn": print}, "block_fn=.*: expected None, as KArAt has its own"),
        ("test_karat", {"mlp_layer": print}, "mlp_layer=.*: expected None, as mixer names the channel mixer"),
        ("test_karat", {"num_heads": "3"}, "num_heads='3': expected an integer of at least 1"),
        ("vit_kan_pico_patch4_28", {"mlp_layer": print}, "mlp_layer=.*: expected None, as mixer names the channel mixer"),
    ],
)
def test_wrong_values_are_named(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        timm.create_model(name, **arguments)


@pytest.mark.parametrize("name", ["test_kat", "test_karat", "kat_mixer_pico_patch4_28", "vit_kan_pico_patch4_28"])
def test_classes_which_could_not_be_saved_are_refused(name):
    with pytest.raises(ValueError, match="norm_layer=.*expected (a string|one of)"):
        timm.create_model(name, norm_layer=torch.nn.LayerNorm)


def test_mixer_kwargs_are_a_dict():
    with pytest.raises(ValueError, match="mixer_kwargs=3: expected a dict"):
        MixerViT(mixer_kwargs=3)
    with pytest.raises(ValueError, match="grid_range=.*Fourier series do not have a grid"):
        KANMlp(8, basis="fourier", grid_range=(0, 1))
