import h5py
import numpy as np
import pytest
import torch

from rd_lightning import JointMoments, RDHead, fit_chain
from rd_lightning.display.console import plain_console
from rd_lightning.embedding.from_files import FilesJob
from rd_lightning.embedding.job import EmbedOptions
from rd_lightning.errors import InputError
from rd_lightning.formats import open_vectors

from ..conftest import family_rows, random_sequences
from ..embedded_files import flat_files, own_files

DIMS = (8, 12, 16)


@pytest.fixture
def head(tmp_path) -> RDHead:
    moments = JointMoments(DIMS).update(family_rows(600, DIMS, 0))
    found = fit_chain(moments, names=("A", "B", "C"))
    found.save_pretrained(tmp_path / "head")
    return found


@pytest.fixture
def records():
    return [(f"s{i}", sequence) for i, sequence in enumerate(random_sequences(30, 0))]


@pytest.fixture
def raw(records):
    lengths = [len(sequence) for _, sequence in records]
    blocks = family_rows(sum(lengths), DIMS, 1)
    return {
        name: dict(zip([id for id, _ in records], block.float().split(lengths), strict=True))
        for name, block in zip("ABC", blocks, strict=True)
    }


def run(tmp_path, embeddings, **options) -> dict[str, dict[str, np.ndarray]]:
    """By pooling and id."""
    out = tmp_path / "emb.h5"
    options = {"head": str(tmp_path / "head"), "out": str(out), **options}
    job = FilesJob(EmbedOptions(**options), embeddings, torch.device("cpu"))
    job.run(plain_console(), preflight=False)
    found = {}
    with open_vectors(out) as reader:
        for pooling in reader.poolings:
            rows = reader.residues if pooling != "mean" else None
            found[pooling] = {
                id: rows(i, pooling=pooling) if rows else reader.vectors("mean", i, i + 1)[0]
                for i, id in enumerate(reader.ids)
            }
    return found


def test_vectors_are_those_of_the_head(head, raw, tmp_path):
    """Float32 rounding of means and products of 8 to 16 numbers of size 1."""
    found = run(tmp_path, flat_files(tmp_path, raw), pooling=["mean", "residue", "energy"])
    assert set(found) == {"mean", "residue", "energy"}
    for id in raw["A"]:
        nested = head([raw[name][id] for name in "ABC"])
        assert np.allclose(found["residue"][id], nested.numpy(), atol=1e-5)
        assert np.allclose(found["mean"][id], nested.mean(0).numpy(), atol=1e-5)
        assert found["energy"][id].shape == (len(nested), 2)
        assert np.allclose(found["energy"][id].sum(1), 1, atol=1e-5)
        assert np.array_equal(found["residue"][id][:, :8], raw["A"][id].numpy())


def test_means_are_enough_for_means(head, raw, tmp_path):
    """The head is affine."""
    means = {n: {id: rows.mean(0) for id, rows in by_id.items()} for n, by_id in raw.items()}
    found = run(tmp_path, flat_files(tmp_path, means))["mean"]
    assert found.keys() == raw["A"].keys()
    for id, vector in found.items():
        expected = head([raw[name][id] for name in "ABC"]).mean(0)
        assert np.allclose(vector, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "width"), [({"level": "B"}, 12), ({"width": 10}, 10), ({"width": 3}, 3)]
)
def test_a_level_needs_its_members_alone(head, raw, tmp_path, options, width):
    files = flat_files(tmp_path, raw)
    del files["C"]
    found = run(tmp_path, files, **options)["mean"]
    expected = head([raw[name]["s3"] for name in "ABC"]).mean(0)[:width]
    assert np.allclose(found["s3"], expected.numpy(), atol=1e-5)
    (tmp_path / "emb.h5").unlink()
    with pytest.raises(InputError, match="no file of C, which C needs"):
        run(tmp_path, files)


def test_blocks_do_not_change_a_bit(head, raw, tmp_path, monkeypatch):
    files = flat_files(tmp_path, raw)
    whole = run(tmp_path, files, pooling="residue")["residue"]
    (tmp_path / "emb.h5").unlink()
    monkeypatch.setattr("rd_lightning.embedding.from_files._ROWS", 40)
    parts = run(tmp_path, files, pooling="residue")["residue"]
    assert whole.keys() == parts.keys()
    for id in whole:  # products of other shapes: float32 rounding
        assert np.allclose(whole[id], parts[id], atol=1e-5)


def test_the_file_says_what_it_is_of(head, raw, records, tmp_path):
    run(tmp_path, own_files(tmp_path, raw, records), dtype="float16")
    with open_vectors(tmp_path / "emb.h5") as reader:
        assert reader.levels == ("A", "B", "C") and reader.dims == DIMS
        assert reader.metadata["head_digest"] == head.digest()
        assert reader.metadata["embeddings"]["B"]["dtype"] == "float32"
        assert reader.dtype == np.float16
        with open_vectors(tmp_path / "A.own.h5") as first:
            assert np.array_equal(reader.digests, first.digests)
            assert np.array_equal(reader.lengths, first.lengths)
            assert list(reader.ids) == list(first.ids)


def test_proteins_that_a_file_lacks_are_skipped_and_listed(head, raw, tmp_path):
    del raw["B"]["s4"]
    files = flat_files(tmp_path, raw)
    with pytest.raises(InputError, match=r"\(s4\): not in"):
        run(tmp_path, files)
    assert not (tmp_path / "emb.h5").exists()
    assert "s4" not in run(tmp_path, files, on_invalid="skip")["mean"]
    assert "s4" in (tmp_path / "emb.h5.skipped.tsv").read_text()


def test_bad_input_is_a_line_and_leaves_nothing(head, raw, tmp_path):
    files = flat_files(tmp_path, raw)
    others = {"D": files["C"]}
    swapped = {"A": files["B"], "B": files["A"], "C": files["C"]}
    raw["C"]["s2"][0, 0] = float("inf")
    infinite = {**files, "C": flat_files(tmp_path, {"C": raw["C"]}, "float64")["C"]}
    for embeddings, options, message in (
        (others, {}, "D is no member of the head, which has A, B, C"),
        (swapped, {}, "12 columns, but the head's A has 8"),
        (infinite, {}, r"NaN or infinity in the mean vectors of s2"),
        (files, {"pooling": "bos"}, "pooling=bos: files of embeddings hold residues"),
        (files, {"out": str(tmp_path / "x.parquet"), "pooling": "residue"}, "parquet .*holds mean"),
        (files, {"dtype": "int3"}, "dtype is"),
        (files, {"head": None}, "head is missing"),
        (files, {"out": None}, "out is missing"),
    ):
        with pytest.raises(InputError, match=message):
            run(tmp_path, embeddings, **options)
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith((".emb", "emb", "x."))]


def test_an_existing_output_stays(head, raw, tmp_path):
    files = flat_files(tmp_path, raw)
    run(tmp_path, files)
    before = (tmp_path / "emb.h5").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        run(tmp_path, files)
    assert (tmp_path / "emb.h5").read_bytes() == before


def test_half_precision_that_overflows_is_said(head, raw, tmp_path):
    raw["A"]["s2"] *= 1e6
    with pytest.raises(InputError, match=r"s2 \(record \d+\) as float16; .*dtype=float32"):
        run(tmp_path, flat_files(tmp_path, raw), dtype="float16")


def test_another_format(head, raw, tmp_path):
    run_out = tmp_path / "folder"
    options = EmbedOptions(
        head=str(tmp_path / "head"), out=str(run_out), format="npy", pooling="residue"
    )
    job = FilesJob(options, flat_files(tmp_path, raw), torch.device("cpu"))
    job.run(plain_console(), preflight=True)
    assert not run_out.exists()
    job.run(plain_console(), preflight=False)
    with open_vectors(run_out) as reader, h5py.File(tmp_path / "A.float32.h5") as first:
        for i, id in enumerate(reader.ids):
            assert np.array_equal(reader.residues(i)[:, :8], first[id][:])
