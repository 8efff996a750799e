"""A browser for the tests of pages."""

from collections.abc import Iterator

import pytest

from ..browser import Browser, started


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = started()
    yield found
    found.close()
