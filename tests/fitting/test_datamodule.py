import lightning as L
import pytest
import torch

from rd_lightning import FastaDataModule
from rd_lightning.data.batch import empty_batch, make_batch
from rd_lightning.data.scan import scan_fasta
from rd_lightning.errors import InputError
from rd_lightning.families import sample_fasta
from rd_lightning.families.esm2 import esm_tokenizer
from rd_lightning.fitting.plan import HELDOUT

from ..conftest import random_sequences


def test_rows_are_the_residues_and_nothing_else(fasta):
    sequences = random_sequences(9, 0)
    tokenizer = esm_tokenizer()
    with scan_fasta(fasta(sequences)) as store:
        windows = [(i, 0, len(s)) for i, s in enumerate(sequences)]
        batch = make_batch(store, tokenizer, windows, number=0, group=0)
    residues = batch.tokens.flatten()[batch.rows]
    expected = [tokenizer.table[ord(letter)] for letter in "".join(sequences)]
    assert residues.tolist() == expected
    assert batch.num_residues == sum(map(len, sequences))
    assert batch.padded


def test_equal_lengths_are_not_padded(fasta):
    with scan_fasta(fasta(["ACD", "EFG"])) as store:
        batch = make_batch(store, esm_tokenizer(), [(0, 0, 3), (1, 0, 3)], number=0, group=0)
    assert not batch.padded


def test_an_empty_batch_has_no_residues():
    assert empty_batch().num_residues == 0
    assert empty_batch().number == -1


def loader_batches(data: FastaDataModule, trainer: L.Trainer):
    data.trainer = trainer
    data.setup("fit")
    return list(data.train_dataloader())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loader_gives_every_residue_once(fasta, num_workers):
    sequences = random_sequences(60, 1)
    data = FastaDataModule(
        fasta(sequences),
        tokens_per_batch=150,
        max_residues=30,
        heldout=0.3,
        num_workers=num_workers,
    )
    batches = loader_batches(data, L.Trainer(accelerator="cpu", logger=False))
    assert [b.number for b in batches] == list(range(len(data.plan)))
    assert sum(b.num_residues for b in batches) == sum(map(len, sequences))
    assert {b.group for b in batches} == {0, HELDOUT}
    found = torch.cat([b.tokens.flatten()[b.rows] for b in batches]).bincount(minlength=33)
    table = esm_tokenizer().table
    letters = torch.tensor([int(table[ord(c)]) for c in "".join(sequences)])
    assert torch.equal(found, letters.bincount(minlength=33))


def test_the_bundled_sample_is_usable_and_the_default():
    data = FastaDataModule()
    assert data.fasta == sample_fasta()
    plan = data.scan("cpu")
    assert data.store.summary.num_sequences == 300
    assert data.store.summary.num_skipped == 0
    assert plan.summary().num_heldout_sequences > 0


def test_settings_are_checked_at_once():
    with pytest.raises(InputError, match="heldout"):
        FastaDataModule(heldout=2.0)


def test_the_record_says_what_was_read(fasta):
    data = FastaDataModule(fasta(random_sequences(20, 0)))
    data.scan("cpu")
    record = data.record()
    assert record["fasta"] == "x.fasta"
    assert record["plan"]["num_sequences"] == 20
    assert record["settings"]["tokens_per_batch"] == 2048
    assert len(record["fasta_digest"]) == 64
