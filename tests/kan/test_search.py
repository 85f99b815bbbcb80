import numpy as np
import pytest
import torch

from kat_zoo import cli
from kat_zoo.kan import KAN, KANRegressor
from kat_zoo.kan.shapes import linear_groups

TARGETS = {
    "toy": (lambda x: np.exp(np.sin(np.pi * x[0]) + x[1] ** 2), 2, (-1, 1), [2, 1, 1]),
    "product": (lambda x: x[0] * x[1], 2, (-1, 1), [2, [0, 1]]),
    "quotient": (lambda x: x[0] / x[1], 2, (0.5, 2), [2, 1, 1]),
    "velocities": (lambda x: (x[0] + x[1]) / (1 + x[0] * x[1]), 2, (-0.9, 0.9), [2, 1, 1]),
    "distance": (lambda x: np.hypot(x[0] - x[1], x[2] - x[3]), 4, (-1, 1), [4, 2, 1, 1]),
}


def sample(name, n=1000, seed=0):
    function, inputs, (low, high), width = TARGETS[name]
    X = np.random.default_rng(seed).uniform(low, high, (n, inputs))
    return X, function(X.T), width


@pytest.mark.parametrize("name", ["product", "velocities"])
def test_finds_the_formula_when_given_the_shape(name):
    X, y, width = sample(name, 400)
    model = KANRegressor(symbolic=True, widths=[width]).fit(X, y)
    X_new, y_new, _ = sample(name, 200, 1)
    assert model.exact_ and np.abs(model.predict(X_new) - y_new).max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", TARGETS)
def test_finds_the_formula_on_its_own(name, seed):
    X, y, _ = sample(name, seed=seed)
    assert KANRegressor(symbolic=True, random_state=seed).fit(X, y).exact_


def test_inputs_that_enter_as_a_sum_are_found():
    x = torch.rand(100, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = KAN.from_formula("sqrt((x_1 - x_2)**2 + (2*x_3 + x_4)**2 + 1)", ["x_1", "x_2", "x_3", "x_4"])
    groups = linear_groups(model, x)
    expected = torch.tensor([[1.0, -1, 0, 0], [0, 0, 1, 0.5]], dtype=x.dtype)
    assert groups.shape == (2, 4)
    signs = (groups * expected).sum(1, keepdim=True).sign()  # a direction has no sign
    torch.testing.assert_close(signs * groups, expected)
    apart = KAN.from_formula("x_1*x_2 + sin(x_3) + exp(x_4)", ["x_1", "x_2", "x_3", "x_4"])
    assert linear_groups(apart, x) is None


def test_noise_keeps_the_structure():
    X, y, width = sample("toy", 600)
    noisy = y + 0.01 * y.std() * np.random.default_rng(0).standard_normal(len(y))
    model = KANRegressor(symbolic=True, widths=[width]).fit(X, noisy)
    text = str(model.formula_)
    assert "exp(" in text and "sin(" in text and (")**2" in text or "x_2**2" in text), text
    assert "phi" not in text


def test_command(tmp_path, capsys):
    X, y, _ = sample("product", 300)
    lines = ["mass,speed,momentum", *(f"{a!r},{b!r},{c!r}" for (a, b), c in zip(X.tolist(), y.tolist(), strict=True))]
    (tmp_path / "data.csv").write_text("\n".join(lines))
    assert cli.main(["formula", str(tmp_path / "data.csv"), "--target", "momentum", "--plot", str(tmp_path / "net.svg")]) == 0
    out = capsys.readouterr().out
    assert "momentum = mass*speed   (exact on held-out data)" in out and (tmp_path / "net.svg").stat().st_size > 1000
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n1,x\n")
    for arguments, message in (
        ([str(tmp_path / "bad.csv"), "--target", "b"], "line 3"),
        ([str(tmp_path / "data.csv"), "--target", "z"], "no column 'z'"),
    ):
        assert cli.main(["formula", *arguments]) == 2
        assert message in capsys.readouterr().err
