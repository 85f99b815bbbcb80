"""Tables of `tables.py`: those that scikit-learn and statsmodels ship, and generated ones."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

Table = tuple[np.ndarray, np.ndarray, np.ndarray]  # X, y, y without noise where it is known


def _noisy(X: np.ndarray, truth: np.ndarray, noise: float, seed: int = 1) -> Table:
    return X, truth + noise * np.random.default_rng(seed).normal(size=len(X)), truth


def one_of_eight() -> Table:
    """150 rows, one useful column of eight, noise as large as the signal."""
    X = np.random.default_rng(0).normal(size=(150, 8))
    return _noisy(X, X[:, 0], 1.0)


def friedman(number: int, noise: float) -> Table:
    from sklearn import datasets

    make = getattr(datasets, f"make_friedman{number}")
    X, y = make(500, noise=noise, random_state=0)
    return X, y, make(500, noise=0.0, random_state=0)[1]


def heavy_tails() -> Table:
    """Columns of Student's t with two degrees of freedom, and lognormal ones."""
    generator = np.random.default_rng(0)
    X = np.concatenate([generator.standard_t(2, (600, 3)), np.exp(2 * generator.normal(size=(600, 3)))], 1)
    return _noisy(X, np.sin(X[:, 0]) + X[:, 1] / 3 + np.log(X[:, 3]) / 2, 0.3)


def outliers() -> Table:
    """Four columns in (-1, 1); 2 % of the rows are far away in all of them."""
    generator = np.random.default_rng(0)
    X = generator.uniform(-1, 1, (500, 4))
    truth = np.sin(3 * X[:, 0]) + X[:, 1] ** 2
    X[::50] *= 1000
    return _noisy(X, truth, 0.1)


def wide() -> Table:
    """400 rows, 100 columns, four of them useful."""
    X = np.random.default_rng(0).normal(size=(400, 100))
    return _noisy(X, X[:, 0] + np.sin(2 * X[:, 1]) + X[:, 2] * X[:, 3], 0.5)


def tall() -> Table:
    """10,000 rows, five columns."""
    X = np.random.default_rng(0).uniform(-1, 1, (10000, 5))
    return _noisy(X, np.sin(3 * X[:, 0]) + X[:, 1] * X[:, 2] + np.abs(X[:, 3]), 0.5)


def three_way() -> Table:
    """A product of three columns, which pairs cannot hold."""
    X = np.random.default_rng(0).uniform(-1, 1, (1000, 4))
    return _noisy(X, np.exp(X[:, 0]) * X[:, 1] * np.sin(2 * X[:, 2]), 0.1)


def scikit(name: str) -> Table:
    from sklearn import datasets

    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return X, y, y


def statsmodels(folder: str, target: str, every: int = 1, drop: tuple[str, ...] = (), positive: bool = False, sep: str = ",") -> Table:
    """A table of statsmodels, read from its file: the data is in the package, which need not be imported.

    Raises:
        ModuleNotFoundError: statsmodels is not installed.
    """
    import pandas

    found = importlib.util.find_spec("statsmodels")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'statsmodels': pip install 'kat_zoo[bench]'")
    frame = (
        pandas.read_csv(Path(found.origin).parent / "datasets" / folder / f"{folder}.csv", sep=sep)
        .iloc[::every]
        .rename(columns=lambda name: name.strip("'"))
    )
    y = frame[target].to_numpy(float)
    X = frame.drop(columns=[target, *drop]).to_numpy(float)
    y = (y > 0).astype(int) if positive else y
    return X, y, y


# Name -> task and generator.
TABLES: dict[str, tuple[str, Callable[[], Table]]] = {
    "one of eight": ("regression", one_of_eight),
    "diabetes": ("regression", lambda: scikit("diabetes")),
    "friedman1": ("regression", lambda: friedman(1, 1.0)),
    "friedman2": ("regression", lambda: friedman(2, 100.0)),
    "friedman3": ("regression", lambda: friedman(3, 0.1)),
    "three-way product": ("regression", three_way),
    "heavy tails": ("regression", heavy_tails),
    "outliers": ("regression", outliers),
    "wide": ("regression", wide),
    "tall": ("regression", tall),
    "star98": ("regression", lambda: statsmodels("star98", "MATHTOT")),
    "engel": ("regression", lambda: statsmodels("engel", "foodexp")),
    "visits (randhie)": ("regression", lambda: statsmodels("randhie", "mdvis", every=8)),
    "iris": ("classification", lambda: scikit("iris")),
    "wine": ("classification", lambda: scikit("wine")),
    "breast cancer": ("classification", lambda: scikit("breast_cancer")),
    "digits": ("classification", lambda: scikit("digits")),
    "affairs (fair)": ("classification", lambda: statsmodels("fair", "affairs", every=3, positive=True)),
    "vote (anes96)": ("classification", lambda: statsmodels("anes96", "vote", sep="\t", positive=True)),
}
