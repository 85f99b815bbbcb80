"""Files of KANs: those of older versions load, and a file that anybody may have made is refused in a sentence that names it."""

import json

import numpy as np
import pytest
import safetensors
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kat_zoo.kan import KAN


@pytest.fixture
def saved(tmp_path):
    """A file, and a function that writes it again with other metadata or tensors."""
    path = tmp_path / "kan.safetensors"
    model = KAN([2, [1, 1], 1], 3, noise_scale=0.5)
    model.fix_symbolic(0, 0, 0, "sin")
    model.save(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()

    def change(config=None, tensors=None, **keys):
        kan = json.loads(metadata["kan"]) | (config or {})
        data = {name: value for name, value in (load_file(path) | (tensors or {})).items() if value is not None}
        save_file(data, path, {name: value for name, value in (metadata | {"kan": json.dumps(kan)} | keys).items() if value is not None})
        return path

    return model, path, change


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    model = KAN([1, 1], 3)
    for path, message in ((tmp_path / "absent" / "kan.safetensors", "there is no folder"), (tmp_path, "expected a file, this is a folder")):
        with pytest.raises(ValueError, match=f"path {path}: {message}"):
            model.save(path)


def test_a_file_without_a_version_is_one_of_an_older_version(saved):
    model, _, change = saved
    x = torch.linspace(-1, 1, 10, dtype=torch.float64)[:, None].expand(-1, 2)
    assert torch.equal(KAN.load(change(version=None))(x), model(x))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"width": [2, 1e9]}, r"width=\[2, 1000000000.0\]: expected a list"),
        ({"width": [2, 10**9]}, r"of no layer|missing|expected \("),
        ({"width": 3}, "width=3: expected"),
        ({"width": [[[]]]}, "width="),
        ({"grid_size": "7"}, "grid_size='7': expected an integer"),
        ({"grid_size": 10**12}, "expected"),
        ({"spline_order": 99}, "spline_order=99: expected an integer"),
        ({"base": "exec"}, "base='exec': expected one of"),
        ({"base": None}, "base=None: expected one of"),
        ({"mult_arity": 1}, "mult_arity=1: expected"),
        ({"extrapolate": []}, r"extrapolate=\[\]: expected"),
        ({"noise_scale": "much"}, "noise_scale='much': expected"),
        ({"dtype": "Tensor"}, "dtype='Tensor': expected one of"),
        ({"dtype": None}, "dtype=None: expected one of"),
        ({"functions": "sin"}, "functions=sin: expected a list of names"),
        ({"functions": [1]}, "expected a list of names"),
        ({"functions": []}, "function has .*: expected -1"),
        ({"more": 1}, "expected an object with the keys"),
    ],
)
def test_a_configuration_that_makes_no_sense(saved, config, message):
    path = saved[2](config)
    with pytest.raises(ValueError, match=message) as error:
        KAN.load(path)
    assert str(path) in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kan": "{"}, "Expecting"),
        ({"kan": "[1]"}, "expected an object"),
        ({"kan": "[" * 100_000}, "recursion"),
        ({"kan": None}, "was not written by KAN.save"),
        ({"version": "2"}, "version='2': expected at most 1; a newer kat_zoo"),
        ({"version": "new"}, "version='new'"),
    ],
)
def test_metadata_that_cannot_be_read(saved, keys, message):
    path = saved[2](**keys)
    with pytest.raises(ValueError, match=message) as error:
        KAN.load(path)
    assert str(path) in str(error.value) and len(str(error.value)) < 500


def changed(tensor, value, *position):
    tensor = tensor.clone()
    tensor[position] = value
    return tensor


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("spline.coef", lambda t: changed(t, np.nan, 1, 2, 0), r"layers.0.spline.coef\[1, 2, 0\]=nan: expected finite numbers"),
        ("affine", lambda t: changed(t, np.inf, 0, 0, 1), r"affine\[0, 0, 1\]=inf: expected finite"),
        ("spline.coef", lambda t: t.to(torch.int64), "coef of dtype int64: expected floating-point numbers"),
        ("spline.coef", lambda t: t.to(torch.bool), "coef of dtype bool: expected floating-point numbers"),
        pytest.param(
            "spline.coef",
            lambda t: t.to(torch.complex64),
            "coef of dtype complex64: expected floating-point numbers",
            marks=pytest.mark.skipif(
                tuple(map(int, safetensors.__version__.split(".")[:2])) < (0, 7), reason="safetensors before 0.7 holds no complex numbers"
            ),
        ),
        ("spline.coef", lambda t: t[:, :-1].clone(), r"coef of shape \(2, 5, 3\): expected \(2, 6, 3\)"),
        ("spline.coef", lambda t: None, "coef is missing"),
        ("spline.extra", lambda t: torch.zeros(1), "spline.extra is of no layer"),
        ("spline.knots", lambda t: t.flip(1), "knots falls: expected numbers that stay or rise"),
        ("spline.mask", lambda t: changed(t, 0.5, 1, 1), "mask has 0.5: expected 0 or 1"),
        ("function", lambda t: changed(t, -2, 1, 1), "function has -2: expected -1"),
        ("function", lambda t: changed(t, 10**6, 1, 1), "function has 1000000: expected -1"),
        ("function", lambda t: t.double(), "function of dtype float64: expected integers"),
    ],
)
def test_tensors_that_make_no_sense(saved, name, change, message):
    _, path, write = saved
    tensor = load_file(path).get(f"layers.0.{name}")
    write(tensors={f"layers.0.{name}": change(tensor)})
    with pytest.raises(ValueError, match=message) as error:
        KAN.load(path)
    assert str(path) in str(error.value)


def test_numbers_beyond_the_dtype_of_the_network(saved):
    model, path, write = saved
    write({"dtype": "float32"}, {"layers.0.spline.coef": changed(model.layers[0].spline.coef.detach(), 1e300, 0, 0, 0)})
    with pytest.raises(ValueError, match=r"coef\[0, 0, 0\]=1e\+300: expected numbers in the range of float32"):
        KAN.load(path)


def test_a_network_that_could_not_be_loaded_is_not_saved(saved, tmp_path):
    model = saved[0]
    with torch.no_grad():
        model.layers[1].spline.coef[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"layers.1.spline.coef\[0, 0, 0\]=nan"):
        model.save(tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()
