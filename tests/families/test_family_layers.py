"""Members that are layers: which are one model, and what is refused."""

from dataclasses import replace

import pytest
import torch

from rd_lightning.errors import InputError
from rd_lightning.families import Member, family_from_config, get_family, register_family
from rd_lightning.families.family import Repository, one_a_model

ESM2 = get_family("esm2")


def test_a_layer_has_the_width_and_the_checkpoint_of_its_model():
    members = ["8M@3", "8M", "650M@0", "650M@33"]
    family = family_from_config({"name": "esm2", "members": members})
    small, large = ESM2.members[0], ESM2.members[3]
    assert family.members == (
        replace(small, name="8M@3", layer=3, model="8M"),
        small,
        replace(large, name="650M@0", layer=0, model="650M"),
        replace(large, name="650M@33", layer=33, model="650M"),
    )
    assert (family.name, family.encode, family.load) == ("esm2", ESM2.encode, ESM2.load)
    assert [m.depth for m in family.members] == [3, 6, 0, 33]
    assert [m.is_inner for m in family.members] == [True, False, True, False]
    assert [model.name for model in one_a_model(family.members)] == ["8M", "650M"]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (["8M@7", "8M"], "8M@7: a layer is a whole number from 0 to 6, not 7"),
        (["8M@-1", "8M"], "8M@-1: a layer is a whole number from 0 to 6, not '-1'"),
        (["8M@x", "8M"], "8M@x: a layer is a whole number from 0 to 6, not 'x'"),
        (["8M@3", "8M@3"], "the names of family.members must differ"),
        (["8M@3", "8M@03"], "8M@3 and 8M@03 are the same layer; name it once"),
        (["8M", "8M@6"], "8M and 8M@6 are the same layer; name it once"),
        (["8M@3"], "lists at least two models"),
        (["7B@3", "8M"], "no member '7B' in the family esm2"),
    ],
)
def test_what_cannot_be_chosen_is_one_line(members, said, unchecked):
    with pytest.raises(InputError, match=said) as error:
        family_from_config({"name": "esm2", "members": members})
    assert "\n" not in str(error.value)


def test_a_family_that_gives_the_last_layer_alone_says_so():
    """Of before there were layers: its members may be chosen, its layers not."""
    old = replace(ESM2, name="old", encode=lambda model, tokens, *, padded=True: torch.empty(0))
    register_family(old)
    chosen = family_from_config({"name": "old", "members": ["35M", "650M"]})
    assert [m.name for m in chosen.members] == ["35M", "650M"]
    with pytest.raises(InputError, match="8M@3: the family old gives the last layer alone"):
        family_from_config({"name": "old", "members": ["8M@3", "8M"]})
    register_family(replace(old, encode=lambda model, tokens, **options: torch.empty(0)))
    assert len(family_from_config({"name": "old", "members": ["8M@3", "8M"]}).members) == 2


def test_members_of_one_checkpoint_are_one_model():
    small, large = Member("S", 8, "s", 2, 2), Member("L", 16, "l", 4, 2)
    inner = replace(small, name="S@1", layer=1, model="S")
    groups = one_a_model((inner, large, small))
    assert list(groups) == [small, large]
    assert list(groups.values()) == [(inner, small), (large,)]
    assert list(one_a_model([inner])) == [small]
    # Named freely: the model is the member that is no layer.
    free = replace(small, name="first", layer=1)
    assert one_a_model([free, small]) == {small: (free, small)}
    # Of another revision they are other weights.
    other = replace(inner, repository=Repository("v2"))
    assert len(one_a_model([other, small])) == 2


def test_without_layers_every_member_is_a_model():
    """Also where a family finds its weights by the member's name, and not by the checkpoint."""
    members = (Member("A", 8, "x", 2, 2), Member("B", 8, "x", 2, 2))
    assert one_a_model(members) == {member: (member,) for member in members}
    others = (Member("A", 8, "", 2, 2), Member("B", 8, "", 2, 2, layer=1, model="B"))
    assert [model.name for model in one_a_model(others)] == ["A", "B"]
    shapes = (Member("A", 8, "x", 2, 2), Member("B", 16, "x", 2, 2, layer=1, model="B"))
    assert [model.name for model in one_a_model(shapes)] == ["A", "B"]
