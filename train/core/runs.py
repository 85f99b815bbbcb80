"""The one reader of run folders."""
