"""Batches that do not fit: an accelerator's out-of-memory error, injected on the CPU."""

import logging

import pytest
import torch

from rd_lightning import FastaDataModule, RDModule
from rd_lightning.data.batch import make_batch
from rd_lightning.data.scan import scan_fasta
from rd_lightning.distillation.kernels import finite_rows
from rd_lightning.errors import InputError
from rd_lightning.families import forward as embedding
from rd_lightning.families.backbone import load_backbones, residue_embeddings
from rd_lightning.families.esm2 import esm_tokenizer
from rd_lightning.families.forward import TokenBudget, embed_in_pieces
from rd_lightning.fitting import accumulate

from ..conftest import random_sequences
from ..fitting.test_module import run


@pytest.fixture
def room(monkeypatch):
    """A device with room for so many tokens at once; returns the sizes that were tried."""

    def limit(tokens: int) -> list[int]:
        tried = []

        def embed(backbones, batch_tokens, rows, *, padded):
            tried.append(batch_tokens.numel())
            if batch_tokens.numel() > tokens:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return residue_embeddings(backbones, batch_tokens, rows, padded=padded)

        monkeypatch.setattr(embedding, "residue_embeddings", embed)
        return tried

    return limit


def some_batch(fasta, sequences):
    with scan_fasta(fasta(sequences)) as store:
        windows = [(i, 0, len(s)) for i, s in enumerate(sequences)]
        return make_batch(store, esm_tokenizer(), windows, number=0, group=0)


def test_pieces_give_the_same_embeddings(fasta, family, room, caplog):
    batch = some_batch(fasta, random_sequences(9, 0))
    backbones = load_backbones(family, family.members)
    whole = residue_embeddings(backbones, batch.tokens, batch.rows, padded=batch.padded)
    tried = room(130)
    with caplog.at_level(logging.WARNING):
        pieces = list(embed_in_pieces(backbones, batch, max_residues=1022, then=list))
    assert max(tried) == batch.tokens.numel()
    assert [w for piece, _ in pieces for w in piece.windows] == batch.windows
    for k, expected in enumerate(whole):
        assert (torch.cat([blocks[k] for _, blocks in pieces]) - expected).abs().max() < 1e-5
    assert "out of memory with 9 window(s)" in caplog.text


def test_no_batch_fails_twice_for_the_same_reason(fasta, family, room):
    """Before, every batch was tried whole first, each time in vain."""
    batch = some_batch(fasta, ["ACDEFGHIKL"] * 9)  # 108 tokens
    backbones = load_backbones(family, family.members)
    budget, tried = TokenBudget(), room(40)
    for _ in range(3):
        found = embed_in_pieces(backbones, batch, max_residues=1022, budget=budget, then=list)
        assert [w for piece, _ in found for w in piece.windows] == batch.windows
    # Four windows, 48 tokens, failed too: the five of the other half are not tried together.
    assert [size for size in tried if size > 40] == [108, 48]
    assert budget.tokens == 24


def test_windows_are_cut_untried_only_where_as_long_a_one_failed(fasta, family, room):
    budget, tried = TokenBudget(), room(60)
    backbones = load_backbones(family, family.members)
    for length in (100, 50, 90, 120, 58, 100):
        batch = some_batch(fasta, ["A" * length])
        pieces = list(embed_in_pieces(backbones, batch, max_residues=30, budget=budget, then=list))
        assert sum(length for p, _ in pieces for _, _, length in p.windows) == length
        assert (len(pieces) == 1) == (length <= 58)
    # 102: failed; 52 fits; 92: shorter, tried, fails; 122 and the second 102 are not tried again.
    assert [size for size in tried if size > 32] == [102, 52, 92, 60]


def test_what_follows_the_forward_pass_is_in_pieces_too(fasta, family):
    batch = some_batch(fasta, ["ACDEFGHIKL"] * 8)
    backbones = load_backbones(family, family.members)

    def then(blocks):
        if len(blocks[0]) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return len(blocks[0])

    found = embed_in_pieces(backbones, batch, max_residues=1022, then=then)
    assert [rows for _, rows in found] == [20] * 4


def test_a_long_sequence_run_whole_is_cut_into_windows(fasta, family, room):
    batch = some_batch(fasta, ["ACDEFGHIKL" * 10])
    backbones = load_backbones(family, family.members)
    room(40)
    pieces = list(embed_in_pieces(backbones, batch, max_residues=30, then=list))
    assert [piece.windows[0] for piece, _ in pieces] == [
        (0, 0, 25), (0, 25, 25), (0, 50, 25), (0, 75, 25),
    ]  # fmt: skip
    tokenizer = esm_tokenizer()
    for piece, blocks in pieces:
        assert piece.tokens[0, 0] == tokenizer.begin
        assert piece.tokens[0, -1] == tokenizer.end
        assert len(blocks[0]) == 25
    residues = torch.cat([piece.tokens[0, 1:-1] for piece, _ in pieces])
    assert torch.equal(residues, batch.tokens[0, 1:-1])


def test_a_window_that_does_not_fit_is_named(fasta, family, room):
    room(20)
    data = FastaDataModule(fasta([("huge", "ACDEFGHIKL" * 10), ("b", "ACD")]), heldout=0.0)
    with pytest.raises(InputError, match=r"one window of 100 residues of .*huge \(record 1\)"):
        run(RDModule(family), data)


@pytest.mark.parametrize("long", ["window", "whole"])
def test_a_fit_in_pieces_counts_every_residue_once(fasta, family, room, long):
    sequences = random_sequences(40, 2, longest=90)
    settings = {"tokens_per_batch": 400, "max_residues": 60, "heldout": 0.2, "long": long}
    plain = run(RDModule(family), FastaDataModule(fasta(sequences), **settings))
    room(150)
    pieces = run(RDModule(family), FastaDataModule(fasta(sequences), **settings))
    assert pieces.head.report.context["num_out_of_memory_pieces"] > 0
    for a, b in zip(plain.state.all_moments, pieces.state.all_moments, strict=True):
        assert a.num_rows == b.num_rows
        assert (a.covariance - b.covariance).norm() / a.covariance.norm() < 1e-5


def test_a_fit_checks_its_rows_in_pieces_too(fasta, family, monkeypatch):
    """What tells the finite rows of a batch takes memory as well."""
    sequences = random_sequences(40, 2, longest=90)
    settings = {"tokens_per_batch": 400, "heldout": 0.2}
    plain = run(RDModule(family), FastaDataModule(fasta(sequences), **settings))

    def scarce(blocks):
        if len(blocks[0]) > 150:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return finite_rows(blocks)

    monkeypatch.setattr(accumulate, "finite_rows", scarce)
    pieces = run(RDModule(family), FastaDataModule(fasta(sequences), **settings))
    assert pieces.head.report.context["num_out_of_memory_pieces"] > 0
    for a, b in zip(plain.state.all_moments, pieces.state.all_moments, strict=True):
        assert a.num_rows == b.num_rows
        assert (a.covariance - b.covariance).norm() / a.covariance.norm() < 1e-5


def test_the_largest_batch_runs_first(fasta, family, room):
    tried = room(10**9)
    sequences = random_sequences(60, 3, longest=300)
    run(RDModule(family), FastaDataModule(fasta(sequences), tokens_per_batch=1))
    assert tried[0] == max(tried) == max(map(len, sequences)) + 2
