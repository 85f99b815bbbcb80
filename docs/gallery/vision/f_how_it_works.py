r"""
How the vision models work
==========================

Three changes of a ViT, each at its own place, and everything else is timm's own code.
"""

import matplotlib.pyplot as plt
import torch

from kat_zoo.layers import FourierHeads, GroupRational, fit_rational

# %%
# KAT: the activation is learned
# ------------------------------
# The MLP of a block becomes `act1, fc1, act2, fc2`, where an activation is a rational function for each of 8 groups of channels
# (arXiv 2409.10594, section 4):
#
# .. math:: y = \frac{a_0 + a_1 x + \cdots + a_5 x^5}{1 + |b_1||x| + \cdots + |b_4||x|^4}
#
# The denominator is at least 1, so there are no poles. The numerator is shared; each group has a denominator of its own.
x = torch.linspace(-5, 5, 300)
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
for init in ("identity", "swish", "gelu"):
    activation = GroupRational(num_groups=1, init=init)
    with torch.no_grad():
        axes.plot(x, activation(x[:, None]), label=init)
axes.set(xlabel="x", title="initial values")
legend = axes.legend()

# %%
# Transfer: a rational beside GELU
# --------------------------------
# Both tails of such a rational have one slope, so it equals GELU on a range only. A wider range or a lower order costs accuracy, and the
# conversion of a trained ViT chooses the range for each group of channels.
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
for order in ((5, 4), (8, 7)):
    errors = [fit_rational(torch.nn.functional.gelu, (-reach, reach), order)[2] for reach in (3.0, 6.0, 9.0, 12.0)]
    axes.plot((3, 6, 9, 12), errors, "o-", label=f"order {order}")
axes.set(xlabel="half of the range", ylabel="largest error", yscale="log")
legend = axes.legend()

# %%
# KArAt: the softmax is learned
# -----------------------------
# Attention becomes :math:`W \Phi(A) V` with :math:`A = QK^\top/\sqrt d`, where :math:`\Phi` holds a Fourier series of few harmonics for
# each
# pair of key and rank (arXiv 2503.10632, section 4). As it is a sum over keys, no map of all pairs is held in memory.
heads = FourierHeads(num_heads=3, num_tokens=16, num_harmonics=3, rank=4)
print({name: tuple(value.shape) for name, value in heads.named_parameters()})
q, k, v = torch.randn(3, 1, 3, 16, 8)
print(tuple(heads(q, k, v).shape))
