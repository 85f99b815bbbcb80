"""Sizes of every layer: NumPy's integers are integers, True and fractions are not, and the message names the argument."""

import numpy as np
import pytest
import torch

from kat_zoo.layers import GRKAN, FourierHeads, GeneralHeads, GroupRational, KANLinear, KANMlp
from kat_zoo.layers.fourier_features import FourierFeatures
from kat_zoo.layers.learned_attention.edges import Edges
from kat_zoo.layers.spline_linear import SplineLinear

HEADS = {"num_heads": 1, "num_tokens": 5, "num_harmonics": 2, "rank": 2}
LAYERS = [
    (KANLinear, {"in_features": 3, "out_features": 2, "grid_size": 4, "spline_order": 2}),
    (SplineLinear, {"in_features": 3, "out_features": 2, "num_bases": 5, "spline_order": 2}),
    (FourierFeatures, {"num_harmonics": 2}),
    (GroupRational, {"num_groups": 2}),
    (GRKAN, {"in_features": 8, "hidden_features": 4, "num_groups": 2}),
    (KANMlp, {"in_features": 8, "hidden_features": 4, "num_bases": 4}),
    (FourierHeads, HEADS),
    (GeneralHeads, HEADS | {"basis": "rational"}),
    (Edges, {"heads": 1, "inputs": 2, "outputs": 2, "num_harmonics": 2}),
]
SIZES = {
    "in_features", "hidden_features", "num_groups", "grid_size", "spline_order", "num_bases", "num_harmonics", "num_heads", "num_tokens",
    "rank",
}  # fmt: skip
WRONG = [(layer, arguments, name) for layer, arguments in LAYERS for name in arguments if name in SIZES]


@pytest.mark.parametrize("layer, arguments", LAYERS, ids=lambda value: getattr(value, "__name__", ""))
def test_integers_of_numpy(layer, arguments):
    plain = layer(**arguments)
    numpy = layer(**{name: np.int64(value) if isinstance(value, int) else value for name, value in arguments.items()})
    shapes = [[(name, tensor.shape) for name, tensor in module.state_dict().items()] for module in (plain, numpy)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("value", [True, 0.5, "2", -1, None], ids=repr)
@pytest.mark.parametrize(
    "layer, arguments, name", WRONG, ids=lambda value: getattr(value, "__name__", value if isinstance(value, str) else "")
)
def test_wrong_sizes_are_named(layer, arguments, name, value):
    if value is None and name == "hidden_features":
        value = 0  # None stands for in_features
    with pytest.raises(ValueError, match=f"{name}={value!r}: expected an integer of at least [0-9]"):
        layer(**arguments | {name: value})


def test_true_is_not_a_width():
    with pytest.raises(ValueError, match="in_features=True: expected an integer of at least 1"):
        KANLinear(True, 2)
    with pytest.raises(ValueError, match="out_features=True: expected an integer of at least 1"):
        KANLinear(2, True)


def test_the_dimension_of_the_channels():
    assert GroupRational(2, channel_dim=np.int64(1))(torch.ones(2, 4, 3)).shape == (2, 4, 3)
    with pytest.raises(ValueError, match="channel_dim=True: expected an integer"):
        GroupRational(channel_dim=True)
