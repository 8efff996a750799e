"""The members that a fit was of, as its record names them."""

import json
from dataclasses import replace

import pytest

from rd_lightning.errors import InputError
from rd_lightning.families import Family, Member, family_from_config, get_family, register_family
from rd_lightning.families.family import Repository
from rd_lightning.families.record import family_of_record, layers_of_record, members_record
from rd_lightning.families.vocabulary import vocabulary_of

ESM2 = get_family("esm2")


@pytest.mark.parametrize(
    "names",
    [["8M@3", "8M", "35M@6"], ["8M", "650M"], ["35M", "8M"], ["8M@3", "mini/50K", "esmc/600M@4"]],
)
def test_a_record_gives_the_members_back(names):
    family = family_from_config({"name": "esm2", "members": names})
    record = members_record(family, family.members)
    assert record is not None and len(record) == len(names)
    again = family_of_record(family.name, json.loads(json.dumps(record)))
    for one, other in zip(again.members, family.members, strict=True):
        assert replace(one, model=None) == replace(other, model=None)
    assert layers_of_record(record) == [member.layer for member in family.members]


def test_what_the_name_says_is_not_recorded():
    """So that the records of fits without layers stay as they were."""
    assert members_record(ESM2, ESM2.members) is None
    assert members_record(ESM2, ESM2.up_to("35M")) is None
    first = family_from_config({"name": "esm2", "members": ["8M", "35M"]})
    assert members_record(first, first.members) is None
    own = Family("own", (Member("S", 8, "s", 1, 2), Member("L", 16, "l", 2, 2)), ESM2.load)
    assert members_record(own, own.members) is None
    register_family(own)
    assert members_record(own, own.members) is None
    other = replace(ESM2, members=own.members)  # of the name of a known family
    assert members_record(other, other.members) is None
    assert family_of_record("esm2", None) is ESM2


def test_repositories_are_recorded_and_folders_are_not(tmp_path):
    of_hub = Repository("a" * 40, trust_remote_code=True, on_hub=True)
    hub = Member("S", 8, "org/s", 2, 2, repository=of_hub)
    folder = Member("L", 16, str(tmp_path), 4, 2, layer=3)
    made = Family(
        "mine",
        (hub, folder),
        ESM2.load,
        vocabulary=lambda member, place: vocabulary_of(ESM2.tokenizer()),
    )
    record = members_record(made, made.members)
    # Whether code may run is for who loads the head to say.
    assert record == [
        {"name": "S", "path": "org/s", "revision": "a" * 40},
        {"name": "L", "layer": 3},
    ]
    with pytest.raises(InputError, match="where L of the family mine is, the head does not say"):
        family_of_record("mine", record)


def test_layers_of_an_unknown_family_are_recorded():
    members = (Member("S1", 8, "s", 2, 2, layer=1, model="S"), Member("S", 8, "s", 2, 2))
    own = Family("own", members, ESM2.load)
    record = members_record(own, members)
    assert record == [{"name": "S1", "layer": 1}, {"name": "S"}]
    assert layers_of_record(record) == [1, None]


def test_a_record_that_does_not_fit_is_one_line():
    with pytest.raises(InputError, match="no member '7B' in the family esm2"):
        family_of_record("esm2", [{"name": "8M"}, {"name": "7B"}])
