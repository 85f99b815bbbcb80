"""`kat-zoo explore`: the page of `kat_zoo.explore`."""

from argparse import Namespace


def run(options: Namespace) -> int:
    """Serve the page until Ctrl-C.

    Args:
        options: parsed arguments of `kat-zoo explore`.

    Returns:
        Exit code 0.

    Raises:
        ModuleNotFoundError: the server's packages are not installed; the message names the extra.
    """
    try:
        from ..explore.command import run as serve
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("kat_zoo"):
            raise
        raise ModuleNotFoundError(f"kat-zoo explore needs {error.name}: pip install 'kat_zoo[explore]'", name=error.name) from error
    return serve(options)
