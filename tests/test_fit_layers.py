"""Layers as members through the commands: fit, merge, embed, evaluate, top up."""

import json
from collections import Counter

import h5py
import pytest
import torch

from rd_lightning import RDHead, RDModel, embed, evaluate, fit, merge
from rd_lightning.families import MINI, esm2
from rd_lightning.families.backbone import Backbone
from rd_lightning.families.builtin import load_mini

from .conftest import random_sequences, run_here

MEMBERS = "family.members=[50K@2,200K@1,50K,800K]"
KEEP = "keep=[32,48,64,128]"
FIT = ("rd-fit", "family=mini", "fasta=x.fasta", "data.tokens_per_batch=300")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("layers")
    sequences = random_sequences(60, 0)
    (path / "x.fasta").write_text("".join(f">s{i}\n{s}\n" for i, s in enumerate(sequences)))
    wild = "MKTAYIAKQRQISFVKSHFS"
    rows = [
        f"{w}{i + 1}{a},{wild[:i]}{a}{wild[i + 1 :]},{((7 * i + 3 * j) % 11) / 10}"
        for i, w in enumerate(wild)
        for j, a in enumerate("ACDE")
        if a != w
    ]
    text = "\n".join(["mutant,mutated_sequence,DMS_score", *rows])
    (path / "a.csv").write_text(text + "\n")
    ok(fit.main, path, *FIT, MEMBERS, KEEP, "out=fit")
    return path


def ok(main, folder, *words):
    status, said = run_here(main, folder, *words)
    assert status == 0, said
    return said


@pytest.fixture
def counted(monkeypatch):
    """Forward passes and batches by model, digests and loads by model."""
    found = {"passes": Counter(), "digests": Counter(), "loads": Counter()}
    forward, digest, load = Backbone.forward, Backbone.digest, Backbone.load.__func__

    def counted_forward(self, tokens, **known):
        found["passes"][self.member.name] += 1
        return forward(self, tokens, **known)

    def counted_digest(self):
        found["digests"][self.member.name] += 1
        return digest(self)

    def counted_load(cls, family, member, *arguments, **known):
        found["loads"][member.name] += 1
        return load(cls, family, member, *arguments, **known)

    monkeypatch.setattr(Backbone, "forward", counted_forward)
    monkeypatch.setattr(Backbone, "digest", counted_digest)
    monkeypatch.setattr(Backbone, "load", classmethod(counted_load))
    return found


ONCE = {"50K": 1, "200K": 1, "800K": 1}


def context_of(folder) -> dict:
    return json.loads((folder / "head/config.json").read_text())["report"]["context"]


def test_the_record_names_the_layers(folder):
    context = context_of(folder / "fit")
    assert context["members"] == [
        {"name": "50K@2", "of": "mini/50K", "layer": 2},
        {"name": "200K@1", "of": "mini/200K", "layer": 1},
        {"name": "50K"},
        {"name": "800K"},
    ]
    weights = context["weights"]
    assert weights["50K@2"] == weights["50K"] + "@2"


def test_a_fit_is_one_pass_a_model(folder, counted):
    said = ok(fit.main, folder, *FIT, MEMBERS, KEEP, "out=again")
    assert "50K@2 (32) -> 200K@1 (64) -> 50K (32) -> 800K (128)" in said
    assert counted["digests"] == counted["loads"] == ONCE
    passes = counted["passes"]
    assert passes["50K"] == passes["200K"] == passes["800K"] > 5


def test_parts_merge_to_the_fit(folder):
    for part in (1, 2):
        ok(fit.main, folder, *FIT, MEMBERS, KEEP, f"part={part}/2", f"out=part{part}")
    ok(merge.main, folder, "rd-merge", "part1", "part2", KEEP, "out=merged")
    assert context_of(folder / "merged")["members"] == context_of(folder / "fit")["members"]
    one, two = (RDModel.from_pretrained(folder / name / "head") for name in ("fit", "merged"))
    a, b = (model.embed(["MKTAYIAKQR"], pooling="mean") for model in (one, two))
    assert (a - b).abs().max() < 1e-4 * a.abs().max()  # sums of the moments in another order


@pytest.mark.slow
def test_states_of_other_layers_do_not_merge(folder):
    ok(fit.main, folder, *FIT, MEMBERS, KEEP, "part=1/2", "out=half1")
    other = MEMBERS.replace("50K@2", "50K@1")
    ok(fit.main, folder, *FIT, other, KEEP, "part=2/2", "out=half2")
    status, said = run_here(merge.main, folder, "rd-merge", "half1", "half2", KEEP, "out=no")
    assert status == 1 and "is incompatible with the others: names: " in said


def test_embeddings_need_no_members_named(folder, counted):
    ok(embed.main, folder, "rd-embed", "head=fit", "fasta=x.fasta", "out=e.h5")
    assert counted["loads"] == counted["digests"] == ONCE
    assert len(set(counted["passes"].values())) == 1
    head = RDHead.from_pretrained(folder / "fit/head")
    small, middle, large = (load_mini(member, None).eval() for member in MINI.members)
    with h5py.File(folder / "e.h5") as file:
        found = torch.from_numpy(file["per-protein/s3"][:])
    sequence = random_sequences(60, 0)[3]
    tokens = torch.from_numpy(MINI.tokenizer().encode([sequence.encode()]))
    with torch.no_grad():
        inner = small(tokens, repr_layers=[2, 4])["representations"]
        raw = [
            inner[2],
            middle(tokens, repr_layers=[1])["representations"][1],
            inner[4],
            large(tokens, repr_layers=[4])["representations"][4],
        ]
    expected = head([h[:, 1:-1].mean(1) for h in raw])[0]
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_level_runs_the_layers_that_it_needs(folder, counted, monkeypatch):
    run, attend = Counter(), esm2._attend

    def counted_attend(attention, x, *others):
        run[x.shape[-1]] += 1
        return attend(attention, x, *others)

    monkeypatch.setattr(esm2, "_attend", counted_attend)
    ok(embed.main, folder, "rd-embed", "head=fit", "fasta=x.fasta", "out=l.h5", "level=200K@1")
    passes = counted["passes"]
    assert set(passes) == {"50K", "200K"}
    assert run == {32: 2 * passes["50K"], 64: passes["200K"]}
    run.clear()
    passes.clear()
    # From there on, of the 50K all four layers, of the 200K none.
    ok(embed.main, folder, "rd-embed", "head=fit", "fasta=x.fasta", "topup=l.h5", "level=800K")
    assert set(passes) == {"50K", "800K"}
    assert run == {32: 4 * passes["50K"], 128: 4 * passes["800K"]}
    ok(embed.main, folder, "rd-embed", "head=fit", "fasta=x.fasta", "out=w.h5")
    with h5py.File(folder / "l.h5") as one, h5py.File(folder / "w.h5") as other:
        for name in one["per-protein"]:
            a, b = (torch.from_numpy(f["per-protein"][name][:]) for f in (one, other))
            assert torch.equal(a[:48], b[:48])
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_other_members_are_refused(folder):
    words = ("rd-embed", "head=fit", "fasta=x.fasta", "out=x.h5")
    status, said = run_here(embed.main, folder, *words, "family.members=[50K,200K@1,50K@1,800K]")
    assert status == 1 and "the head is of [('50K@2', 32), ('200K@1', 64)" in said


@pytest.mark.slow
def test_an_evaluation_names_the_layers(folder, counted):
    # At the members' own widths: those of this chain grow.
    members = "family.members=[50K@2,200K@2,800K@1,800K]"
    ok(fit.main, folder, *FIT, members.replace(",800K]", "]"), "out=growing")
    for counts in counted.values():
        counts.clear()
    said = ok(
        evaluate.main, folder, "rd-evaluate", "fit=growing", "assays=a.csv", "out=scores",
        "representations=[raw,rd]", "schemes=random",
    )  # fmt: skip
    assert counted["loads"] == counted["digests"] == ONCE
    assert len(set(counted["passes"].values())) == 1
    assert "50K@2 (32) -> 200K@2 (64) -> 800K@1 (128)" in said.replace("\n", " ")
    summary = (folder / "scores/summary.md").read_text()
    assert "50K@2" in summary and "800K@1" in summary
    # The same sequences through the last layers are other ones, and kept apart.
    ok(fit.main, folder, *FIT, "out=last")
    ok(
        evaluate.main, folder, "rd-evaluate", "fit=last", "assays=a.csv", "out=scores2",
        "representations=[raw,rd]", "schemes=random", "cache=scores/embeddings",
    )  # fmt: skip
    assert len(list((folder / "scores/embeddings").iterdir())) == 2
