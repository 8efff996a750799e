"""Masked marginals against a direct call of fair-esm, position by position."""

import numpy as np
import pytest
import torch
from esm.data import Alphabet

from rd_lightning.errors import InputError
from rd_lightning.evaluation.assays.assay import Assay
from rd_lightning.evaluation.assays.mutants import parse_mutant
from rd_lightning.evaluation.representations.zero_shot import (
    MaskedMarginals,
    check_zero_shot,
    with_zero_shot,
)
from rd_lightning.families.backbone import load_backbones

from ...conftest import SEEDS, random_sequences, tiny_family

LETTERS = "LAGVSERTIDPKQNFYMHWC"


def assay_of(seed: int, depth: int, number: int = 25) -> Assay:
    """Variants with up to ``depth`` mutations, and the wild type."""
    wild = "".join(random_sequences(3, seed))[:40] + "MKTAYIA"
    drawn = np.random.default_rng(seed)
    sequences, mutants, positions = [wild], ["WT"], [()]
    for _ in range(number):
        places = np.sort(drawn.choice(len(wild), int(drawn.integers(1, depth + 1)), replace=False))
        letters = list(wild)
        for p in places:
            letters[p] = str(drawn.choice([c for c in LETTERS if c != wild[p]]))
        sequences.append("".join(letters))
        mutants.append(":".join(f"{wild[p]}{p + 1}{letters[p]}" for p in places))
        positions.append(tuple(int(p) + 1 for p in places))
    scores = drawn.standard_normal(len(sequences))
    return Assay("x", sequences, scores, None, mutants, positions, wild)


def scorer(tmp_path, tokens: int = 200, **options) -> MaskedMarginals:
    family = tiny_family()
    backbones = load_backbones(family, family.members, **options)
    settings = {"folder": None, "cache": tmp_path, "tokens_per_batch": tokens}
    return MaskedMarginals(backbones, family.tokenizer(), {"weights": "w"}, **settings)


@torch.no_grad()
def by_fair_esm(assay: Assay) -> list[float]:
    """With fair-esm's model, alphabet and batch converter, a variant at a time."""
    family = tiny_family()
    model = family.load(family.members[-1], None).eval()
    alphabet = Alphabet.from_architecture("ESM-1b")
    assert assay.wild_type is not None and assay.mutants is not None
    _, _, wild = alphabet.get_batch_converter()([("wild", assay.wild_type)])
    found = []
    for mutant in assay.mutants:
        mutations = parse_mutant(mutant) or ()
        tokens = wild.clone()
        for m in mutations:
            tokens[0, m.position] = alphabet.mask_idx
        log_p = model(tokens)["logits"][0].double().log_softmax(dim=-1)
        found.append(
            sum(
                (
                    log_p[m.position, alphabet.get_idx(m.new)]
                    - log_p[m.position, alphabet.get_idx(m.old)]
                ).item()
                for m in mutations
            )
        )
    return found


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("depth", [1, 3])
def test_scores_are_those_of_fair_esm(tmp_path, seed, depth):
    assay = assay_of(seed, depth)
    found = scorer(tmp_path).score(assay)
    assert found.level == "C"
    assert found.scores.dtype == torch.float64
    # Logits of order 1 in float32, up to 3 mutations of two each: 1e-5 a logit.
    assert abs(found.scores.numpy() - by_fair_esm(assay)).max() < 6e-5
    assert found.scores[0] == 0, "the wild type"
    assert found.scores[1:].abs().min() > 0


def test_batches_change_nothing_and_scores_are_kept(tmp_path, monkeypatch):
    assay, batches = assay_of(0, 2), []
    one = scorer(tmp_path / "one", tokens=1).score(assay, lambda: batches.append(0))
    distinct = {p for p in assay.positions or () if p}
    assert len(batches) == len(distinct), "a forward pass each"
    many = scorer(tmp_path / "many", tokens=10_000)
    assert (many.score(assay).scores - one.scores).abs().max() < 6e-5
    monkeypatch.setattr(many, "_computed", lambda *_: pytest.fail("computed again"))
    assert torch.equal(many.score(assay).scores, scorer(tmp_path / "many").score(assay).scores)


def test_weights_held_in_16_bits_keep_the_head(tmp_path):
    """What the backbone has no use for is let go of there; it is read again."""
    assay = assay_of(1, 1)
    held = scorer(tmp_path / "held", hold=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = held.score(assay).scores.numpy()
    # bfloat16 has 8 bits: hidden states of order 1 are off by about 1%.
    assert abs(found - by_fair_esm(assay)).max() < 0.1


def test_what_is_scored_beside():
    assert with_zero_shot(["raw", "pca", "rd", "one_hot"]) == ["raw+zs", "rd+zs", "zero_shot"]


def test_bad_input(tmp_path):
    assay = assay_of(0, 1)
    bare = Assay("y", assay.sequences, assay.scores, None, None, None, None)
    with pytest.raises(InputError, match="y: zero_shot=true needs mutants of one wild type; give"):
        check_zero_shot(bare)
    spoilt = scorer(tmp_path)
    with torch.no_grad():
        spoilt.language_model.head.bias.fill_(float("nan"))
    with pytest.raises(InputError, match="x: NaN or infinity in zero-shot scores; fix the weights"):
        spoilt.score(assay)
