import numpy as np
import pytest

from kat_zoo.analysis.scaling import fit_power_law, plot_power_law


@pytest.mark.parametrize(("l_inf", "x0", "alpha"), [(0.5, 20.0, 0.7), (0.0, 3.0, 4.0), (1.7, 1e3, 0.1)])
def test_recovers_an_exact_law(l_inf, x0, alpha):
    x = np.geomspace(3, 1e6, 30)
    law = fit_power_law(x, l_inf + (x0 / x) ** alpha, bootstrap=0)
    assert law.alpha == pytest.approx(alpha, rel=0.02)
    assert law.l_inf == pytest.approx(l_inf, abs=0.02 * max(l_inf, 0.01))
    np.testing.assert_allclose(law(x), l_inf + (x0 / x) ** alpha, rtol=0.02, atol=1e-12)


def test_intervals_hold_the_truth_under_noise():
    x = np.geomspace(10, 1e4, 25)
    noisy = (0.1 + (5 / x) ** 0.5) * np.exp(0.02 * np.random.default_rng(1).standard_normal(25))
    law = fit_power_law(x, noisy)
    low, high = law.intervals["alpha"]
    assert low < 0.5 < high and high - low < 0.3
    assert plot_power_law(x, noisy, law).axes


def test_losses_near_nothing_have_a_law():
    law = fit_power_law([10, 20, 40, 80], [1e-30, 1e-31, 1e-32, 1e-33], bootstrap=0)
    assert law.alpha == pytest.approx(np.log2(10), rel=1e-3)


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("loss", [lambda x: 5 * x**-0.001, lambda x: 3 + 0 * x])
def test_flat_losses_are_predicted_flat(loss, constant):
    x = np.geomspace(1e6, 1e9, 6)
    law = fit_power_law(x, loss(x), constant=constant, bootstrap=5)
    np.testing.assert_allclose(law(x), loss(x), rtol=1e-3)
    assert not np.isnan([*law.intervals["x0"], *law.intervals["alpha"]]).any()


def test_losses_that_grow_have_a_negative_exponent():
    law = fit_power_law([1, 2, 4, 8], [2, 4, 8, 16], constant=False, bootstrap=0)
    assert law.alpha == pytest.approx(-1) and law.x0 == pytest.approx(0.5)
    np.testing.assert_allclose(law([1, 16]), [2, 32])


def test_without_constant_and_bad_input():
    for options in ({"bootstrap": -3}, {"bootstrap": 2.5}, {"seed": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}=.*: expected an integer"):
            fit_power_law([1, 10], [1, 0.01], constant=False, **options)
    assert fit_power_law([1, 10], [1, 0.01], constant=False, bootstrap=3).alpha == pytest.approx(2)
    for x, y in (([1, 2], [1, 2]), ([1, 2, 3], [1, 2]), ([1, 2, -3], [1, 2, 3]), ([2, 2, 2], [1, 2, 3])):
        with pytest.raises(ValueError, match="expected"):
            fit_power_law(x, y)
