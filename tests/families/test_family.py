import pytest
from esm.model.esm2 import ESM2

from rd_lightning.errors import InputError
from rd_lightning.families import Family, Member, get_family, register_family
from rd_lightning.families import family as families


def test_esm2_is_the_published_family():
    family = get_family("esm2")
    assert [m.name for m in family.members] == ["8M", "35M", "150M", "650M", "3B", "15B"]
    assert [m.width for m in family.members] == [320, 480, 640, 1280, 2560, 5120]
    assert family.members[3].checkpoint == "esm2_t33_650M_UR50D"
    assert [m.name for m in family.up_to("150M")] == ["8M", "35M", "150M"]
    assert family.up_to(None) == family.members


def test_targets_that_cannot_be():
    with pytest.raises(InputError, match="no member '7B' in the family esm2: 8M, 35M"):
        get_family("esm2").up_to("7B")
    with pytest.raises(InputError, match="8M is the smallest member of esm2"):
        get_family("esm2").up_to("8M")
    with pytest.raises(
        InputError, match="no family 'esm3'; known are ankh, ankh3, dplm, esm1b, esm1v"
    ):
        get_family("esm3")


def test_registering_a_family_takes_a_few_lines():
    members = (Member("S", 8, "", 1, 2), Member("L", 16, "", 2, 2))
    register_family(
        Family("mine", members, lambda m, folder: ESM2(m.num_layers, m.width, m.num_heads))
    )
    assert get_family("mine").up_to("L") == members


def test_a_package_registers_by_entry_point(monkeypatch, family):
    class Point:
        name = "tiny"

        def load(self):
            return family

    monkeypatch.setattr(
        families, "entry_points", lambda **q: [Point()] if q.get("name", "tiny") == "tiny" else []
    )
    assert get_family("tiny") is family
