import json
from dataclasses import asdict

import h5py
import numpy as np
import pytest
import torch

from rd_lightning import EmbeddingsDataModule, FastaDataModule, JointMoments, RDModule, fit_chain
from rd_lightning.distillation.regression import SecondMoments, regress
from rd_lightning.errors import InputError
from rd_lightning.fitting.checkpoint import FitCheckpoint
from rd_lightning.fitting.planned import PlannedDataModule
from rd_lightning.fitting.state import FitState

from ..conftest import random_sequences
from ..embedded_files import flat_files, own_files, raw_embeddings, rows_of
from .test_module import run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def records():
    return [(f"s{i}", sequence) for i, sequence in enumerate(random_sequences(60, 0))]


@pytest.fixture
def raw(family, records):
    return dict(zip("ABC", raw_embeddings(family, records), strict=True))


def equal(found: JointMoments, expected: JointMoments) -> bool:
    return torch.equal(found.state, expected.state) and torch.equal(found.shift, expected.shift)


def test_a_fit_from_files_equals_the_fit_from_fasta_bit_for_bit(
    family, records, raw, fasta, tmp_path
):
    """Each sequence is a batch of its own, so that the forward passes are of the same shapes; the
    files know the sequences, so that the same are held out."""
    options = {"tokens_per_batch": 1, "heldout": 0.2, "num_groups": 2, "num_sequences": 50}
    expected = run(RDModule(family), FastaDataModule(fasta(records), **options))
    data = EmbeddingsDataModule(own_files(tmp_path, raw, records), **options)
    module = run(RDModule(data.family), data)
    assert module.state.heldout.num_rows > 0
    assert all(group.num_rows for group in module.state.groups)
    for found, other in zip(module.state.all_moments, expected.state.all_moments, strict=True):
        assert equal(found, other)
    assert module.head.digest() == expected.head.digest()
    for stage, other in zip(module.head.report.stages, expected.head.report.stages, strict=True):
        assert asdict(stage) == asdict(other)  # with R2 on the held-out residues


def test_moments_are_those_of_the_rows_in_the_files(raw, records, tmp_path):
    """In float64, n sums of products in another order differ by at most n u times the sum of their
    sizes, a product has one rounding, and so has each centred number; about another shift, which
    is subtracted again, twice that. The sizes are bounded by the norms of the centred columns."""
    data = EmbeddingsDataModule(flat_files(tmp_path, raw), heldout=0, tokens_per_batch=200)
    module = run(RDModule(data.family, accumulate="float64"), data)
    rows = rows_of(list(raw.values()), [id for id, _ in records])
    expected = JointMoments((8, 12, 16), precision="float64").update(rows)
    n = expected.num_rows
    assert module.moments.num_rows == n == sum(len(sequence) for _, sequence in records)
    whole = torch.cat(rows, dim=1).double()
    norms = torch.stack([(whole - m.shift).norm(dim=0) for m in (module.moments, expected)])
    norms = norms.max(dim=0).values
    bound = 4 * (n + 4) * 2.0**-53 * torch.outer(norms, norms)
    assert ((module.moments.scatter - expected.scatter).abs() <= bound).all()
    assert bound.max() < 1e-9 * expected.scatter.abs().max()


def test_float16_files_differ_by_their_rounding_alone(raw, records, tmp_path):
    """A number is rounded by a share of 2^-11 (below 2^-14, by 2^-25): rows X become X + E with
    ||E|| <= 2^-11 ||H||, about the mean too, and covariances differ by 2 |X|_2 ||E|| + ||E||^2 over
    n - 1. Ridge regression B = (S + p)^-1 T then differs by Delta (1 + |B|_2) / p', where p' is the
    smallest eigenvalue of the new S + p."""
    fits = {}
    for dtype in ("float32", "float16"):
        files = flat_files(tmp_path, raw, dtype)
        data = EmbeddingsDataModule(files, heldout=0, tokens_per_batch=200)
        fits[dtype] = run(RDModule(data.family, accumulate="float64"), data).moments
    exact, rounded = fits["float32"], fits["float16"]
    n = exact.num_rows
    whole = torch.cat(rows_of(list(raw.values()), [id for id, _ in records]), dim=1).double()
    error = 2.0**-11 * whole.norm() + 2.0**-25 * whole.numel() ** 0.5
    spread = torch.linalg.matrix_norm(whole - whole.mean(dim=0), 2)
    delta = (2 * spread * error + error**2) / (n - 1)
    found = (rounded.covariance - exact.covariance).norm()
    assert 0 < found <= delta
    assert delta < 0.02 * exact.covariance.norm()

    maps, smallest = [], 0.0
    penalty = float(exact.covariance[:8, :8].trace()) / 8 * (n - 1)
    for moments in (exact, rounded):
        c = moments.covariance
        second = SecondMoments(c[:8, :8], c[:8, 8:20], c[8:20, 8:20])
        maps.append(regress(second, n, regression="ridge", ridge=penalty).coefficients)
        smallest = float(torch.linalg.eigvalsh(c[:8, :8])[0]) + penalty / (n - 1)
    bound = delta * (1 + torch.linalg.matrix_norm(maps[0], 2)) / smallest
    difference = maps[1] - maps[0]
    assert difference.norm() <= bound
    assert bound < 0.2 * maps[0].norm()
    # Predictions for residues that neither fit has seen.
    unseen = torch.randn(500, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert ((unseen @ difference).norm(dim=1) <= bound * unseen.norm(dim=1)).all()


def test_parts_add_up_and_a_run_resumes(raw, tmp_path):
    files = flat_files(tmp_path, raw)
    options = {"tokens_per_batch": 200, "heldout": 0.2}
    whole_data = EmbeddingsDataModule(files, **options)
    whole = run(RDModule(whole_data.family), whole_data)
    states = []
    for part in ("1/2", "2/2"):
        data = EmbeddingsDataModule(files, part=part, **options)
        module = run(RDModule(data.family), data)
        assert module.head is None
        states.append(module.state)
    total = states[0].clone().merge_(states[1])
    for found, expected in zip(total.all_moments, whole.state.all_moments, strict=True):
        assert found.num_rows == expected.num_rows
        torch.testing.assert_close(found.scatter, expected.scatter, rtol=1e-12, atol=1e-9)
    with pytest.raises(InputError, match="part 1 of 2 of these sequences is in already"):
        total.merge_(states[0])

    data = EmbeddingsDataModule(files, **options)
    stopped = RDModule(data.family)
    with pytest.raises(InputError, match="the trainer ended the stream"):
        run(stopped, data, callbacks=[FitCheckpoint(tmp_path / "c.st")], limit_train_batches=3)
    saved = FitState.load(tmp_path / "c.st")
    assert saved.parts[0].batches_done == 3
    data = EmbeddingsDataModule(files, **options)
    module, data.batches_done = RDModule(data.family), 3
    module.resume_from = saved
    run(module, data)
    torch.testing.assert_close(module.moments.scatter, whole.moments.scatter, rtol=1e-12, atol=1e-9)


def test_states_are_of_one_kind_of_files(raw, tmp_path):
    """Names, widths and dtypes must agree; the same proteins with other numbers are refused, as
    they would count twice, and a checkpoint of other numbers is that of another run."""
    options = {"heldout": 0, "tokens_per_batch": 500}
    states = {}
    for dtype in ("float32", "float16"):
        data = EmbeddingsDataModule(flat_files(tmp_path, raw, dtype), **options)
        states[dtype] = run(RDModule(data.family), data).state
    identity = states["float32"].identity
    assert identity["names"] == ["A", "B", "C"] and "family" not in identity
    assert identity["embeddings"]["B"] == {"width": 12, "dtype": "float32"}
    with pytest.raises(InputError, match=r"embeddings.A.dtype: float32 in one, float16 in"):
        states["float32"].merge_(states["float16"])

    other = {name: {id: 2 * rows for id, rows in by_id.items()} for name, by_id in raw.items()}
    data = EmbeddingsDataModule(flat_files(tmp_path, other), **options)
    module = RDModule(data.family)
    module.resume_from = states["float32"]
    with pytest.raises(InputError, match=r"resume: the state is of another run: settings.embedd"):
        run(module, data)
    data = EmbeddingsDataModule(flat_files(tmp_path, other), **options)
    again = run(RDModule(data.family), data).state
    with pytest.raises(InputError, match="the same sequences are in already, with another plan"):
        states["float32"].merge_(again)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loader_gives_every_residue_once_in_the_plans_order(raw, tmp_path, num_workers):
    data = EmbeddingsDataModule(
        flat_files(tmp_path, raw, "float16"),
        heldout=0.3,
        tokens_per_batch=150,
        max_residues=30,
        num_workers=num_workers,
    )
    module = run(RDModule(data.family), data)  # in a trainer, with the processes of the loader
    batches = [data.batch(i) for i in range(len(data.plan))]
    assert max(length for b in batches for _, _, length in b.windows) <= 30
    assert module.moments.num_rows == sum(b.num_residues for b in batches if b.group == 0)
    found = {}
    for batch in batches:
        assert [block.dtype for block in batch.blocks] == [torch.float16] * 3
        for k, block in enumerate(batch.blocks):
            rows = block.split([length for _, _, length in batch.windows])
            for (index, start, _), part in zip(batch.windows, rows, strict=True):
                found.setdefault((k, data.store.id(index)), []).append((start, part))
    for k, name in enumerate("ABC"):
        for id, expected in raw[name].items():
            parts = [rows for _, rows in sorted(found[k, id], key=lambda part: part[0])]
            assert torch.equal(torch.cat(parts), expected.half())


def test_numbers_that_are_not_finite_are_named_with_their_file(raw, tmp_path):
    raw["B"]["s7"][3, 2] = float("nan")
    files = flat_files(tmp_path, raw)
    data = EmbeddingsDataModule(files, heldout=0)
    with pytest.raises(
        InputError, match=r"B\.float32\.h5: .*s7 \(record \d+\).*; embed these again"
    ):
        run(RDModule(data.family), data)
    data = EmbeddingsDataModule(files, heldout=0)
    module = run(RDModule(data.family, on_nonfinite="skip"), data)
    assert module.num_nonfinite == 1
    assert module.moments.num_rows == sum(map(len, raw["A"].values())) - 1


def test_level_widths_and_scale_hold(raw, records, tmp_path):
    data = EmbeddingsDataModule(flat_files(tmp_path, raw), heldout=0)
    module = run(RDModule(data.family, "B", level_widths=(4, 10), scale="rms"), data)
    expected = fit_chain(module.moments, names=("A", "B"), level_widths=(4, 10), scale="rms")
    assert module.head.names == ("A", "B") and module.head.dims == (4, 10)
    assert module.head.digest() == expected.digest()


def test_the_report_names_files_and_what_they_hold(raw, tmp_path):
    data = EmbeddingsDataModule(flat_files(tmp_path, raw), heldout=0)
    context = run(RDModule(data.family), data).head.report.context
    json.dumps(context)
    assert "family" not in context and context["names"] == ["A", "B", "C"]
    files = context["embedding_files"]
    assert [files[name]["file"] for name in "ABC"] == [f"{n}.float32.h5" for n in "ABC"]
    assert len({files[name]["digest"] for name in "ABC"}) == 3


def test_module_and_data_are_of_one_kind(raw, family, tmp_path, fasta):
    data = EmbeddingsDataModule(flat_files(tmp_path, raw))
    with pytest.raises(InputError, match=r"make the module with RDModule\(data.family\)"):
        run(RDModule(family), data)
    with pytest.raises(InputError, match="give the fit the EmbeddingsDataModule"):
        run(RDModule(data.family), FastaDataModule(fasta(random_sequences(9, 0))))
    with pytest.raises(InputError, match="no model"):
        data.family.load(data.family.members[0], None)


def test_widths_that_do_not_grow_are_refused_before_anything_is_read(raw, tmp_path):
    files = flat_files(tmp_path, {"B": raw["B"], "A": raw["A"]})
    with pytest.raises(InputError, match="keep"):
        RDModule(EmbeddingsDataModule(files).family)


def test_copies_of_a_sequence_stay_together_where_the_file_knows_them(raw, records, tmp_path):
    """By the digest of the sequence; a flat file has ids alone, and chooses by these."""
    copies = [(f"{id}-{i}", sequence) for i in range(2) for id, sequence in records]
    twice = {n: {f"{id}-{i}": r for i in range(2) for id, r in v.items()} for n, v in raw.items()}
    for files, together in (
        (own_files(tmp_path, twice, copies), True),
        (flat_files(tmp_path, twice), False),
    ):
        data = EmbeddingsDataModule(files, heldout=0.5)
        plan = data.scan("cpu")
        held = {
            data.store.id(i)
            for b in range(len(plan))
            if plan.group[b] < 0
            for i, _, _ in plan.windows(b)
        }
        pairs = [{f"{id}-0" in held, f"{id}-1" in held} for id, _ in records]
        assert all(len(pair) == 1 for pair in pairs) == together
        assert 0 < len(held) < len(copies)


def test_reading_time_is_measured(raw, tmp_path):
    data = EmbeddingsDataModule(flat_files(tmp_path, raw))
    data.scan("cpu")
    assert 0 < data.reading_seconds() < 60
    assert isinstance(data, PlannedDataModule)


def test_a_file_of_wide_floats_is_added_in_float64(raw, records, tmp_path):
    files = flat_files(tmp_path, raw, "float64")
    data = EmbeddingsDataModule(files, heldout=0)
    found = run(RDModule(data.family), data).moments
    data = EmbeddingsDataModule(flat_files(tmp_path, raw), heldout=0)
    expected = run(RDModule(data.family, accumulate="float64"), data).moments
    assert equal(found, expected)


def test_a_record_cut_short_is_named(raw, tmp_path):
    paths = own_files(tmp_path, raw, [(id, "A" * len(rows)) for id, rows in raw["A"].items()])
    with h5py.File(paths["C"], "r+") as file:
        rows = file["per-residue/s3"][:-1]
        del file["per-residue/s3"]
        file["per-residue/s3"] = np.ascontiguousarray(rows)
    data = EmbeddingsDataModule(paths, heldout=0)
    with pytest.raises(InputError, match=r"C\.own\.h5: s3 \(record 4\) has \d+ rows"):
        run(RDModule(data.family), data)
