"""Text for people."""


def one_line(error: object) -> str:
    """The text of an error, or of anything else, without line breaks."""
    return " ".join(str(error).split())
