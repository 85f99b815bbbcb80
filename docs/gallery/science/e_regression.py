"""
Regression of a small noisy table
=================================

`KANRegressor` begins with an additive model and goes on to hidden layers and finer grids only where held-out rows ask for them. So a small
noisy table ends with smooth curves, one for each input, or with a linear model.
"""

import time

import matplotlib.pyplot as plt
from sklearn.datasets import load_diabetes
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import train_test_split

from kat_zoo.kan import KANRegressor

start = time.perf_counter()
X, y = load_diabetes(return_X_y=True, as_frame=True)
X, X_test, y, y_test = train_test_split(X, y, random_state=0)
model, linear = KANRegressor(random_state=0).fit(X, y), RidgeCV().fit(X, y)
print(f"R2 on held-out rows: KANRegressor {model.score(X_test, y_test):.3f}, RidgeCV {linear.score(X_test, y_test):.3f}")
print(f"{time.perf_counter() - start:.1f} s")

# %%
# The importance of an input is its share of the prediction's variation.
order = model.feature_importances_.argsort()
figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
axes.barh([X.columns[i] for i in order], model.feature_importances_[order])
axes.set(xlabel="importance")
