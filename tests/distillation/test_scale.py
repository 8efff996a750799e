"""The levels on one scale: against explicit scaling of the rows, and what it is for."""

import json
import sys
from pathlib import Path

import h5py
import pytest
import torch
from scipy.linalg import hadamard

from rd_lightning import JointMoments, RDHead, RDModel, fit_chain, scale_levels
from rd_lightning.distillation.linalg import fix_signs
from rd_lightning.embed import main as rd_embed
from rd_lightning.errors import InputError
from rd_lightning.evaluation.probes.ridge import ridge_path
from rd_lightning.export import to_exported
from rd_lightning.fit import main as rd_fit
from rd_lightning.head.model_card import model_card
from rd_lightning.merge import main as rd_merge

from ..conftest import SEEDS, family_rows, random_sequences
from ..evaluation.conftest import planted

DIMS = [9, 14, 22]
SCALES = ["rms", "whiten"]
WIDTHS = [None, [5, 11, 22]]
both = pytest.mark.parametrize("scale", SCALES)
widths = pytest.mark.parametrize("keep", WIDTHS, ids=["members", "keep"])


def moments_of(blocks) -> JointMoments:
    return JointMoments([b.shape[1] for b in blocks]).update(blocks)


def family(seed: int, num_rows: int = 1000, dims=DIMS) -> list[torch.Tensor]:
    """The third member is thirty times as large as the others."""
    blocks = family_rows(num_rows, dims, seed, mean=2)
    return [*blocks[:-1], 30 * blocks[-1]]


def added_by_level(z: torch.Tensor, dims) -> list[torch.Tensor]:
    return list(z.split([b - a for a, b in zip([0, *dims], dims, strict=False)], dim=1))


def explicit(z: torch.Tensor, dims, scale: str) -> torch.Tensor:
    """The definition, on the rows of the unscaled z."""
    found = []
    for k, columns in enumerate(added_by_level(z, dims)):
        a = columns - columns.mean(0)
        if scale == "rms":
            found.append(a / a.var(dim=0).mean().sqrt())
            continue
        if k == 0:
            a = a @ fix_signs(torch.linalg.svd(a, full_matrices=False).Vh.mT)
        found.append(a / a.std(dim=0))
    return torch.cat(found, dim=1)


@both
@widths
@pytest.mark.parametrize("regression", ["pcr", "ols"])
@pytest.mark.parametrize("seed", SEEDS)
def test_equals_explicit_scaling(seed, regression, keep, scale):
    """In float64, where values of about 1 come from covariances of condition 1e6 at most: an error
    of 1e6 eps = 2e-10."""
    blocks = family(seed)
    options = {"regression": regression, "level_widths": keep, "dtype": torch.float64}
    plain = fit_chain(moments_of(blocks), **options)
    head = fit_chain(moments_of(blocks), scale=scale, **options)
    assert (head.dims, head.member_dims) == (plain.dims, plain.member_dims)
    assert head.report.scale == scale
    expected = explicit(plain(blocks), plain.dims, scale)
    assert (head(blocks) - expected).abs().max() < 1e-9
    later = scale_levels(plain, moments_of(blocks), scale)
    assert (later(blocks) - expected).abs().max() < 1e-9
    assert later.report == head.report


@widths
def test_whitened_columns_have_covariance_one(keep):
    blocks = family(0)
    head = fit_chain(moments_of(blocks), level_widths=keep, scale="whiten", dtype=torch.float64)
    for a in added_by_level(head(blocks), head.dims):
        assert (torch.cov(a.T) - torch.eye(a.shape[1])).abs().max() < 1e-9
        assert a.mean(0).abs().max() < 1e-9
    ols = fit_chain(
        moments_of(blocks), level_widths=keep, scale="whiten", dtype=torch.float64, regression="ols"
    )
    assert (torch.cov(ols(blocks).T) - torch.eye(22)).abs().max() < 1e-9


@both
@widths
def test_prefixes_are_bit_identical(keep, scale):
    blocks = [b.float() for b in family(0)]
    head = fit_chain(moments_of(blocks), level_widths=keep, scale=scale)
    z = head([b.reshape(10, 100, -1) for b in blocks])
    for k, (name, width) in enumerate(zip(head.names, head.dims, strict=True), start=1):
        part = z[..., :width].reshape(1000, width)
        assert torch.equal(part, head(blocks[:k]))
        assert torch.equal(part, head.truncate(name)(blocks[:k]))
        assert torch.equal(z.reshape(1000, -1), head.extend(part.contiguous(), blocks[k:]))
        assert head.truncate(name).report.scale == scale


def test_none_changes_nothing(tmp_path):
    moments = moments_of(family(0))
    plain, none = fit_chain(moments), fit_chain(moments, scale="none")
    assert plain.digest() == none.digest() and plain.report == none.report
    assert scale_levels(plain, moments, "none") is plain
    assert plain.first_is_raw and "projection_0" not in plain.state_dict()
    for name, head in (("plain", plain), ("none", none)):
        head.save_pretrained(tmp_path / name)
    for file in ("config.json", "head.safetensors"):
        assert (tmp_path / "plain" / file).read_bytes() == (tmp_path / "none" / file).read_bytes()
    config = json.loads((tmp_path / "none/config.json").read_text())
    assert "scale" not in config["report"]
    assert RDHead.from_pretrained(tmp_path / "none").report.scale == "none"


@both
@widths
def test_saved_loaded_trained_and_exported(tmp_path, keep, scale):
    blocks = [b.float() for b in family(0)]
    moments = moments_of(blocks)
    plain = fit_chain(moments, level_widths=keep)
    head = fit_chain(moments, level_widths=keep, scale=scale)
    assert len({plain.digest(), head.digest()}) == 2
    assert not head.first_is_raw and f"scale={scale}" in repr(head)
    for level in (head, head.truncate("1")):
        level.save_pretrained(tmp_path)
        loaded = RDHead.from_pretrained(tmp_path)
        assert torch.equal(loaded(blocks[: level.num_levels]), level(blocks[: level.num_levels]))
        assert (loaded.digest(), loaded.report) == (level.digest(), level.report)
    program = to_exported(head).module()
    z = program([b.reshape(10, 100, -1) for b in blocks]).reshape(1000, -1)
    assert torch.allclose(z, head(blocks), atol=1e-4)
    trained = RDHead.from_pretrained(tmp_path).trainable_()
    assert {name for name, _ in trained.named_parameters()} == set(buffers_of(0))


def buffers_of(k: int) -> list[str]:
    return [f"{name}_{k}" for name in ("projection", "mapping", "bias")]


@both
def test_a_head_of_one_member(scale):
    [h] = family_rows(300, [6], 0, mean=3)
    plain = fit_chain(moments_of([h]))
    head = fit_chain(moments_of([h]), scale=scale, dtype=torch.float64)
    assert not plain.blocks
    assert (head([h]) - explicit(h, [6], scale)).abs().max() < 1e-9
    assert torch.allclose(
        scale_levels(plain, moments_of([h]), scale)([h]), head([h]).float(), atol=1e-4
    )


# What has no variance


@both
def test_a_level_without_variance_keeps_its_scale(scale):
    """h_2 is linear in h_1: what level 2 adds is rounding."""
    small, _, large = family_rows(500, [4, 1, 9], 0, mean=1)
    generator = torch.Generator().manual_seed(0)
    known = small @ torch.randn(4, 6, generator=generator, dtype=torch.float64)
    blocks = [small, known, large]
    options = {"regression": "ols", "dtype": torch.float64}
    plain = fit_chain(moments_of(blocks), **options)
    head = fit_chain(moments_of(blocks), scale=scale, **options)
    assert torch.equal(head.get_buffer("projection_2"), plain.get_buffer("projection_2")) is False
    assert torch.equal(head.get_buffer("projection_1"), plain.get_buffer("projection_1"))
    z = head(blocks)
    assert torch.isfinite(z).all()
    assert z[:, 4:6].abs().max() < 1e-10
    assert z[:, 6:].square().mean() == pytest.approx(1, rel=0.01)


@both
def test_columns_without_variance(scale):
    """Two columns of h_1 are constant, one is the sum of two others."""
    blocks = family_rows(500, [7, 9], 0, mean=1)
    h = blocks[0]
    h[:, 5:] = 3.0
    h[:, 4] = h[:, 0] + h[:, 1]
    head = fit_chain(moments_of(blocks), scale=scale, dtype=torch.float64)
    z = head([h])
    assert torch.isfinite(z).all()
    if scale == "whiten":
        expected = torch.tensor([1.0] * 4 + [0.0] * 3, dtype=torch.float64)
        assert (torch.cov(z.T) - torch.diag(expected)).abs().max() < 1e-9


@both
def test_nothing_varies_at_all(scale):
    blocks = [torch.full((50, d), 2.0, dtype=torch.float64) for d in (3, 5)]
    z = fit_chain(moments_of(blocks), scale=scale, dtype=torch.float64)(blocks)
    assert torch.equal(z, torch.zeros(50, 5, dtype=torch.float64))


# After the fit


@both
def test_moments_of_other_residues_and_larger_members(scale):
    """Not of the fit: the columns are not of mean zero there, and are centred."""
    blocks, others = family(0), [h + 0.3 for h in family(5)]
    head = fit_chain(moments_of(blocks), dtype=torch.float64).truncate("2")
    scaled = scale_levels(head, moments_of(others), scale)
    expected = explicit(head(others[:2]), head.dims, scale)
    assert (scaled(others[:2]) - expected).abs().max() < 1e-9
    assert scaled(others[:2]).mean(0).abs().max() < 1e-9


def test_what_cannot_be_scaled():
    blocks = family(0)
    moments = moments_of(blocks)
    head = fit_chain(moments)
    scaled = scale_levels(head, moments, "rms")
    with pytest.raises(InputError, match="scale=rms already; take the head of before, or solve"):
        scale_levels(scaled, moments, "whiten")
    with pytest.raises(InputError, match=r"widths \[9, 14, 22\], the moments are of \[9, 14\]"):
        scale_levels(head, moments_of(blocks[:2]), "rms")
    with pytest.raises(InputError, match="22 residues cannot determine 22 directions of 3"):
        scale_levels(head, moments_of([h[:22] for h in blocks]), "rms")


@pytest.mark.usefixtures("unchecked")
def test_a_scale_that_there_is_not():
    for call in (fit_chain, lambda m, scale: scale_levels(fit_chain(m), m, scale)):
        with pytest.raises(InputError, match="scale is none, rms or whiten, not 'max'"):
            call(moments_of(family(0)), scale="max")


def test_the_card_says_which_scale_it_is():
    for scale, words in (("rms", "mean, divided by one number"), ("whiten", "components of S")):
        head = fit_chain(moments_of(family(0)), names=["S", "M", "L"], scale=scale)
        card = model_card(head.names, head.dims, head.report, "org/name")
        assert f"scale={scale}" in card and words in card
        assert "as it is" not in card


# What it is for


def same_class_among_nearest(z: torch.Tensor, classes: torch.Tensor, number: int) -> float:
    """Share of the nearest by cosine, itself left out, that is of one's own class."""
    unit = torch.nn.functional.normalize(z, dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(-torch.inf)
    nearest = cosines.topk(number).indices
    return (classes[nearest] == classes[:, None]).double().mean().item()


@both
def test_neighbours_by_cosine_see_every_level(scale):
    """Eight classes, orthogonal rows of signs in h_1 (16 columns); h_2 is h_1 and two columns of
    signs times 30, in all four patterns a class, so that nothing of them is explained.

    Unscaled, |z|^2 is 16 + 1,800: two rows of one pattern have a product of 1,800, of one class and
    other patterns 16 at most: the three nearest are of seven other classes. Scaled, h_1 about its
    mean is a simplex: products are |z_1|^2 within a class and -|z_1|^2 / 7 between classes, with
    |z_1|^2 = 16 (rms) or 7 (whiten: its 7 directions), and |r_2|^2 = 2. So the least product
    within a class, |z_1|^2 - 2, is above the greatest between, 2 - |z_1|^2 / 7.
    """
    classes = torch.arange(8).repeat_interleave(4)
    small = torch.tensor(hadamard(16)[1:9], dtype=torch.float64)[classes]
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 2).double().repeat(8, 1)
    blocks = [small, torch.cat([small, 30 * signs], dim=1)]
    moments = moments_of(blocks)
    plain = fit_chain(moments, regression="ols")
    assert same_class_among_nearest(plain(blocks), classes, 3) == 0
    scaled = fit_chain(moments, regression="ols", scale=scale)(blocks)
    assert same_class_among_nearest(scaled, classes, 3) == 1


def test_a_probe_that_standardises_columns_gives_the_same():
    """Its Gram matrices have a condition of 30 n / 0.01, about 1e6: an error of 1e6 eps |y|."""
    blocks = family(0)
    moments = moments_of(blocks)
    _, y, folds = planted(300, 5, 0)
    found = []
    for scale in ("none", "rms"):
        z = fit_chain(moments, scale=scale, dtype=torch.float64)([h[:300] for h in blocks])
        found.append(ridge_path(z, y, folds, widths=DIMS))
    assert torch.equal(found[0].chosen, found[1].chosen)
    assert torch.allclose(found[0].all_predictions, found[1].all_predictions, rtol=0, atol=1e-8)


# Through the commands


def run(command, monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["x", *arguments])
    command()


def error_bound(head: RDHead, raw: list[torch.Tensor]) -> torch.Tensor:
    """Of each number of z, between two float32 passes: "whiten" divides directions of next to no
    variance by their deviation, and with it what forward passes in other batches differ by.

    Two forward passes differ by at most 1e-5 of the largest value of a member (as the tests of the
    backbones have it), and so does, generously, a sum of the head from the sum of its terms.
    """
    unit, z, error = (
        1e-5,
        torch.zeros(len(raw[0]), 0).double(),
        torch.zeros(len(raw[0]), 0).double(),
    )
    for h, block in zip(raw, head.blocks, strict=True):
        projection, mapping, bias = (tensor.double() for tensor in block)
        terms = h.double().abs() @ projection.abs().mT + z.abs() @ mapping.abs().mT + bias.abs()
        of_input = unit * h.abs().max() * projection.abs().sum(dim=1)
        added = of_input + error @ mapping.abs().mT + unit * terms
        z = torch.cat([z, h.double() @ projection.mT + z @ mapping.mT + bias], dim=1)
        error = torch.cat([error, added], dim=1)
    return error


@pytest.mark.parametrize("scale", SCALES)
def test_fit_merge_embed_and_top_up(tmp_path, fasta, monkeypatch, capsys, scale):
    monkeypatch.chdir(tmp_path)
    sequences = random_sequences(40, 0)
    fasta(sequences)
    given = ("target=200K", "data.fasta=x.fasta", "out=run", f"scale={scale}")
    run(rd_fit, monkeypatch, *given)
    printed = capsys.readouterr().out
    assert printed.count(f"{scale}, each") == 2  # before and after
    head = RDHead.from_pretrained("run/head")
    assert head.report.scale == scale
    run(rd_merge, monkeypatch, "run", f"scale={scale}", "out=merged")
    assert RDHead.from_pretrained("merged/head").digest() == head.digest()
    run(rd_merge, monkeypatch, "run", "out=plain")
    plain = RDHead.from_pretrained("plain/head")
    assert plain.report.scale == "none"
    posthoc = scale_levels(plain, JointMoments.load("run/moments.safetensors"), scale)

    of = ("head=run/head", "fasta=x.fasta", "pooling=residue")
    run(rd_embed, monkeypatch, *of, "out=small.h5", "level=50K")
    run(rd_embed, monkeypatch, *of, "topup=small.h5", "level=200K")
    run(rd_embed, monkeypatch, *of, "out=whole.h5")
    model = RDModel("mini", plain)
    with h5py.File("small.h5") as topped, h5py.File("whole.h5") as whole, torch.no_grad():
        for i, sequence in enumerate(sequences):
            tokens = torch.from_numpy(model.family.tokenizer().encode([sequence.encode()]))
            raw = [backbone(tokens)[0, 1:-1] for backbone in model.backbones.values()]
            expected = head(raw)
            bound = error_bound(head, raw)
            for file in (topped, whole):
                found = torch.from_numpy(file[f"per-residue/s{i}"][:])
                assert ((found - expected).abs() <= bound).all()
            assert ((posthoc(raw) - expected).abs() <= bound).all()

    with pytest.raises(SystemExit):
        run(rd_fit, monkeypatch, *given[:-1], "resume=auto")
    assert f"with other options (scale: none now, {scale} there)" in capsys.readouterr().err


@pytest.mark.usefixtures("unchecked")
def test_a_word_that_is_no_scale_is_one_line(tmp_path, fasta, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    fasta(random_sequences(3, 0))
    with pytest.raises(SystemExit):
        run(rd_fit, monkeypatch, "data.fasta=x.fasta", "out=run", "scale=max")
    assert capfd.readouterr().err == "error: scale is none, rms or whiten, not 'max'\n"
    assert not Path("run").exists()
