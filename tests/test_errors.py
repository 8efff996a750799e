import copy
import errno
import os

import pytest

from rd_lightning.errors import InputError, check_words, of_file


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("\ud800", r"\ud800"),
        ("蛋白 [x] :B:", "蛋白 [x] :B:"),
        ("a\u2028b", r"a\u2028b"),
    ],
)
def test_a_message_is_one_line_that_can_be_printed(text, shown):
    error = InputError(f"x.csv: no column {text}")
    assert str(error) == f"x.csv: no column {shown}"
    assert len(str(error).splitlines()) == 1
    str(error).encode()
    assert str(copy.copy(error)) == str(error)  # as another process gets it


def test_a_write_names_its_file(tmp_path):
    with pytest.raises(OSError, match="x.bin") as raised, of_file(tmp_path / "x.bin"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert raised.value.filename == str(tmp_path / "x.bin")


@pytest.mark.parametrize("value", [None, True, 3, 1.5, {"a": 1}, [None], [["a"]], [1]])
def test_words(value):
    for right in ("ridge", [], ["ridge", "mlp"], ("mlp",)):
        check_words("probes", right)
    with pytest.raises(InputError, match="probes is a word or a list of words, not"):
        check_words("probes", value)
