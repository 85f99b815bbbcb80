import pytest


@pytest.fixture(autouse=True)
def one_thread(threads):
    """Models this small gain nothing by threads, which on a busy machine wait for each other many times as long as they work."""
    threads(1)
