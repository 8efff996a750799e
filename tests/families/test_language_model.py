"""The head of a member, against fair-esm's own logits."""

import re
from dataclasses import replace

import pytest
import torch
from esm.model.esm2 import ESM2
from torch import nn

from rd_lightning.errors import InputError
from rd_lightning.families import Family, Member, get_family
from rd_lightning.families.backbone import Backbone
from rd_lightning.families.language_model import language_model

from ..conftest import SEEDS, tiny_family


@pytest.mark.parametrize("seed", SEEDS)
@torch.no_grad()
def test_log_probabilities_are_fair_esms(seed):
    family = tiny_family()
    member = family.members[-1]
    backbone = Backbone.load(family, member)
    model = family.load(member, None).eval()
    assert isinstance(model, ESM2)
    found = language_model(family, member)
    assert found.mask == model.mask_idx
    tokens = torch.randint(4, 24, (3, 17), generator=torch.Generator().manual_seed(seed))
    tokens[:, 0], tokens[:, -1], tokens[:, 5] = 0, 2, found.mask
    expected = model(tokens)["logits"].double().log_softmax(dim=-1)
    hidden = backbone(tokens, padded=False)
    # Attention in another order of sums: 1e-5 of numbers of order 1, as of the embeddings.
    assert (
        found.log_probabilities(hidden.flatten(0, 1)) - expected.flatten(0, 1)
    ).abs().max() < 1e-5
    assert found.log_probabilities(hidden[0]).exp().sum(dim=-1).allclose(torch.ones(17))


def test_the_bundled_weights_hold_a_trained_head():
    """It knows the masked residue better than the frequencies of residues do."""
    family = get_family("mini")
    member = family.members[-1]
    backbone, found = Backbone.load(family, member), language_model(family, member)
    sequence = (
        b"MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVKALPDAQFEVV"
        b"HSLAKWKRQTLGQHDFSAGEGLYTHMKALRPDEDRLSPLHSVYVDQWDWERVMG"
    )
    wild = torch.from_numpy(family.tokenizer().encode([sequence]))[0]
    places = torch.arange(1, len(sequence) + 1)
    tokens = wild.repeat(len(places), 1)
    tokens[torch.arange(len(places)), places] = found.mask
    hidden = backbone(tokens, padded=False)[torch.arange(len(places)), places]
    log_p = found.log_probabilities(hidden)[torch.arange(len(places)), wild[places]]
    # 20 equally frequent residues: log 20 = 3.0; the untrained head gives log 33 = 3.5.
    assert -log_p.mean() < 2.95


def test_a_model_without_a_head_is_refused():
    def bare(member, folder):
        model = tiny_family().load(member, folder)
        model.lm_head = nn.Identity()
        return model

    member = Member("A", 8, "", 1, 2)
    family = Family("bare", (member,), bare)
    said = "A of the family bare is loaded without a language-model head; scores of tokens are"
    with pytest.raises(InputError, match=re.escape(said)):
        language_model(family, member)
    family = Family("none", (member,), lambda member, folder: nn.Linear(1, 1))
    with pytest.raises(InputError, match="A of the family none is loaded without"):
        language_model(family, member)
    inner = replace(tiny_family().members[1], layer=1)
    with pytest.raises(InputError, match="B is an inner layer of its model, which has no"):
        language_model(tiny_family(), inner)
