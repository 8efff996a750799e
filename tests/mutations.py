"""Damaged files for the tests of readers: as a disk, a transfer or an editor may leave them."""

import os
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from rd_lightning.errors import InputError

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
"""Inputs a reader is given in one test; FUZZ_EXAMPLES=5000 pytest -k fuzz for a long search."""

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content cut short, with bytes changed, or with a stretch replaced, removed or doubled;
    or bytes that have nothing to do with it."""
    kind = draw(st.sampled_from(["cut", "change", "replace", "remove", "double", "random"]))
    if kind == "random":
        return draw(st.binary(max_size=300))
    start = draw(st.integers(0, max(len(content) - 1, 0)))
    if kind == "cut":
        return content[:start]
    if kind == "change":
        changed = bytearray(content)
        for place in draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
            changed[place] = draw(st.integers(0, 255))
        return bytes(changed)
    stop = min(start + draw(st.integers(1, 64)), len(content))
    between = {
        "replace": lambda: draw(st.binary(max_size=64)),
        "remove": lambda: b"",
        "double": lambda: content[start:stop] * 2,
    }[kind]()
    return content[:start] + between + content[stop:]


def result_or_input_error(read: Callable[[], object]) -> str | None:
    """The message of the documented exception, which is one line; None where there is a result.
    Any other exception passes."""
    try:
        read()
    except InputError as error:
        message = str(error)
        assert message and "\n" not in message, message
        return message
    return None


def read_damaged(
    data: st.DataObject, file: Path, opened: Path, read: Callable[[Path], object]
) -> None:
    """Damage a file, which is ``opened`` or in it, for one read, which gives a result or an
    InputError."""
    content = file.read_bytes()
    try:
        file.write_bytes(data.draw(damaged(content)))
        result_or_input_error(lambda: read(opened))
    finally:
        file.unlink()  # another file: a memory map of this one may still be held
        file.write_bytes(content)


def read_content(path: Path, content: bytes, read: Callable[[Path], object]) -> str | None:
    """As :func:`result_or_input_error`, of a file with that content; the message names the file."""
    path.write_bytes(content)
    message = result_or_input_error(lambda: read(path))
    assert message is None or str(path) in message, message
    return message
