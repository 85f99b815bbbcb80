"""Formulas of a network: reading them off, compiling them into one, exporting them as code."""
