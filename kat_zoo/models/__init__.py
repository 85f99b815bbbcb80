"""Model families, registered with timm when imported."""
