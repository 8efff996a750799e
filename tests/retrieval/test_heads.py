"""Files of one head are compared, of different heads refused."""

import pytest

from rd_lightning import JointMoments, fit_chain
from rd_lightning.errors import InputError
from rd_lightning.retrieval.heads import check_same_head

from ..conftest import family_rows

NAMES = ("index", "query")


def head_of(seed: int):
    moments = JointMoments((4, 6, 8)).update(family_rows(300, (4, 6, 8), seed))
    return fit_chain(moments, names=("A", "B", "C"))


def metadata(head, levels: int) -> dict:
    part = head.truncate(head.names[levels - 1])
    return {"levels": list(part.names), "head_digest": part.digest(), "weights": {"A": "1"}}


def test_the_same_digest_is_enough():
    head = head_of(0)
    check_same_head(metadata(head, 3), metadata(head, 3), names=NAMES)


def test_different_levels_need_the_head():
    head = head_of(0)
    index, query = metadata(head, 3), metadata(head, 2)
    with pytest.raises(InputError, match="if they are levels of one head, name it: head=DIR"):
        check_same_head(index, query, names=NAMES)
    check_same_head(index, query, names=NAMES, head=head)


def test_another_head():
    one, other = metadata(head_of(0), 3), metadata(head_of(1), 3)
    with pytest.raises(InputError, match="query is of another head than index .*one head$"):
        check_same_head(one, other, names=NAMES)
    with pytest.raises(InputError, match="query is of another head than head="):
        check_same_head(one, other, names=NAMES, head=head_of(0))
    with pytest.raises(InputError, match="index is of another head than head="):
        check_same_head(one, {}, names=NAMES, head=head_of(1))


def test_other_weights():
    one = metadata(head_of(0), 3)
    with pytest.raises(InputError, match="made with other weights of A than index"):
        check_same_head(one, {**one, "weights": {"A": "2"}}, names=NAMES)


def test_files_of_other_tools_say_nothing():
    check_same_head({}, {}, names=NAMES)
    check_same_head(metadata(head_of(0), 3), {}, names=NAMES)
