"""The experiments of the KAN paper; `kan_paper.py` runs them."""
