"""Names of a package that are imported when they are asked for, so that importing the package costs nothing."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(package: str, modules: Mapping[str, str], extra: str = "") -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose public names lie in its modules.

    Args:
        package: name of the package, its `__name__`.
        modules: module of each public name, relative to the package.
        extra: extra of kat_zoo that installs what the modules need, for the message where something is missing.

    Returns:
        The two functions; dir() and editors show the public names alone.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = import_module(f".{modules[name]}", package)
        except ModuleNotFoundError as error:
            if not extra or (error.name or "").split(".")[0] == "kat_zoo":
                raise
            raise ModuleNotFoundError(f"{package}.{name} needs {error.name}: pip install 'kat_zoo[{extra}]'", name=error.name) from error
        return getattr(module, name)

    return get, lambda: sorted(modules)
