"""Text of messages."""

import pytest

from kat_zoo._text import one_line


@pytest.mark.parametrize(
    ("error", "text"), [(ValueError("a\n  b\tc "), "a b c"), (RuntimeError(), "RuntimeError"), (OSError("  \n"), "OSError")]
)
def test_an_error_is_one_line_that_is_never_empty(error, text):
    assert one_line(error) == text
