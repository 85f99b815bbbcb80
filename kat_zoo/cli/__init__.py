"""The `kat-zoo` command."""
