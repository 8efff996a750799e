"""Levels of other widths than their members: what ``level_widths=`` equals, and where it holds."""

import json
import sys
from pathlib import Path

import h5py
import pytest
import torch
from esm.model.esm2 import ESM2

from rd_lightning import JointMoments, RDHead, RDModel, fit_chain
from rd_lightning.distillation.linalg import fix_signs, marchenko_pastur_edge
from rd_lightning.embed import main as rd_embed
from rd_lightning.errors import InputError
from rd_lightning.families import Family, Member, register_family
from rd_lightning.fit import main as rd_fit
from rd_lightning.fitting.output import read_fit
from rd_lightning.head.model_card import model_card
from rd_lightning.head.report import FitReport
from rd_lightning.merge import main as rd_merge

from ..conftest import SEEDS, family_rows, random_sequences

WIDTHS = {
    "the first narrower": ([9, 14, 22], [5, 11, 22]),
    "none as wide as its member": ([9, 14, 22], [4, 9, 15]),
    "equal members": ([12, 12, 12], [4, 8, 12]),
    "members that shrink": ([22, 14, 9], [3, 7, 15]),
    "wider than their members": ([9, 9], [9, 15]),
}
cases = pytest.mark.parametrize(("dims", "keep"), WIDTHS.values(), ids=WIDTHS.keys())


def moments_of(blocks) -> JointMoments:
    return JointMoments([b.shape[1] for b in blocks]).update(blocks)


def leading(rows: torch.Tensor, number: int) -> torch.Tensor:
    """(columns, number) directions of centred rows, by a full SVD."""
    return fix_signs(torch.linalg.svd(rows, full_matrices=False).Vh[:number].T)


def two_pass(blocks, keep):
    """Stage by stage: components of h_1, then regressions on z, explicit residuals, full SVDs."""
    centred = [h - h.mean(0) for h in blocks]
    z = blocks[0]
    if keep[0] < z.shape[1]:
        z = centred[0] @ leading(centred[0], keep[0])
    for h, before, width in zip(centred[1:], keep, keep[1:], strict=False):
        about = z - z.mean(0)
        _, s, vh = torch.linalg.svd(about, full_matrices=False)
        m = int((s**2 / (len(z) - 1) > marchenko_pastur_edge(s**2 / (len(z) - 1), len(z))).sum())
        scores = about @ vh[:m].T
        residual = h - scores @ torch.linalg.lstsq(scores, h).solution
        z = torch.cat([z, residual @ leading(residual, width - before)], dim=1)
    return z


@cases
@pytest.mark.parametrize("seed", SEEDS)
def test_equals_two_passes(dims, keep, seed):
    blocks = family_rows(3000, dims, seed, mean=3)
    head = fit_chain(moments_of(blocks), level_widths=keep, dtype=torch.float64)
    assert (head.dims, head.member_dims) == (tuple(keep), tuple(dims))
    assert (head(blocks) - two_pass(blocks, keep)).abs().max() < 1e-9


@cases
def test_prefixes_are_bit_identical(dims, keep):
    blocks = [b.float() for b in family_rows(1000, dims, 0, mean=2)]
    head = fit_chain(moments_of(blocks), level_widths=keep)
    z = head([b.reshape(10, 100, -1) for b in blocks])
    assert z.shape == (10, 100, keep[-1])
    for k, (name, width) in enumerate(zip(head.names, keep, strict=True), start=1):
        part = z[..., :width].reshape(1000, width)
        assert torch.equal(part, head(blocks[:k]))
        assert torch.equal(part, head.truncate(name)(blocks[:k]))
        assert torch.equal(z.reshape(1000, -1), head.extend(part.contiguous(), blocks[k:]))


def test_the_members_own_widths_change_nothing():
    moments = moments_of(family_rows(1000, [9, 14, 22], 0))
    plain, kept = fit_chain(moments), fit_chain(moments, level_widths=[9, 14, 22])
    assert plain.digest() == kept.digest()
    assert (plain.report.keep, kept.report.keep) == (None, (9, 14, 22))


def test_a_narrower_last_level_is_a_prefix_of_the_full_one():
    blocks = family_rows(1000, [9, 14, 22], 0)
    moments = moments_of(blocks)
    full = fit_chain(moments, dtype=torch.float64)(blocks)
    kept = fit_chain(moments, level_widths=[9, 14, 17], dtype=torch.float64)(blocks)
    assert (kept - full[:, :17]).abs().max() < 1e-12


def test_what_the_first_level_keeps_of_its_member():
    blocks = family_rows(1000, [9, 14], 0)
    head = fit_chain(moments_of(blocks), level_widths=[4, 9], dtype=torch.float64)
    values = torch.linalg.eigvalsh(torch.cov(blocks[0].T)).flip(0)
    assert head.report.first_kept_variance == pytest.approx(values[:4].sum() / values.sum())
    assert head.report.level_variance[0] == pytest.approx(values[:4].sum())
    assert fit_chain(moments_of(blocks)).report.first_kept_variance == 1


def test_heldout_r2_of_components():
    """About the fit's means, of rows that the fit did not see."""
    blocks = family_rows(2500, [9, 14], 0, mean=2)
    fit, others = [b[:2000] for b in blocks], [b[2000:] + 0.05 for b in blocks]
    options = {"level_widths": [4, 9], "regression": "ols", "dtype": torch.float64}
    head = fit_chain(moments_of(fit), heldout=moments_of(others), **options)
    z = head([fit[0]])
    b = torch.linalg.lstsq(z, fit[1] - fit[1].mean(0)).solution
    error = others[1] - fit[1].mean(0) - head([others[0]]) @ b
    total = (others[1] - others[1].mean(0)).square().sum()
    assert head.report.stages[0].r2_heldout == pytest.approx(1 - error.square().sum() / total)


def test_saved_and_loaded(tmp_path):
    blocks = [b.float() for b in family_rows(1000, [12, 12], 0)]
    head = fit_chain(moments_of(blocks), level_widths=[5, 12])
    head.save_pretrained(tmp_path)
    loaded = RDHead.from_pretrained(tmp_path)
    assert torch.equal(loaded(blocks), head(blocks))
    assert loaded.digest() == head.digest()
    assert (loaded.report, loaded.member_dims) == (head.report, (12, 12))
    assert "S" not in repr(loaded) and "of members of 12, 12" in repr(loaded)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "member_dims": [5, 12]}))
    with pytest.raises(InputError, match="do not fit each other .projection_0 is of shape"):
        RDHead.from_pretrained(tmp_path)


def test_a_head_written_before_there_was_keep(tmp_path):
    blocks = [b.float() for b in family_rows(500, [5, 12], 0)]
    head = fit_chain(moments_of(blocks))
    head.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["member_dims"], config["report"]["keep"], config["report"]["first_kept_variance"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert torch.equal(RDHead.from_pretrained(tmp_path)(blocks), head(blocks))


def test_the_report_of_a_level():
    head = fit_chain(moments_of(family_rows(500, [9, 14, 22], 0)), level_widths=[5, 11, 22])
    part = head.truncate("2")
    assert part.report.keep == (5, 11)
    assert FitReport.from_dict(json.loads(json.dumps(part.report.to_dict()))) == part.report


@pytest.mark.parametrize(
    ("dims", "keep", "words"),
    [
        ([5, 8], [5], r"keep lists a number of columns for each of 1, 2, not \[5\]"),
        ([5, 8], [6, 8], "level of 1 needs at least 1 and can add at most 5, the columns of 1"),
        ([5, 8], [0, 8], "level of 1 needs at least 1"),
        ([5, 8], [5, 5], "level of 2 needs more than the 5 of 1"),
        ([5, 8], [5, 14], "level of 2 needs more than the 5 of 1 and can add at most 8"),
        ([5, 8], [2.5, 8], "keep lists a number"),
    ],
)
def test_widths_that_cannot_be(dims, keep, words):
    with pytest.raises((InputError, TypeError), match=f"{words}|Type-check"):
        fit_chain(moments_of(family_rows(100, dims, 0)), level_widths=keep)


@pytest.mark.parametrize(
    ("dims", "keep", "words"),
    [
        ([12, 9], [4, 8], "10 residues cannot determine 12 directions of 1:"),
        ([6, 8], [6, 14], "10 residues cannot determine 14 directions of 2:"),
    ],
)
def test_fewer_residues_than_columns_of_a_member_or_a_level(dims, keep, words):
    with pytest.raises(InputError, match=words):
        fit_chain(moments_of(family_rows(10, dims, 0)), level_widths=keep)


@pytest.mark.parametrize(
    ("dims", "offered"),
    [([5, 5], "2,5"), ([4, 12, 12], "4,6,12"), ([12, 12, 12], "3,6,12"), ([20, 8], "4,8")],
)
def test_the_widths_that_the_message_offers_will_do(dims, offered):
    moments = moments_of(family_rows(100, dims, 0))
    with pytest.raises(InputError, match=rf"widths must grow.*keep=\[{offered}\]"):
        fit_chain(moments)
    assert fit_chain(moments, level_widths=[int(d) for d in offered.split(",")]).width == dims[-1]


def test_the_card_says_what_goes_in():
    head = fit_chain(
        moments_of(family_rows(500, [12, 12], 0)), names=["S", "L"], level_widths=[5, 12]
    )
    widths = head.member_dims
    card = model_card(head.names, head.dims, head.report, "org/name", member_dims=widths)
    assert "The first 5 columns are the leading principal components of the 12 of S;" in card
    assert "of 12, 12 columns" in card and "keep=[5, 12]" in card


# Through the commands


@pytest.fixture
def equal_members() -> Family:
    """Two encoders of 12 columns, of one layer and of two."""

    def load(member: Member, folder: Path | None) -> ESM2:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(member.num_layers)
            return ESM2(member.num_layers, member.width, member.num_heads)

    members = (Member("S", 12, "", 1, 2), Member("L", 12, "", 2, 2))
    return register_family(Family("equal", members, load))


def run(command, monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["x", *arguments])
    command()


def test_fit_merge_embed_and_top_up(equal_members, tmp_path, fasta, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sequences = random_sequences(30, 0)
    fasta(sequences)
    run(rd_fit, monkeypatch, "family.name=equal", "data.fasta=x.fasta", "out=run", "keep=[5,12]")
    printed = capsys.readouterr().out
    assert "5 -> 12 columns" in printed
    assert "the first level holds" in printed and "variance in 5 components" in printed
    head = RDHead.from_pretrained("run/head")
    assert (head.dims, head.member_dims) == ((5, 12), (12, 12))

    run(rd_merge, monkeypatch, "run/moments.safetensors", "keep=[5,12]", "out=merged")
    assert RDHead.from_pretrained("merged/head").digest() == head.digest()

    given = ("head=run/head", "fasta=x.fasta")
    run(rd_embed, monkeypatch, *given, "out=small.h5", "level=S")
    run(rd_embed, monkeypatch, *given, "topup=small.h5", "level=L")
    run(rd_embed, monkeypatch, *given, "out=whole.h5")
    model = RDModel.from_pretrained("run/head")
    expected = model.embed(sequences, pooling="mean")
    with h5py.File("small.h5") as topped, h5py.File("whole.h5") as whole:
        for i, vector in enumerate(expected):
            for file in (topped, whole):
                found = torch.from_numpy(file[f"per-protein/s{i}"][:])
                assert (found - vector).abs().max() < 1e-5
    with pytest.raises(InputError, match=r"its levels have \[5, 12\] columns.*without keep"):
        read_fit("run")


def test_the_command_without_keep_says_what_to_do(
    equal_members, tmp_path, fasta, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    fasta(random_sequences(3, 0))
    with pytest.raises(SystemExit):
        run(rd_fit, monkeypatch, "family.name=equal", "data.fasta=x.fasta", "out=run")
    printed = capfd.readouterr().err
    assert "L has 12 after S's 12" in printed and "keep=[6,12]" in printed
    assert not Path("run").exists()
