"""The models as the Hugging Face Hub holds them: registry, cards, repositories, push and pull."""

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .conversion import convert as convert
    from .repository import save_model as save_model
    from .sync import pull as pull
    from .sync import push as push

__all__ = ["convert", "pull", "push", "save_model"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "convert": "conversion",
        "pull": "sync",
        "push": "sync",
        "save_model": "repository",
    },
)
