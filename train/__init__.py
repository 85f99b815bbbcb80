"""Training: accelerate loops, recipes, data, evaluation."""
