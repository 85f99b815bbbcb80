"""Sums of learnable functions on edges, y_o = sum_i phi_oi(x_i): the bases of Fourier-KArAt's Table 8 (arXiv 2503.10632)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..._checks import choice, count

INITS = ("scaled", "normal")


def _mexican_hat(x: Tensor) -> Tensor:
    return 2 / (math.pi**0.25 * math.sqrt(3)) * (x**2 - 1) * torch.exp(-(x**2) / 2)


def _morlet(x: Tensor) -> Tensor:
    return torch.cos(5 * x) * torch.exp(-(x**2) / 2)


def _dog(x: Tensor) -> Tensor:
    return x * torch.exp(-(x**2) / 2)


def _meyer(x: Tensor) -> Tensor:
    t = x.abs()
    u = (2 * t - 1).clamp(0, 1)
    nu = u**4 * (35 - 84 * u + 70 * u**2 - 20 * u**3)
    return torch.sin(math.pi * t) * torch.cos(math.pi / 2 * nu)


def _shannon(x: Tensor) -> Tensor:
    # The paper leaves the window open; ours is Hamming's, two zeros of the sinc wide on each side.
    window = torch.where(x.abs() < 2 * math.pi, 0.54 + 0.46 * torch.cos(x / 2), 0.0)
    return torch.sinc(x / math.pi) * window


WAVELETS: dict[str, Callable[[Tensor], Tensor]] = {
    "mexican_hat": _mexican_hat,
    "morlet": _morlet,
    "dog": _dog,
    "meyer": _meyer,
    "shannon": _shannon,
}
EDGE_BASES = ("fourier", "rational", *WAVELETS)
BASE_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "zero": torch.zeros_like,
    "identity": lambda x: x,
    "silu": F.silu,
    "gelu": F.gelu,
}


class Edges(nn.Module):
    """y_o = sum_i b(x_i) + phi_oi(x_i) per head, on (B, heads, M, inputs) -> (B, heads, M, outputs).

    Args:
        heads: number of heads, each with its own functions.
        inputs: number of inputs i.
        outputs: number of outputs o.
        basis: name in `EDGE_BASES`.
        num_harmonics: number G of harmonics of the Fourier series; ignored by other bases.
        base_function: name in `BASE_FUNCTIONS` of the function b.
        init: "normal" draws the coefficients from N(0, 1) as the paper does, "scaled" divides them by the root of the number
            of terms in the sum, so that y starts with unit variance.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Attributes:
        coefficients: (terms, heads, outputs, inputs). Fourier: cos(x), .., cos(G x), sin(x), .., sin(G x). Rational:
            a_0, .., a_5, b_1, .., b_4 of (a_0 + .. + a_5 x^5) / (1 + |b_1 x + .. + b_4 x^4|). Wavelets: weight, shift tau
            and log of the scale s, of w f((x - tau) / s).

    Raises:
        ValueError: an unknown basis, base function or init, or a number of harmonics below 1.
    """

    def __init__(
        self,
        heads: int,
        inputs: int,
        outputs: int,
        basis: str = "fourier",
        num_harmonics: int = 3,
        base_function: str = "zero",
        init: str = "scaled",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.basis = choice("basis", basis, EDGE_BASES)
        self.base_function = choice("base_function", base_function, BASE_FUNCTIONS)
        self.init = choice("init", init, INITS)
        self.num_harmonics = count("num_harmonics", num_harmonics)
        terms = {"fourier": 2 * self.num_harmonics, "rational": 10}.get(basis, 3)
        self.coefficients = nn.Parameter(torch.empty(terms, heads, outputs, inputs, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the coefficients; wavelets start with tau = 0 and s = 1."""
        inputs = self.coefficients.shape[-1]
        terms = {"fourier": self.num_harmonics, "rational": 6}.get(self.basis, 1)
        nn.init.normal_(self.coefficients, std=(inputs * terms) ** -0.5 if self.init == "scaled" else 1.0)
        with torch.no_grad():
            if self.basis == "rational":
                self.coefficients[6:].normal_()
            elif self.basis != "fourier":
                self.coefficients[1:].zero_()

    def extra_repr(self) -> str:
        """Basis and sizes for repr()."""
        return f"{tuple(self.coefficients.shape)}, basis={self.basis}, base_function={self.base_function}"

    def forward(self, x: Tensor) -> Tensor:
        """Apply all edges and add them up."""
        base = BASE_FUNCTIONS[self.base_function](x).sum(-1, keepdim=True)
        if self.basis == "fourier":
            return base + self._fourier(x)
        x = x.unsqueeze(-2)  # (B, heads, M, 1, inputs) against (heads, 1, outputs, inputs)
        c = self.coefficients.unsqueeze(-3).unbind(0)
        if self.basis == "rational":
            numerator = c[5]
            for a in reversed(c[:5]):
                numerator = numerator * x + a
            denominator = c[9] * x
            for b in reversed(c[6:9]):
                denominator = (denominator + b) * x
            return base + (numerator / (1 + denominator.abs())).sum(-1)
        weight, shift, log_scale = c
        return base + (weight * WAVELETS[self.basis]((x - shift) * torch.exp(-log_scale))).sum(-1)

    def _fourier(self, x: Tensor) -> Tensor:
        y = torch.zeros((), dtype=x.dtype, device=x.device)
        for m in range(self.num_harmonics):
            angle = (m + 1) * x
            y = y + angle.cos() @ self.coefficients[m].transpose(-1, -2)
            y = y + angle.sin() @ self.coefficients[self.num_harmonics + m].transpose(-1, -2)
        return y
