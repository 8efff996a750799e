"""Pooled embeddings of variants against fair-esm's own forward pass."""

import numpy as np
import pytest
import torch

from rd_lightning.errors import InputError
from rd_lightning.evaluation.assays.assay import Assay
from rd_lightning.evaluation.representations.variant_embedder import VariantEmbedder, pooled_columns
from rd_lightning.families.backbone import load_backbones
from rd_lightning.families.esm2 import esm_tokenizer
from rd_lightning.families.execution import Execution

from ...conftest import SEEDS, random_sequences, tiny_family

FAMILY = tiny_family()


def assay(seed: int, *, positions: bool = True) -> Assay:
    sequences = random_sequences(30, seed)
    sequences[5] = sequences[2]
    drawn = np.random.default_rng(seed)
    places = [tuple(sorted({int(drawn.integers(len(s))) + 1, 1})) for s in sequences]
    places[5] = places[2]
    places[7] = ()
    return Assay("x", sequences, np.arange(30.0), None, None, places if positions else None, None)


def embedder(folder, **options) -> VariantEmbedder:
    backbones = load_backbones(FAMILY, FAMILY.members)
    options = {"tokens_per_batch": 200, **options}
    return VariantEmbedder(backbones, esm_tokenizer(), {"weights": 1}, cache=folder, **options)


@torch.no_grad()
def expected(sequence: str, places: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.from_numpy(esm_tokenizer().encode([sequence.encode()]))
    rows = [FAMILY.load(m, None).eval()(tokens, repr_layers=[m.num_layers]) for m in FAMILY.members]
    h = torch.cat(
        [
            r["representations"][m.num_layers][0, 1:-1]
            for r, m in zip(rows, FAMILY.members, strict=True)
        ],
        dim=1,
    )
    chosen = h[[p - 1 for p in places]] if places else h
    return h.mean(dim=0), chosen.mean(dim=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_means_over_residues_and_over_mutated_ones(tmp_path, seed):
    of = assay(seed)
    told = []
    found = embedder(tmp_path).embed(of, told.append)
    assert sum(told) == sum(map(len, set(of.sequences)))
    assert of.positions is not None
    for row, (sequence, places) in enumerate(zip(of.sequences, of.positions, strict=True)):
        mean, mutated = expected(sequence, places)
        assert torch.allclose(found["mean"][row], mean, atol=1e-5)
        assert torch.allclose(found["mutated"][row], mutated, atol=1e-5)
    assert set(embedder(tmp_path).embed(assay(seed, positions=False))) == {"mean"}


def test_what_was_embedded_is_kept_by_content(tmp_path):
    first = embedder(tmp_path)
    found = first.embed(assay(0))
    again = embedder(tmp_path)
    again.backbones = torch.nn.ModuleDict()  # nothing is left to compute with
    assert all(torch.equal(rows, found[p]) for p, rows in again.embed(assay(0)).items())
    assert first.path(assay(0)) != first.path(assay(1))
    assert first.path(assay(0)) != first.path(assay(0, positions=False))
    other = embedder(tmp_path)
    other.identity = {"weights": 2}
    assert first.path(assay(0)) != other.path(assay(0))


def test_a_transform_comes_before_pooling(tmp_path):
    squared = embedder(tmp_path, transform=lambda blocks: [b.square() for b in blocks])
    squared.identity = {"weights": "squared"}
    found, plain = squared.embed(assay(1)), embedder(tmp_path).embed(assay(1))
    assert not torch.allclose(found["mean"], plain["mean"].square(), atol=1e-3)
    one = [i for i, p in enumerate(assay(1).positions or ()) if len(p) == 1]
    assert torch.allclose(found["mutated"][one], plain["mutated"][one].square(), atol=1e-4)


def test_too_long(tmp_path):
    with pytest.raises(InputError, match="x: .* residues, but max_residues=9; variants would be"):
        embedder(tmp_path, max_residues=9).embed(assay(0))


def test_both_poolings_side_by_side_keep_their_prefixes():
    rows = {"mean": torch.randn(4, 6), "mutated": torch.randn(4, 6)}
    both = pooled_columns(rows, "both", lambda h: h[:, :5].double())
    assert torch.equal(both[:, 0:6:2], rows["mean"][:, :3].double())
    assert torch.equal(both[:, 1:6:2], rows["mutated"][:, :3].double())
    assert torch.equal(pooled_columns(rows, "mutated", lambda h: h), rows["mutated"])
    with pytest.raises(InputError, match="pooling=both needs mutants"):
        pooled_columns({"mean": rows["mean"]}, "both", lambda h: h)


def test_packed_batches_give_the_same_means(tmp_path):
    padded, packed = embedder(tmp_path / "padded"), embedder(tmp_path / "packed")
    packed.backbones = load_backbones(FAMILY, FAMILY.members, execution=Execution("packed"))
    expected, found = padded.embed(assay(0)), packed.embed(assay(0))
    for pooling, rows in expected.items():
        assert np.allclose(found[pooling], rows, atol=1e-4)
