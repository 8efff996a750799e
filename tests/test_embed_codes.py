"""rd-embed dtype=int8 | int4 | binary as a user types it."""

import json

import numpy as np
import pytest
import torch

from rd_lightning import JointMoments, RDModel, fit_chain
from rd_lightning.data.fasta import read_records
from rd_lightning.distillation.scale import column_moments
from rd_lightning.embed import main
from rd_lightning.families import sample_fasta
from rd_lightning.formats import open_vectors
from rd_lightning.formats.codec import CODE_KINDS, STEPS

from .conftest import family_rows, random_sequences, run_here

NAMES, DIMS = ("50K", "200K", "800K"), (32, 64, 128)
GIVEN = ("head=fit/head", "fasta=x.fasta", "tokens_per_batch=256")
POOLINGS = "pooling=[mean,bos,residue]"
NUMBER = 40
kinds = pytest.mark.parametrize("kind", CODE_KINDS)


def fit(folder, seed: int) -> None:
    moments = JointMoments(DIMS).update(family_rows(600, DIMS, seed))
    moments.save(folder / "moments.safetensors")
    head = fit_chain(moments, names=NAMES, context={"family": "mini"})
    head.save_pretrained(folder / "head")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two heads of the bundled family, sequences of which one is there twice, and files of them:
    whole.h5 in float32 and, of every kind of codes, such as int8.h5."""
    folder = tmp_path_factory.mktemp("codes")
    for seed, name in enumerate(("fit", "other")):
        (folder / name).mkdir()
        fit(folder / name, seed)
    sequences = random_sequences(40, 3, longest=40)
    sequences[7] = sequences[3]
    (folder / "x.fasta").write_text("".join(f">s{i}\n{s}\n" for i, s in enumerate(sequences)))
    embed(folder, "out=whole.h5", POOLINGS)
    for kind in CODE_KINDS:
        (folder / f"{kind}.txt").write_text(
            embed(folder, f"out={kind}.h5", f"dtype={kind}", POOLINGS)
        )
    return folder


def embed(folder, *words: str, status: int = 0) -> str:
    found, said = run_here(main, folder, "rd-embed", *GIVEN, *words)
    assert found == status, said
    return said


def check_codes(folder, out: str) -> None:
    """That a file holds the codes of whole.h5, of the scales of its distinct sequences."""
    sequences = (folder / "x.fasta").read_text().split()[1::2]
    distinct = [i for i, sequence in enumerate(sequences) if sequence not in sequences[:i]]
    assert len(distinct) == 37
    with open_vectors(folder / "whole.h5") as whole, open_vectors(folder / out) as found:
        assert found.ids == whole.ids
        kind = found.metadata["dtype"]
        assert found.metadata["codecs"] == {p: c.digest() for p, c in found.codecs.items()}
        assert set(found.codecs) == set(found.poolings)
        for pooling, codec in found.codecs.items():
            assert codec.kind == kind
            if pooling == "residue":
                rows = np.concatenate([whole.residues(i) for i in distinct])
                for i in range(40):
                    assert np.array_equal(found.residue_codes(i), codec.encode(whole.residues(i)))
            else:
                rows = whole.vectors(pooling, 0, 40)
                assert np.array_equal(found.codes(pooling, 0, 40), codec.encode(rows))
                rows = rows[distinct]
            wide, eps = rows.astype(np.float64), np.finfo(np.float32).eps
            # Rounded to float32 once each; sums in float64 are closer than that by far.
            assert np.abs(codec.centre - wide.mean(0)).max() <= eps * np.abs(wide).max()
            expected = STEPS[kind] * wide.std(0)
            assert (np.abs(codec.scale - expected) <= eps * expected).all()


@kinds
def test_the_codes_are_those_of_the_float32_vectors(folder, kind):
    check_codes(folder, f"{kind}.h5")
    said = " ".join((folder / f"{kind}.txt").read_text().split())
    form = f"hdf5 (layout uniprot), mean and bos and residue, {kind}"
    assert f"format {form} scales of these vectors disk" in said
    assert "(float32 until the end, then codes)" in said
    assert "scales of mean: 100%, 37 of 37 sequences" in said


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("table.parquet", ("dtype=int4", "pooling=[mean,bos]")),
        ("folder", ("dtype=binary", "format=npy", "pooling=[mean,bos,residue]")),
    ],
)
def test_other_formats_hold_them(folder, out, words):
    embed(folder, f"out={out}", *words)
    check_codes(folder, out)


@kinds
def test_a_narrower_run_has_the_prefix_of_the_codes(folder, kind):
    """Of a width that ends inside a byte, in the second level."""
    embed(folder, f"out=narrow_{kind}.h5", f"dtype={kind}", "width=61")
    with (
        open_vectors(folder / f"{kind}.h5") as whole,
        open_vectors(folder / f"narrow_{kind}.h5") as narrow,
    ):
        assert narrow.codecs["mean"].digest() == whole.codecs["mean"].truncate(61).digest()
        assert np.array_equal(narrow.codes("mean", 0, 40), whole.codes("mean", 0, 40, 61))
        assert np.array_equal(narrow.vectors("mean", 0, 40), whole.vectors("mean", 0, 40, 61))


def test_parts_have_the_scales_of_the_whole(folder):
    embed(folder, "out=parts.h5", "dtype=int4", "assemble=false")
    for i in (2, 1):
        embed(folder, "out=parts.h5", "dtype=int4", f"assemble={i}/2")
    assert not (folder / "parts.h5.unfinished").exists()
    with open_vectors(folder / "int4.h5") as whole:
        codes = []
        for i in (1, 2):
            with open_vectors(folder / f"parts.{i}of2.h5") as part:
                assert part.codecs["mean"].digest() == whole.codecs["mean"].digest()
                codes.append(part.codes("mean", 0, len(part.ids)))
        assert np.array_equal(np.concatenate(codes), whole.codes("mean", 0, 40))


def test_scales_of_their_own_need_every_vector(folder):
    """Also of a part that has its own; scales that are given do not."""
    embed(folder, "out=part.h5", "dtype=int8", "assemble=false")
    log = folder / "part.h5.unfinished/done.0"
    numbers = np.frombuffer(log.read_bytes(), np.uint32)
    log.write_bytes(numbers[numbers != numbers.max()].tobytes())
    said = embed(folder, "out=part.h5", "dtype=int8", "assemble=1/2", status=1)
    assert "the vectors of 1 of 37 distinct sequences are missing" in " ".join(said.split())
    embed(folder, "out=part.h5", "dtype=int8", "assemble=1/2", "scales=int8.h5")


def test_scales_of_an_earlier_file(folder):
    """Of more columns, for other sequences: the codes of the two compare."""
    text = (folder / "x.fasta").read_text().split(">")[1:6]
    (folder / "y.fasta").write_text("".join(f">{record}" for record in text))
    words = ("dtype=int4", "scales=int4.h5", "fasta=y.fasta", "width=61")
    said = embed(folder, "out=few", "format=npy", *words)
    assert "scales of int4.h5" in " ".join(said.split())
    assert "scales of mean" not in said, "nothing is measured"
    with open_vectors(folder / "int4.h5") as early, open_vectors(folder / "few") as few:
        codec = few.codecs["mean"]
        assert codec.digest() == early.codecs["mean"].truncate(61).digest()
        # In other batches vectors agree to 1e-5: at the edge of a step a code is the next one.
        apart = np.abs(few.vectors("mean", 0, 5) - early.vectors("mean", 0, 5, 61))
        assert (apart <= codec.scale * 1.001).all()


def test_scales_of_moments(folder):
    """Those of the head's columns over the residues of the fit, at any width, without a pass."""
    words = ("dtype=int4", "pooling=[residue,energy]", "scales=fit", "width=100")
    said = embed(folder, "out=m.h5", *words)
    assert "scales of fit" in " ".join(said.split()) and "scales of residue:" not in said
    model = RDModel.from_pretrained(folder / "fit" / "head")
    moments = JointMoments.load(folder / "fit" / "moments.safetensors")
    mean, deviation = (x[:100].numpy() for x in column_moments(model.head, moments))
    with open_vectors(folder / "m.h5") as found, open_vectors(folder / "whole.h5") as whole:
        codec = found.codecs["residue"]
        assert np.array_equal(codec.centre, mean.astype(np.float32))
        assert np.array_equal(codec.scale, (STEPS["int4"] * deviation).astype(np.float32))
        for i in range(40):
            assert np.array_equal(found.residue_codes(i), codec.encode(whole.residues(i, 100)))


@kinds
def test_a_file_of_codes_is_topped_up(folder, kind):
    """The old columns keep codes and scales; the new ones get their own."""
    embed(folder, f"out=top_{kind}.h5", f"dtype={kind}", "level=50K")
    said = embed(folder, f"topup=top_{kind}.h5", f"out=up_{kind}.h5")
    assert f"of columns 1 to 32, those of top_{kind}.h5" in " ".join(said.split())
    with (
        open_vectors(folder / f"top_{kind}.h5") as old,
        open_vectors(folder / f"up_{kind}.h5") as up,
        open_vectors(folder / f"{kind}.h5") as direct,
    ):
        assert up.codecs["mean"].truncate(32).digest() == old.codecs["mean"].digest()
        assert np.array_equal(up.codes("mean", 0, 40, 32), old.codes("mean", 0, 40))
        assert up.codecs["mean"].digest() == direct.codecs["mean"].digest()
        assert np.array_equal(up.codes("mean", 0, 40), direct.codes("mean", 0, 40))


def test_neighbours_that_int8_must_keep(tmp_path):
    """Real sequences. x and its decoded x' are apart by an angle of asin(|x' - x| / |x|) at most,
    so a cosine changes by the sum of both angles at most, and a neighbour whose cosine is above
    that of the first that is none by more than the changes of both stays one."""
    records = [r for r in read_records(sample_fasta()) if len(r.letters) <= 150][:40]
    fit(tmp_path, 0)
    text = "".join(f">{r.id}\n{r.letters}\n" for r in records)
    (tmp_path / "x.fasta").write_text(text)
    for dtype in ("float32", "int8"):
        words = ("head=head", "fasta=x.fasta", f"out={dtype}.h5", f"dtype={dtype}")
        assert run_here(main, tmp_path, "rd-embed", *words)[0] == 0
    with open_vectors(tmp_path / "int8.h5") as file:
        codec, found = file.codecs["mean"], file.vectors("mean", 0, NUMBER).astype(np.float64)
    with open_vectors(tmp_path / "float32.h5") as file:
        exact = file.vectors("mean", 0, NUMBER).astype(np.float64)
    x, y = ((z - codec.centre) / codec.scale for z in (exact, found))
    norms = np.linalg.norm(x, axis=1)
    angle = np.arcsin(np.linalg.norm(y - x, axis=1) / norms)
    cosines = (x @ x.T) / norms / norms[:, None]
    other = (y @ y.T) / np.linalg.norm(y, axis=1) / np.linalg.norm(y, axis=1)[:, None]
    change = angle + angle[:, None]
    assert (np.abs(other - cosines) <= change + 1e-12).all()
    kept, certain = 0, 0
    for i in range(NUMBER):
        order = [j for j in np.argsort(-cosines[i], kind="stable") if j != i]
        near = {j for j in np.argsort(-other[i], kind="stable")[:11] if j != i}
        largest = max(cosines[i, j] + change[i, j] for j in order[10:])
        must = {j for j in order[:10] if cosines[i, j] - change[i, j] > largest}
        assert must <= near
        kept, certain = kept + len(near & set(order[:10])), certain + len(must)
    assert kept >= certain >= NUMBER, "a neighbour a protein at least is certain"


BAD = {
    "out=b.h5 dtype=int2": "dtype is float32, float16, bfloat16, int8, int4 or binary, not 'int2'",
    "out=b format=pt dtype=int8": "pt holds no codes (dtype=int8); use out=emb.h5, out=emb.parq",
    "out=b.h5 scales=fit": "scales=fit is of codes: dtype=int8 | int4 | binary",
    "out=b.h5 dtype=int8 scales=fit": "moments are of residues, and mean vectors vary otherwise",
    "out=b.h5 dtype=int8 scales=none.h5": "none.h5: no such file",
    "out=b.h5 dtype=int8 scales=whole.h5": "whole.h5 holds no int8 codes of mean vectors",
    "out=b.h5 dtype=int4 scales=bad_int8.h5": "bad_int8.h5 holds no int4 codes of mean vectors",
    "out=b.h5 dtype=int8 scales=bad_int8.h5": "has scales of 32 columns, and 128 are needed",
    "out=b.h5 dtype=int8 head=other/head scales=int8.h5": "int8.h5 was made with another head",
    "out=b.h5 dtype=int8 pooling=bos scales=bad_int8.h5": "holds no int8 codes of bos vectors",
    "out=b.h5 dtype=int8 pooling=residue scales=no.safetensors": "no.safetensors: no such file",
    "out=b.h5 dtype=int8 pooling=residue scales=short": "the moments are of [32, 64]; give the",
}


@pytest.fixture(scope="module")
def bad(folder):
    embed(folder, "out=bad_int8.h5", "dtype=int8", "level=50K")
    (folder / "short").mkdir()
    short = JointMoments(DIMS[:2]).update(family_rows(50, DIMS[:2], 0))
    short.save(folder / "short" / "moments.safetensors")
    return folder


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_line(bad, words):
    before = sorted(p.name for p in bad.iterdir())
    said = embed(bad, *words.split(), status=1).strip()
    assert said.startswith("error: ") and BAD[words] in said
    assert len(said.splitlines()) == 1
    assert sorted(p.name for p in bad.iterdir()) == before


def test_a_top_up_of_a_file_without_its_scales_is_one_line(bad):
    import h5py

    (bad / "lost.h5").write_bytes((bad / "bad_int8.h5").read_bytes())
    with h5py.File(bad / "lost.h5", "r+") as file:
        del file["per-protein"].attrs["codec"]
    said = embed(bad, "topup=lost.h5", "out=b.h5", status=1)
    assert "lost.h5 holds no int8 codes of mean vectors" in said


def test_columns_that_are_constant_come_back_whole(bad):
    """Those of one protein: each is its centre, and decodes to the float32 number."""
    record = (bad / "x.fasta").read_text().split(">")[1]
    (bad / "one.fasta").write_text(f">{record}")
    for dtype in ("float32", "binary"):
        embed(bad, "fasta=one.fasta", f"out=one_{dtype}.parquet", f"dtype={dtype}")
    with (
        open_vectors(bad / "one_float32.parquet") as exact,
        open_vectors(bad / "one_binary.parquet") as codes,
    ):
        assert not codes.codecs["mean"].scale.any()
        assert np.array_equal(codes.vectors("mean", 0, 1), exact.vectors("mean", 0, 1))


def test_preflight_counts_the_bytes_of_codes(folder):
    """During the run float32, then the file: 128 columns are 512 bytes, and 16 as binary codes."""
    from rd_lightning.embedding.spool import num_bytes

    lengths, poolings = np.array([3, 5]), ("mean", "residue", "energy")
    about = (lengths, 128, torch.float32, poolings)
    energies = 8 * 2 * 4
    assert num_bytes(*about, energies=2) == 10 * 512 + energies
    assert num_bytes(*about, energies=2, code="binary") == 10 * 16 + energies
    assert num_bytes(*about, energies=2, code="int4") == 10 * 64 + energies
    embed(folder, "out=p.h5", "dtype=int8", "preflight=true")
    assert not (folder / "p.h5").exists()


def test_the_description_is_json_of_every_codec(folder):
    embed(folder, "out=desc", "format=npy", "dtype=int8")
    about = json.loads((folder / "desc" / "metadata.json").read_text())
    assert about["dtype"] == "int8" and set(about["codecs"]) == {"mean"}
