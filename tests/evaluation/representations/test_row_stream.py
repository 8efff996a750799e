"""Rows of proteins against the models' own residues, computed and kept."""

from contextlib import contextmanager

import h5py
import numpy as np
import pytest
import torch

from rd_lightning.data.windows import overlapping_windows
from rd_lightning.embedding.plan import EmbedSettings
from rd_lightning.errors import InputError
from rd_lightning.evaluation.representations import row_stream
from rd_lightning.evaluation.representations.row_stream import (
    HeldRows,
    KeptRows,
    ModelRows,
    RowBatch,
)
from rd_lightning.families.backbone import load_backbones
from rd_lightning.families.esm2 import esm_tokenizer

from ...conftest import SEEDS, random_sequences, tiny_family

FAMILY = tiny_family()
BACKBONES = load_backbones(FAMILY, FAMILY.members)


def model_rows(sequences, unit="residue", *, max_residues=1022, overlap=8, **options) -> ModelRows:
    settings = EmbedSettings(200, max_residues, "window", overlap)
    ids = [f"p{i}" for i in range(len(sequences))]
    return ModelRows(BACKBONES, esm_tokenizer(), sequences, ids, unit, settings, **options)


@torch.no_grad()
def own_rows(sequence: str) -> torch.Tensor:
    """(residues, D): each model's own call on this sequence alone."""
    tokens = torch.from_numpy(esm_tokenizer().encode([sequence.encode()]))
    found = [
        FAMILY.load(m, None).eval()(tokens, repr_layers=[m.num_layers]) for m in FAMILY.members
    ]
    return torch.cat(
        [
            r["representations"][m.num_layers][0, 1:-1]
            for r, m in zip(found, FAMILY.members, strict=True)
        ],
        dim=1,
    )


def by_protein(batches) -> dict[int, torch.Tensor]:
    found = {}
    for batch in batches:
        for protein, rows in batch.of_each():
            assert protein not in found, "a protein comes once"
            found[protein] = rows
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_residues_and_means_are_the_models_own(seed):
    sequences = random_sequences(20, seed)
    told = []
    residues = by_protein(model_rows(sequences, on_residues=told.append).batches(range(20)))
    means = by_protein(model_rows(sequences, "protein").batches(range(20)))
    assert sum(told) == sum(map(len, sequences))
    for i, sequence in enumerate(sequences):
        expected = own_rows(sequence)
        # Float32 sums over a few hundred terms of size 1: 1e-5 is a hundred roundings.
        assert torch.allclose(residues[i], expected, atol=1e-5)
        assert torch.allclose(means[i], expected.mean(dim=0, keepdim=True), atol=1e-5)


def test_each_residue_of_a_long_protein_once_as_the_mean_over_windows():
    sequence = "".join(random_sequences(20, 3))[:50]
    rows = by_protein(model_rows([sequence], max_residues=30, overlap=10).batches([0]))[0]
    assert rows.shape == (50, sum(m.width for m in FAMILY.members))
    total, count = torch.zeros_like(rows), torch.zeros(50, 1)
    for start, size in overlapping_windows(50, 30, 10):
        total[start : start + size] += own_rows(sequence[start : start + size])
        count[start : start + size] += 1
    assert sorted(count[:, 0].unique().tolist()) == [1, 2]
    assert torch.allclose(rows, total / count, atol=1e-5)


@pytest.mark.parametrize("unit", ["residue", "protein"])
def test_kept_rows_are_the_same_in_any_order(tmp_path, unit, monkeypatch):
    monkeypatch.setattr(row_stream, "BATCH_ROWS", 70)
    sequences = random_sequences(15, 1)
    models = model_rows(sequences, unit)
    lengths = [len(s) if unit == "residue" else 1 for s in sequences]
    chosen = [0, 2, 3, 5, 8, 13]
    kept = KeptRows.keep(models, chosen, lengths, tmp_path, {"weights": 1})
    expected = by_protein(models.batches(chosen))
    for generator in (None, torch.Generator().manual_seed(0)):
        batches = list(kept.batches(chosen, generator))
        assert all(len(b.rows) <= 70 or len(b.proteins) == 1 for b in batches)
        found = by_protein(batches)
        assert sorted(found) == chosen
        assert all(torch.equal(found[p], expected[p]) for p in chosen)
    orders = [
        [p for b in kept.batches(chosen, torch.Generator().manual_seed(s)) for p in b.proteins]
        for s in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_held_rows_are_the_same():
    sequences = random_sequences(9, 5)
    models = model_rows(sequences, "protein")
    held = HeldRows(models, range(9))
    expected = by_protein(models.batches(range(9)))
    for generator in (None, torch.Generator().manual_seed(0)):
        [batch] = held.batches([1, 3, 4, 8], generator)
        assert (batch.proteins == [1, 3, 4, 8]) == (generator is None)
        assert all(torch.equal(rows, expected[p]) for p, rows in batch.of_each())


def test_what_is_kept_is_read_again_and_told_by_what_it_is_of(tmp_path, monkeypatch):
    sequences = random_sequences(6, 2)
    lengths = [len(s) for s in sequences]
    first = KeptRows.keep(model_rows(sequences), range(6), lengths, tmp_path, {"weights": 1})

    def no_models(*_):
        raise AssertionError("nothing is computed again")

    again = model_rows(sequences)
    monkeypatch.setattr(again, "batches", no_models)
    assert KeptRows.keep(again, range(6), lengths, tmp_path, {"weights": 1}).path == first.path
    others = [
        KeptRows.keep(model_rows(sequences), range(6), lengths, tmp_path, {"weights": 2}).path,
        KeptRows.keep(model_rows(sequences), range(5), lengths, tmp_path, {"weights": 1}).path,
    ]
    assert len({first.path, *others}) == 3


def test_a_run_that_ends_early_leaves_no_file(tmp_path):
    class Failing:
        width = 3

        def batches(self, proteins, generator=None):
            yield RowBatch([0], [2], torch.zeros(2, 3))
            raise InputError("no more")

    with pytest.raises(InputError, match="no more"):
        KeptRows.keep(Failing(), [0, 1], [2, 2], tmp_path, {})
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_named(tmp_path):
    sequences = random_sequences(3, 4)
    lengths = [len(s) for s in sequences]
    kept = KeptRows.keep(model_rows(sequences), range(3), lengths, tmp_path, {})
    kept.path.write_bytes(kept.path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"damaged .*remove it, and it is written again"):
        list(kept.batches(range(3)))
    with h5py.File(kept.path, "w"):
        pass
    with pytest.raises(InputError, match="damaged"):
        list(kept.batches(range(3)))


def test_no_room_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("U", (), {"free": 10})())
    with pytest.raises(InputError, match=r"0 kB free, but .* needed; .*probes=ridge"):
        KeptRows.keep(model_rows(["AC"]), [0], [2], tmp_path, {})


def test_nan_names_the_protein(monkeypatch):
    sequences = random_sequences(5, 0, longest=20)
    real = row_stream.pooled_members

    def broken(backbones, batch, poolings, **options):
        found = real(backbones, batch, poolings, **options)
        found[0]["residue"][-1] = np.nan
        return found

    monkeypatch.setattr(row_stream, "pooled_members", broken)
    rows = model_rows(sequences)
    last = min(range(5), key=lambda i: (len(sequences[i]), -i))
    with pytest.raises(InputError, match=rf"NaN or infinity in the embedding of p{last}; fix"):
        list(rows.batches(range(5)))


def test_the_arithmetic_is_of_the_models_alone():
    inside = []

    @contextmanager
    def arithmetic():
        inside.append(True)
        with torch.autocast("cpu", torch.bfloat16):
            yield

    rows = model_rows(random_sequences(4, 0), arithmetic=arithmetic)
    for _ in rows.batches(range(4)):
        assert not torch.is_autocast_enabled("cpu")
    assert inside
