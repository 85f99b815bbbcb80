"""Text of messages."""


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line; the name of its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
