"""The models as the Hugging Face Hub holds them: registry, cards, repositories, push and pull."""

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .conversion import convert as convert
    from .sync import pull as pull
    from .sync import push as push

__all__ = ["convert", "pull", "push"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "convert": "conversion",
        "pull": "sync",
        "push": "sync",
    },
)
