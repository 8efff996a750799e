"""Files that earlier versions wrote: they load, and interrupted runs of theirs resume, but for an
evaluation, whose scores are defined otherwise now: it is refused, and its files still load.

``artefacts/`` was written by the commands of version 0.1.0, before the package was divided into
packages: a fit of two groups with held-out sequences, the same fit stopped by SIGTERM, embeddings
as HDF5 and NumPy files, an rd-embed that was killed, and an evaluation of two assays.
"""

import json
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from rd_lightning import JointMoments, RDHead
from rd_lightning.embed import main as rd_embed
from rd_lightning.evaluate import main as rd_evaluate
from rd_lightning.evaluation.statistics.contrasts import contrasts
from rd_lightning.evaluation.statistics.metrics import spearman
from rd_lightning.evaluation.statistics.predictions import Predictions
from rd_lightning.evaluation.statistics.resampling import resample
from rd_lightning.families import sample_fasta
from rd_lightning.fit import main as rd_fit
from rd_lightning.fitting.output import read_fit
from rd_lightning.fitting.state import FitState
from rd_lightning.merge import main as rd_merge
from rd_lightning.runtime.provenance import versions

FIT = ("target=200K", "data.fasta=x.fasta", "data.num_groups=2", "data.heldout=0.2")
# Embeddings are sums of hundreds of float32 products; another processor adds them in another order,
# which moves a value by a few times eps * sqrt(width * layers) of its size.
FLOAT32 = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def artefacts(tmp_path, monkeypatch) -> Path:
    shutil.copytree(Path(__file__).parent / "artefacts", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch, command, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["x", *arguments])
    command()


def assert_close(one: JointMoments, two: JointMoments) -> None:
    """Equal counts; moments to what float32 forward passes of two processors differ by."""
    assert one.num_rows == two.num_rows
    if one.num_rows > 1:
        assert torch.allclose(one.mean, two.mean, **FLOAT32)
        scale = two.covariance.diagonal().mean()
        assert (one.covariance - two.covariance).abs().max() < 1e-3 * scale


def test_a_head_loads_and_its_digest_is_the_same(artefacts):
    head = RDHead.from_pretrained("fit/head")
    with open("emb_npy/metadata.json") as file:
        assert head.digest() == json.load(file)["head_digest"]
    assert (head.names, head.dims) == (("50K", "200K"), (32, 64))
    assert head.report.stages[0].num_components == 22


def test_a_state_loads_whole_and_as_moments(artefacts):
    state = FitState.load("fit/moments.safetensors")
    assert [m.num_rows for m in state.groups] == [4742, 1933]
    assert state.heldout.num_rows == 1159 and state.parts[0].complete
    total = JointMoments.load("fit/moments.safetensors")
    assert total.num_rows == state.total.num_rows == 6675
    assert torch.equal(total.covariance, state.total.covariance)
    assert read_fit("fit").moments.num_rows == 6675


def test_an_interrupted_fit_resumes(artefacts, monkeypatch):
    before = FitState.load("interrupted_fit/checkpoint.safetensors")
    assert not before.parts[0].complete
    options = ("out=interrupted_fit", "resume=auto", "data.tokens_per_batch=256")
    run(monkeypatch, rd_fit, *FIT, *options)
    resumed = FitState.load("interrupted_fit/moments.safetensors")
    whole = FitState.load("fit/moments.safetensors")
    assert resumed.parts == whole.parts and resumed.identity == whole.identity
    for one, two in zip(resumed.all_moments, whole.all_moments, strict=True):
        assert_close(one, two)


def test_states_of_before_and_after_merge(artefacts, monkeypatch):
    with open("y.fasta", "w") as file:
        file.writelines(sample_fasta().read_text().splitlines(keepends=True)[-200:])
    text = Path("y.fasta").read_text()
    Path("y.fasta").write_text(text[text.index(">") :])
    options = ("out=new", "data.tokens_per_batch=256")
    run(monkeypatch, rd_fit, *(o.replace("x.fasta", "y.fasta") for o in FIT), *options)
    states = ("fit/moments.safetensors", "new/moments.safetensors")
    run(monkeypatch, rd_merge, *states, "out=merged")
    rows = [FitState.load(path).total.num_rows for path in states]
    assert FitState.load("merged/moments.safetensors").total.num_rows == sum(rows)


def test_an_embedding_file_is_topped_up(artefacts, monkeypatch):
    with h5py.File("emb.h5") as file:
        old = {name: data[:] for name, data in file["per-protein"].items()}  # type: ignore[union-attr]
    options = ("head=fit/head", "fasta=x.fasta", "topup=emb.h5", "level=200K")
    run(monkeypatch, rd_embed, *options)
    with h5py.File("emb.h5") as file:
        new = {name: data[:] for name, data in file["per-protein"].items()}  # type: ignore[union-attr]
    assert new.keys() == old.keys()
    for name, vector in new.items():
        assert vector.shape == (64,) and np.array_equal(vector[:32], old[name])


def test_an_rd_embed_that_was_killed_resumes(artefacts, monkeypatch, capsys):
    manifest = Path("cut.h5.unfinished/manifest.json")
    content = json.loads(manifest.read_text())
    assert sorted(content["versions"]) == sorted(versions())
    # The versions of the packages are part of a run's identity; here they are other ones.
    manifest.write_text(json.dumps({**content, "versions": versions()}))
    done = np.frombuffer(Path("cut.h5.unfinished/done.0").read_bytes(), np.uint32)
    kept = np.fromfile("cut.h5.unfinished/mean.raw", np.float32).reshape(-1, 64)[done]
    options = ("head=fit/head", "fasta=x.fasta", "out=cut.h5", "tokens_per_batch=128")
    run(monkeypatch, rd_embed, *options)
    assert "resuming an earlier run" in capsys.readouterr().out
    expected = np.load("emb_npy/per-protein.npy")
    rows = [line.split("\t") for line in Path("emb_npy/index.tsv").read_text().splitlines()[1:]]
    with h5py.File("cut.h5") as file:
        vectors = {row[0]: file["per-protein"][row[0]][:] for row in rows}  # type: ignore[index]
    for id_, _, row, *_ in rows:  # the NumPy file is float16
        assert np.allclose(vectors[id_], expected[int(row)], rtol=2e-3, atol=2e-3)
    found = np.stack(list(vectors.values()))
    for vector in kept:
        assert (found == vector).all(axis=1).any(), "what was done is taken over, bit for bit"


def test_an_evaluation_of_before_is_not_continued_with_other_scores(artefacts, monkeypatch, capsys):
    """One line, and nothing is touched: half of its assays would be scored in another way."""
    for name in ("parts", "predictions"):
        for path in Path("evaluation", name).glob("second*"):
            path.unlink()
    files = {path: path.read_bytes() for path in Path("evaluation").rglob("*") if path.is_file()}
    options = ("fit=fit", "assays=assays", "out=evaluation", "num_resamples=100")
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, rd_evaluate, *options, "representations=[raw,rd,pca,one_hot]")
    assert stopped.value.code == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "evaluation is of an evaluation by another version" in error
    assert "choose another out" in error and "Traceback" not in error
    left = {path: path.read_bytes() for path in Path("evaluation").rglob("*") if path.is_file()}
    assert left == files


def test_an_evaluation_loads_and_its_scores_are_those_of_its_predictions(artefacts):
    results = pd.read_parquet("evaluation/results.parquet")
    predictions = Predictions.load("evaluation/predictions")
    assert len(predictions) > 0
    for key in predictions:
        rows = results[results["metric"] == "spearman"]
        for name, value in key._asdict().items():
            rows = rows[rows[name] == value]
        truth = predictions.truth(key.assay, key.scheme)
        assert rows["value"].item() == pytest.approx(spearman(truth, predictions[key]), abs=1e-12)
    sampled = resample(predictions, num_resamples=20)
    assert len(contrasts(sampled, ["50K", "200K"])) > 0
