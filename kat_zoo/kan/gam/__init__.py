"""Additive models with pairwise terms, in closed form: KANs whose smoothness is estimated, not trained."""
