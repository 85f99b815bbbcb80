"""Pictures and numbers that explain a trained model."""
