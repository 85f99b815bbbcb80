"""Recipes: a YAML file per published checkpoint or headline result."""
