"""Names and arguments of models in a recipe: what timm would tell in a traceback is told in a line that names the setting."""

from collections.abc import Iterator
from contextlib import contextmanager

from accelerate.utils.memory import should_reduce_batch_size
from timm.models import get_pretrained_cfg, is_model

from kat_zoo._text import one_line
from kat_zoo.models._pretrained import check_tag

REFUSALS = (TypeError, AssertionError, RuntimeError, LookupError, ArithmeticError, AttributeError)  # of constructors that check nothing


def check_published(name: str, key: str, instead: str) -> None:
    """Refuse to begin with published weights that there are not.

    Args:
        name: name of a model; one that timm does not know is left to others.
        key: setting, with its value, that asks for them.
        instead: value to give in its place.

    Raises:
        ValueError: naming the setting; or an unknown tag.
    """
    check_tag(name, key.partition("=")[0])
    cfg = get_pretrained_cfg(name) if is_model(name) else None
    if is_model(name) and not (cfg is not None and cfg.has_weights):
        raise ValueError(f"{key}: expected {instead}, for there are no published weights of {name}")


@contextmanager
def arguments_of(name: str, settings: str) -> Iterator[None]:
    """Tell in a line which settings a constructor refuses.

    Args:
        name: name of the model.
        settings: settings that hold its arguments, with their values.

    Raises:
        ValueError: in place of whatever its constructor raised.
    """
    try:
        yield
    except REFUSALS as error:
        if should_reduce_batch_size(error):  # the memory, not the arguments
            raise
        reason = one_line(error)[:200]
        kind = "" if isinstance(error, TypeError) else f"{type(error).__name__}: " if reason else type(error).__name__
        raise ValueError(f"{settings}: expected arguments of {name} ({kind}{reason})") from error
