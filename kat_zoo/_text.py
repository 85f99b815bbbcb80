"""Text of messages."""


def one_line(error: object) -> str:
    """Return the text of an error, or of anything else, on one line; the name of its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
