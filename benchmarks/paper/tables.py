"""The functions of the KAN paper: toys (section 3.1), special functions (table 1), Feynman equations (table 2).

Each entry: name -> (KAN shape, function). The paper does not state the domain of its special functions; tables 1 and 2
are sampled from U[0, 1]^d here, arguments shifted where a denominator, a root or a singularity would lie in it.
"""

import numpy as np
import scipy.special as sp
import torch

from .common import PI

TOYS = {
    "J0(20x)": ([1, 1], lambda x: torch.special.bessel_j0(20 * x)),
    "exp(sin(pi x)+y^2)": ([2, 1, 1], lambda x: torch.exp(torch.sin(PI * x[:, :1]) + x[:, 1:] ** 2)),
    "xy": ([2, 2, 1], lambda x: x[:, :1] * x[:, 1:]),
    "100-d": ([100, 1, 1], lambda x: torch.exp(torch.sin(PI * x / 2).square().mean(1, keepdim=True))),
    "4-d": (
        [4, 2, 1, 1],
        lambda x: torch.exp((torch.sin(PI * x[:, :2].square().sum(1)) + torch.sin(PI * x[:, 2:].square().sum(1)))[:, None] / 2),
    ),
}
SPECIAL = {
    "ellipj (sn)": ([2, 2, 1], lambda x, y: sp.ellipj(x, y)[0]),
    "ellipkinc": ([2, 2, 1, 1], sp.ellipkinc),
    "ellipeinc": ([2, 2, 1, 1], sp.ellipeinc),
    "jv": ([2, 2, 1], sp.jv),
    "yv": ([2, 3, 1], lambda x, y: sp.yv(x, y + 0.1)),
    "kv": ([2, 1, 1], lambda x, y: sp.kv(x, y + 0.1)),
    "iv": ([2, 2, 1], sp.iv),
    "lpmv m=0": ([2, 2, 1], lambda x, y: sp.lpmv(0, x, y)),
    "lpmv m=1": ([2, 4, 1], lambda x, y: sp.lpmv(1, x, y)),
    "lpmv m=2": ([2, 2, 1], lambda x, y: sp.lpmv(2, x, y)),
    **{
        f"sph m={m} n={n}": ([2, 2, 1], lambda x, y, m=m, n=n: sp.sph_harm_y(n, m, y, x).real)
        for m, n in ((0, 1), (1, 1), (0, 2), (1, 2), (2, 2))
    },
}
FEYNMAN = {
    "I.6.2": ([2, 2, 1], lambda t, s: np.exp(-(t**2) / (2 * (s + 0.5) ** 2)) / np.sqrt(2 * PI * (s + 0.5) ** 2)),
    "I.6.2b": (
        [3, 2, 2, 1],
        lambda t, u, s: np.exp(-((t - u) ** 2) / (2 * (s + 0.5) ** 2)) / np.sqrt(2 * PI * (s + 0.5) ** 2),
    ),
    "I.9.18": ([6, 4, 1, 1], lambda a, b, c, d, e, f: a / ((b - 2) ** 2 + (c - d) ** 2 + (e - f) ** 2)),
    "I.12.11": ([2, 2, 1], lambda a, t: 1 + a * np.sin(t)),
    "I.13.12": ([2, 2, 1], lambda a, b: a * (1 / (b + 0.5) - 1)),
    "I.15.3x": ([2, 2, 1], lambda a, b: (1 - a) / np.sqrt(1 - (0.9 * b) ** 2)),
    "I.16.6": ([2, 2, 1], lambda a, b: (a + b) / (1 + a * b)),
    "I.18.4": ([2, 2, 1], lambda a, b: (1 + a * b) / (1 + a)),
    "I.26.2": ([2, 2, 1], lambda n, t: np.arcsin(n * np.sin(t))),
    "I.27.6": ([2, 2, 1], lambda a, b: 1 / (1 + a * b)),
    "I.29.16": ([3, 2, 2, 1], lambda a, t, s: np.sqrt(1 + a**2 - 2 * a * np.cos(t - s))),
    "I.30.3": ([2, 3, 2, 1], lambda n, t: np.sin((n + 1) * (t + 0.5) / 2) ** 2 / np.sin((t + 0.5) / 2) ** 2),
    "I.30.5": ([2, 1, 1], lambda a, n: np.arcsin(a / (n + 1.1))),
    "I.37.4": ([2, 2, 1], lambda a, d: 1 + a + 2 * np.sqrt(a + 0.01) * np.cos(d)),
    "I.40.1": ([2, 1, 1], lambda n, a: n * np.exp(-a)),
    "I.44.4": ([2, 2, 1], lambda n, a: n * np.log(a + 0.5)),
    "I.50.26": ([2, 2, 1], lambda a, b: np.cos(a) + b * np.cos(a) ** 2),
    "II.2.42": ([2, 2, 1], lambda a, b: (a - 1) * b),
    "II.6.15a": ([3, 2, 1, 1], lambda a, b, c: c / (4 * PI) * np.sqrt(a**2 + b**2)),
    "II.11.7": ([3, 3, 1, 1], lambda n, a, t: n * (1 + a * np.cos(t))),
    "II.11.27": ([2, 2, 1], lambda n, a: n * a / (1 - n * a / 3)),
    "II.35.18": ([2, 2, 1], lambda n, a: n / (np.exp(a) + np.exp(-a))),
    "II.36.38": ([3, 3, 1], lambda a, b, c: a + b * c),
    "II.38.3": ([2, 1, 1], lambda a, b: a / (b + 0.5)),
    "III.9.52": ([3, 3, 2, 1], lambda a, b, c: a * np.sinc((b - c) / (2 * PI)) ** 2),
    "III.10.19": ([2, 1, 1], lambda a, b: np.sqrt(1 + a**2 + b**2)),
    "III.17.37": ([3, 3, 1], lambda b, a, t: b * (1 + a * np.cos(t))),
}
