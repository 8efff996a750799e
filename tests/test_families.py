"""Families other than ESM-2 through the commands: fitted, embedded, evaluated."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from rd_lightning import FastaDataModule, RDHead, RDModel
from rd_lightning.embed import main as rd_embed
from rd_lightning.errors import InputError
from rd_lightning.evaluate import main as rd_evaluate
from rd_lightning.families import Family, Member, family_from_config, get_family
from rd_lightning.families.backbone import Backbone
from rd_lightning.families.table import rows
from rd_lightning.fit import main as rd_fit

from .conftest import random_sequences, run_here
from .families.small_models import write_model
from .families.test_hugging_face import fit
from .families.test_table import residues_of
from .test_evaluate import write_assay

transformers = pytest.importorskip(
    "transformers", minversion="4.57", reason="transformers 4.57 or newer is not installed"
)
KIND = "esmc" if hasattr(transformers, "EsmcModel") else "dplm"
"""Of the random models: ESM C's where transformers has them."""
ROW = next(row for row in rows() if row.name == KIND)
SEQUENCES = random_sequences(30, 0)


def written(folder: Path, family: str, name: str, width: int) -> str:
    """An entry of family.members: a small random model of a family of the table."""
    write_model(family, Member(name, width, name, 2, 2), folder / name)
    return f"{{name:{name},path:{folder / name}}}"


def run(main, folder: Path, *words: str) -> str:
    status, said = run_here(main, folder, f"rd-{main.__module__.rpartition('.')[2]}", *words)
    assert status == 0, said
    return said


def assert_head_of(folder: Path, raw: list[list[torch.Tensor]]) -> None:
    """rd-embed's residue vectors are the head's, of the raw embeddings of each sequence."""
    head = RDHead.from_pretrained(folder / "fit" / "head")
    with h5py.File(folder / "emb.h5") as file:
        for i, members in enumerate(raw):
            found = file["per-residue"][f"s{i}"][:]
            expected = head(members).numpy()
            # Float32 of other batches, through a head whose maps have norms of about one.
            np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_a_family_from_end_to_end(tmp_path, fasta):
    fasta(SEQUENCES)
    members = ",".join(written(tmp_path, KIND, n, w) for n, w in (("S", 8), ("L", 12)))
    family = (f"family={KIND}", f"family.members=[{members}]", "family.name=mine")
    said = run(rd_fit, tmp_path, *family, "data.fasta=x.fasta", "out=fit")
    assert "mine: S (8) -> L (12)" in said
    run(
        *(rd_embed, tmp_path, *family, "head=fit/head", "fasta=x.fasta", "out=emb.h5"),
        "pooling=residue",
    )
    assert_head_of(
        tmp_path, [[residues_of(ROW, tmp_path / n, s) for n in "SL"] for s in SEQUENCES[:5]]
    )
    write_assay(tmp_path / "P1.csv", 0)
    words = ("assays=P1.csv", "representations=[raw,rd]", "num_resamples=20", "out=evaluated")
    said = run(rd_evaluate, tmp_path, *family, "fit=fit", *words)
    assert "mine: S (8) -> L (12)" in said
    found = pd.read_parquet(tmp_path / "evaluated" / "results.parquet")
    assert set(found["representation"]) == {"raw", "rd"} and found["value"].notna().all()


def test_a_mixed_chain(tmp_path, fasta):
    """The bundled model, a T5 encoder without a token in front, and a larger model."""
    fasta(SEQUENCES)
    t5 = written(tmp_path, "prot_t5", "T5", 48)
    large = written(tmp_path, KIND, "L", 64)
    family = ("family=mini", f"family.members=[50K,{t5},{large}]")
    said = run(rd_fit, tmp_path, *family, "data.fasta=x.fasta", "out=fit")
    assert "mini+paths: 50K (32) -> T5 (48) -> L (64)" in said
    run(
        *(rd_embed, tmp_path, *family, "head=fit/head", "fasta=x.fasta", "out=emb.h5"),
        "pooling=residue",
    )
    small = get_family("mini")
    backbone = Backbone.load(small, small.members[0])
    t5_row = next(row for row in rows() if row.name == "prot_t5")
    raw = []
    for sequence in SEQUENCES[:5]:
        tokens = torch.from_numpy(small.tokenizer().encode([sequence.encode()]))
        with torch.no_grad():
            own = backbone(tokens, padded=False)[0, 1:-1]
        others = ((t5_row, "T5"), (ROW, "L"))
        raw.append([own, *(residues_of(row, tmp_path / name, sequence) for row, name in others)])
    assert_head_of(tmp_path, raw)


def test_a_first_token_that_a_model_does_not_have(tmp_path, fasta):
    fasta(SEQUENCES)
    family = ("family=mini", f"family.members=[50K,{written(tmp_path, 'prot_t5', 'T5', 48)}]")
    run(rd_fit, tmp_path, *family, "data.fasta=x.fasta", "out=fit")
    words = ("head=fit/head", "fasta=x.fasta", "out=emb.h5", "pooling=[mean,bos]")
    status, said = run_here(rd_embed, tmp_path, "rd-embed", *family, *words)
    assert status == 1
    assert said.endswith(
        "error: pooling=bos: T5 has no token in front of the residues; use pooling=mean\n"
    )
    assert not list(tmp_path.glob("emb*"))


@pytest.fixture
def bert(tmp_path) -> Family:
    members = []
    for name, width in (("S", 8), ("L", 12)):
        written(tmp_path, "prot_bert", name, width)
        # A folder of one's own says which class it is of.
        settings = transformers.BertConfig.from_pretrained(tmp_path / name)
        settings.save_pretrained(tmp_path / name)
        members.append({"name": name, "path": str(tmp_path / name)})
    return family_from_config({"name": "bert", "members": members})


def test_a_fit_needs_no_tokenizer_of_the_members(fasta, bert):
    """The tokens of FastaDataModule are those of every family: an embedding is that of its
    residue."""
    data = FastaDataModule(fasta(SEQUENCES), heldout=0, max_residues=60)
    module = fit(bert, data)
    row = next(row for row in rows() if row.name == "prot_bert")
    folders = [Path(member.checkpoint) for member in bert.members]
    raw = [torch.cat([residues_of(row, f, s) for s in SEQUENCES]).double() for f in folders]
    expected = torch.cov(torch.cat(raw, dim=1).T)
    found = module.moments.covariance
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_a_fit_with_other_tokens_is_refused(fasta, bert):
    other = _exchanged(get_family("mini").tokenizer())
    with pytest.raises(InputError, match="give it tokenizer=module.family.tokenizer"):
        fit(bert, FastaDataModule(fasta(SEQUENCES), tokenizer=other))


def _exchanged(tokenizer):
    from dataclasses import replace

    table = tokenizer.table.copy()
    table[[ord("L"), ord("A")]] = table[[ord("A"), ord("L")]]
    return replace(tokenizer, table=table)


def test_the_alphabet_holds_for_every_family(fasta, bert, tmp_path):
    module = fit(bert, FastaDataModule(fasta(SEQUENCES), max_residues=60))
    module.head.save_pretrained(tmp_path / "head")
    model = RDModel.from_pretrained(tmp_path / "head", family=bert)
    _, _, tokens = model.batch_converter()([("a", SEQUENCES[0]), ("b", SEQUENCES[1])])
    with torch.no_grad():
        found = model(tokens)
    row = next(row for row in rows() if row.name == "prot_bert")
    for line, sequence in zip(found, SEQUENCES, strict=False):
        raw = [residues_of(row, Path(m.checkpoint), sequence) for m in bert.members]
        expected = module.head(raw)
        assert (line[1 : len(sequence) + 1] - expected).abs().max() < 1e-4 * expected.abs().max()
