"""`accelerate launch -m kat_zoo.train.classification --config RECIPE`: train a classifier with several processes."""

from ..core.command import launched
from .loop import main

if __name__ == "__main__":  # loader workers import this module again where processes are spawned
    raise SystemExit(launched(main, "kat_zoo.train.classification"))
