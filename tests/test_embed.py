"""rd-embed as a user types it: what it writes, what it resumes, what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from rd_lightning import JointMoments, RDModel, fit_chain
from rd_lightning.data.fasta import clean, read_records
from rd_lightning.data.scan import scan_fasta
from rd_lightning.data.unique import find_unique
from rd_lightning.embed import main
from rd_lightning.embedding.nested_model import NestedModel
from rd_lightning.formats.hdf5 import HDF5Writer
from rd_lightning.runtime.files import safe_name

from .conftest import clean_environment, family_rows, random_sequences

TIMEOUT = 240
SETTINGS = ("head=head", "tokens_per_batch=256")


def command(*overrides: str) -> list[str]:
    return [sys.executable, "-m", "rd_lightning.embed", *SETTINGS, *overrides]


def rd_embed(folder: Path, *overrides: str) -> str:
    return succeed(folder, command(*overrides))


def succeed(folder: Path, arguments: list[str]) -> str:
    """Its standard output."""
    done = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=clean_environment(),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A head of the bundled family, sequences, and an undisturbed run."""
    folder = tmp_path_factory.mktemp("embed")
    moments = JointMoments((32, 64, 128)).update(family_rows(600, (32, 64, 128), 0))
    names = ("50K", "200K", "800K")
    fit_chain(moments, names=names, context={"family": "mini"}).save_pretrained(folder / "head")
    sequences = random_sequences(150, 3, longest=120)
    sequences[7] = sequences[140] = sequences[3]
    sequences[9] = "ACDEFGHIKL" * 130
    text = "".join(f">s{i}\n{s}\n" for i, s in enumerate(sequences))
    (folder / "x.fasta").write_text(text)
    rd_embed(folder, "fasta=x.fasta", "out=whole.h5", "pooling=[mean,bos,residue]")
    return folder


@pytest.fixture
def inside(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def content(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        index = file["rd_lightning/index"]
        found = {f"{g}/{k}": file[g][k][:] for g in file if g != "rd_lightning" for k in file[g]}
        return {**found, "ids": index["id"][:], "digests": index["digest"][:]}


def assert_equal(one: Path, two: Path) -> None:
    a, b = content(one), content(two)
    assert a.keys() == b.keys()
    for key in a:
        assert np.array_equal(a[key], b[key]), key


def test_every_vector_is_the_models(folder):
    records = [(r.id, r.letters) for r in read_records(folder / "x.fasta")]
    model = RDModel.from_pretrained(folder / "head")
    sequences = [s for _, s in records]
    expected = model.embed(sequences, pooling=["mean", "bos", "residue"])
    with h5py.File(folder / "whole.h5") as file:
        assert file["rd_lightning/index/id"].asstr()[:].tolist() == [id for id, _ in records]
        for i, (id, _) in enumerate(records):
            for group, pooling in (
                ("per-protein", "mean"),
                ("bos", "bos"),
                ("per-residue", "residue"),
            ):
                found = torch.from_numpy(file[group][id][:])
                assert (found - expected[pooling][i]).abs().max() < 1e-5
        metadata = json.loads(file.attrs["rd_lightning"])
    assert metadata["family"] == "mini"
    assert metadata["levels"] == ["50K", "200K", "800K"]
    assert metadata["head_digest"] == model.head.digest()
    assert metadata["weights"] == model.weight_digests()
    assert metadata["versions"]["torch"] == torch.__version__
    left = {p.name for p in folder.iterdir()}
    assert not [name for name in left if "unfinished" in name or "partial" in name]


def test_kill_9_then_go_on(folder):
    """Again and again, until a run ends by itself; the file is that of an undisturbed run."""
    options = ("fasta=x.fasta", "out=killed.h5", "pooling=[mean,bos,residue]")
    log = folder / "killed.h5.unfinished" / "done.0"
    killed = 0
    for _ in range(3):
        before = log.stat().st_size if log.exists() else 0
        process = subprocess.Popen(
            command(*options),
            env=clean_environment(),
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + TIMEOUT
        while process.poll() is None and time.monotonic() < deadline:
            if log.exists() and log.stat().st_size >= before + 8:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.001)
        killed += process.wait(TIMEOUT) == -signal.SIGKILL
    assert killed >= 1
    assert not (folder / "killed.h5").exists()
    said = rd_embed(folder, *options)
    assert "resuming an earlier run" in said
    assert_equal(folder / "killed.h5", folder / "whole.h5")


def test_two_ranks_are_one(folder):
    options = ("fasta=x.fasta", "out=two.h5", "pooling=[mean,bos,residue]")
    rd_embed(folder, *options, "trainer=ddp_cpu")
    assert_equal(folder / "two.h5", folder / "whole.h5")


def test_one_device_needs_no_lightning(folder):
    """The same bits as under a Trainer, which any setting of its own asks for."""
    code = (
        "import sys; from rd_lightning.embed import main; main(); print('lightning' in sys.modules)"
    )
    loaded = {}
    for out, setting in (("without.h5", ()), ("with.h5", ("+trainer.limit_predict_batches=1.0",))):
        arguments = [*SETTINGS, "fasta=x.fasta", f"out={out}", "pooling=[mean,bos,residue]"]
        said = succeed(folder, [sys.executable, "-c", code, *arguments, *setting])
        loaded[out] = said.splitlines()[-1]
        assert_equal(folder / out, folder / "whole.h5")
    assert loaded == {"without.h5": "False", "with.h5": "True"}


def test_interrupted_it_says_so_and_goes_on(inside, argv, capsys, monkeypatch):
    predict, seen = NestedModel.predict, []

    def interrupted(self, batch, name):
        seen.append(batch.number)
        if len(seen) == 20:
            raise KeyboardInterrupt
        return predict(self, batch, name)

    monkeypatch.setattr(NestedModel, "predict", interrupted)
    with pytest.raises(SystemExit) as stopped:
        run_here("fasta=x.fasta", "out=interrupted.h5")
    assert stopped.value.code == 130
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "interrupted; the same command resumes there"
    assert not (inside / "interrupted.h5").exists()
    run_here("fasta=x.fasta", "out=interrupted.h5")
    assert "resuming an earlier run" in capsys.readouterr().out
    with h5py.File("interrupted.h5") as one, h5py.File("whole.h5") as two:
        for id in two["per-protein"]:
            assert np.array_equal(one["per-protein"][id][:], two["per-protein"][id][:])


@pytest.mark.slow
def test_two_ranks_with_one_sequence(folder):
    (folder / "one.fasta").write_text(">a\nMKTAYIAKQR\n")
    rd_embed(folder, "fasta=one.fasta", "out=one.h5", "trainer=ddp_cpu")
    assert content(folder / "one.h5")["per-protein/a"].shape == (128,)


def run_here(*overrides: str) -> None:
    """In this process, which has torch loaded already."""
    sys.argv = ["rd-embed", *SETTINGS, *overrides]
    main()


@pytest.fixture
def argv(monkeypatch):
    monkeypatch.setattr(sys, "argv", list(sys.argv))


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_top_up_from_the_first_to_the_third(inside, argv, dtype):
    options = ("fasta=x.fasta", f"dtype={dtype}")
    first, third, direct = (f"{n}-{dtype}.h5" for n in ("first", "third", "direct"))
    several = "pooling=[mean,bos,residue]"
    run_here(*options, f"out={first}", "level=50K", several)
    run_here(*options, f"out={direct}", several)
    before = content(inside / first)
    run_here("fasta=x.fasta", f"topup={first}", f"out={third}")
    run_here("fasta=x.fasta", f"topup={first}", "level=200K")  # in place, one level at a time
    run_here("fasta=x.fasta", f"topup={first}", "level=800K")
    expected = content(inside / direct)
    for name in (first, third):
        after = content(inside / name)
        assert after.keys() == expected.keys()
        for key in expected:
            if "/" not in key:
                assert np.array_equal(after[key], expected[key])
                continue
            assert np.array_equal(after[key][..., :32], before[key])
            scale = 1e-5 if dtype == "float32" else 0.01 * abs(expected[key]).max()
            assert abs(after[key] - expected[key]).max() <= scale
    metadata = json.loads(h5py.File(inside / first).attrs["rd_lightning"])
    assert metadata["levels"] == ["50K", "200K", "800K"]


@pytest.mark.slow
def test_ten_thousand_records_of_all_kinds(inside, argv):
    """Duplicate sequences, odd ids, empty and invalid ones: each embedded or listed."""
    generator = np.random.default_rng(0)
    kinds = random_sequences(300, 5, longest=12)
    odd = ["sp|P{}|X/../y", "ünï{}", "../../{}", "a b {}", "{}%2F", ".{}", "x{}", "日本{}"]
    lines, good, bad = [], {}, 0
    for i in range(10_000):
        id = odd[i % len(odd)].format(i)
        sequence = kinds[generator.integers(len(kinds))]
        if i % 97 == 0:
            sequence, problem = "", True
        elif i % 89 == 0:
            sequence, problem = sequence + "1", True
        elif i % 83 == 0 and i > 83:
            id, problem = "x6", True
        else:
            problem = False
        key = id.split()[0] if id.split()[0] != "a" else None
        if key is None:
            id = id.replace(" ", "_") + " and a description"
            key = id.split()[0]
        bad += problem
        if not problem:
            good[key] = sequence
        lines.append(f">{id}\n{sequence.lower() if i % 5 == 0 else sequence}\n")
    (inside / "messy.fasta").write_text("".join(lines), encoding="utf-8")
    run_here("fasta=messy.fasta", "out=messy.h5", "on_invalid=skip", "level=50K")
    found = content(inside / "messy.h5")
    listed = (inside / "messy.h5.skipped.tsv").read_text(encoding="utf-8").splitlines()[1:]
    assert [id.decode() for id in found["ids"]] == list(good)
    assert len(listed) == bad
    assert len(good) + bad == 10_000
    model = RDModel.from_pretrained("head", level="50K")
    expected = model.embed(kinds, pooling="mean")
    by_sequence = dict(zip(kinds, expected.numpy(), strict=True))
    for id, sequence in good.items():
        vector = found[f"per-protein/{safe_name(id)}"]
        assert abs(vector - by_sequence[sequence]).max() < 1e-5
    with pytest.raises(SystemExit):
        run_here("fasta=messy.fasta", "out=strict.h5", "level=50K")
    assert not (inside / "strict.h5").exists()


def test_long_sequences_skipped_are_listed(inside, argv, capsys):
    run_here("fasta=x.fasta", "out=skip", "format=npy", "long=skip", "pooling=[mean,residue]")
    said = capsys.readouterr().out
    sequences = [r.letters for r in read_records(inside / "x.fasta") if len(r.letters) <= 1022]
    kinds = len(set(sequences))
    copies = 149 - kinds
    assert copies >= 2
    assert f"149 records embedded, {kinds} distinct sequences and {copies} copies" in said
    assert "1 records skipped" in said
    assert "longer than 1022 residues" in (inside / "skip.skipped.tsv").read_text()
    index = (inside / "skip" / "index.tsv").read_text().splitlines()[1:]
    whole = content(inside / "whole.h5")
    residues = np.load(inside / "skip" / "per-residue.npy", mmap_mode="r", allow_pickle=False)
    assert len(index) == 149
    for line in index:
        id, _, _, first, number = line.split("\t")
        rows = residues[int(first) : int(first) + int(number)]
        assert abs(rows - whole[f"per-residue/{id}"]).max() < 1e-5


def test_other_formats(inside, argv):
    whole = content(inside / "whole.h5")
    run_here("fasta=x.fasta", "out=x.parquet", "width=40")
    import pyarrow.parquet as pq

    table = pq.read_table(inside / "x.parquet")
    for id, vector in zip(table["id"].to_pylist(), table["mean"].to_pylist(), strict=True):
        assert abs(np.array(vector) - whole[f"per-protein/{id}"][:40]).max() < 1e-5
    run_here("fasta=x.fasta", "out=pt", "format=pt", "pooling=[mean,residue]", "level=200K")
    for i in range(150):
        found = torch.load(inside / "pt" / f"s{i}.pt", weights_only=True)
        assert list(found["representations"]) == ["50K", "200K"]
        mean = found["mean_representations"]["200K"].numpy()
        assert abs(mean - whole[f"per-protein/s{i}"][:64]).max() < 1e-5


def test_the_policy_of_letters(inside, argv):
    (inside / "soft.fasta").write_text(">a x\r\nmktj*\r\n\r\n>b\r\nMKTX")
    run_here("fasta=soft.fasta", "out=soft.h5")
    found = content(inside / "soft.h5")
    assert np.array_equal(found["per-protein/a"], found["per-protein/b"])
    assert clean("mktj*").sequence == b"MKTX"


BAD = {
    "fasta=none.fasta out=b.h5": "none.fasta: no such file",
    "out=b.h5": "fasta is missing; name it: fasta=x.fasta",
    "fasta=x.fasta": "out is missing; name the file: out=emb.h5",
    "fasta=x.fasta out=b.h5 head=none": "none/config.json: no such file; a head is a folder",
    "fasta=x.fasta out=whole.h5": "whole.h5 exists already; choose another out, or remove it",
    "fasta=x.fasta out=b.xls": "the suffix '.xls' names no format",
    "fasta=x.fasta out=b.h5 level=7B": "no level '7B'; the levels are 50K (32) -> 200K (64)",
    "fasta=x.fasta out=b.h5 level=50K width=3": "name a level (50K) or a width (3), not both",
    "fasta=x.fasta out=b.h5 width=129": "width is a whole number from 1 to 128, not 129",
    "fasta=x.fasta out=b.h5 pooling=max": "pooling is mean, bos, residue or energy, not 'max'",
    "fasta=x.fasta out=b.h5 dtype=int2": "bfloat16, int8, int4 or binary, not 'int2'",
    "fasta=x.fasta out=b.parquet pooling=residue": "layout whole holds mean and bos vectors",
    "fasta=x.fasta out=b.parquet pooling=energy": "layout whole holds mean and bos vectors, not en",
    "fasta=x.fasta out=b.h5 layout=levels": "layout of hdf5 is uniprot, flat or biotrainer, not",
    "fasta=x.fasta out=b.h5ad pooling=[mean,bos]": "h5ad holds one kind of vectors, not mean and",
    "fasta=x.fasta out=b.h5 columns=[id,x]": "columns is of another tool's file, which from= names",
    "from=whole.h5 out=b.h5": "head has no meaning with from=, which converts an embedding file",
    "fasta=x.fasta out=b.h5 pooling=energy level=200K": "what the levels after 50K add, and one of",
    "fasta=x.fasta out=b.h5 pooling=[mean,energy] width=32": "50K add, and none is given",
    "fasta=x.fasta out=b format=npy dtype=bfloat16": "npy has no bfloat16",
    "fasta=x.fasta out=b.h5 overlap=1022": "overlap=1022 must be below max_residues=1022",
    "fasta=x.fasta topup=none.h5": "none.h5: no such file",
    "fasta=x.fasta topup=whole.h5": "whole.h5 holds 800K already",
    "fasta=x.fasta out=b.h5 poling=mean": "no key 'poling' in the configuration; did you mean pool",
    "fasta=x.fasta out=b.h5 family=esm2": "the family esm2 begins",
}


@pytest.mark.parametrize("overrides", BAD)
def test_bad_input_is_one_line(inside, argv, overrides, capsys):
    before = sorted(p.name for p in inside.iterdir())
    with pytest.raises(SystemExit) as status:
        run_here(*overrides.split())
    assert status.value.code == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert BAD[overrides] in error
    assert len(error.splitlines()) == 1
    assert sorted(p.name for p in inside.iterdir()) == before


def test_a_wrong_word_for_long_is_one_line(folder):
    """The type checker of the tests would see it first, so in a process of its own."""
    done = subprocess.run(
        command("fasta=x.fasta", "out=b.h5", "long=cut"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=clean_environment(),
        cwd=folder,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "error: long is window, whole, skip or truncate, not 'cut'"


def test_a_top_up_of_another_file_is_refused(inside, argv, capsys):
    run_here("fasta=x.fasta", "out=small.h5", "level=50K")
    (inside / "y.fasta").write_text(">s0\nMKT\n")
    text = (inside / "x.fasta").read_text()
    (inside / "z.fasta").write_text(text.replace(">s149\n", ">s149\nM"))
    moments = JointMoments((32, 64, 128)).update(family_rows(600, (32, 64, 128), 1))
    names = ("50K", "200K", "800K")
    fit_chain(moments, names=names, context={"family": "mini"}).save_pretrained("other")
    capsys.readouterr()
    for overrides, message in (
        (("fasta=y.fasta", "topup=small.h5"), "small.h5 has 150 records, y.fasta 1"),
        (("fasta=z.fasta", "topup=small.h5"), "record 150 is s149 in small.h5"),
        (("fasta=x.fasta", "topup=small.h5", "width=100"), "only whole levels"),
    ):
        with pytest.raises(SystemExit):
            run_here(*overrides)
        assert message in capsys.readouterr().err
    run_here("fasta=x.fasta", "out=small2.h5", "level=200K")
    with pytest.raises(SystemExit):
        run_here("fasta=x.fasta", "topup=small2.h5", "head=other")
    assert "was made with another head" in capsys.readouterr().err


def test_a_top_up_in_another_precision_is_refused(inside, argv, capsys):
    run_here("fasta=x.fasta", "out=mixed.h5", "level=50K", "trainer.precision=bf16-mixed")
    before = content(inside / "mixed.h5")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run_here("fasta=x.fasta", "topup=mixed.h5")
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: mixed.h5 was made in bf16-mixed, this run is in 32-true; top up with "
        "trainer.precision=bf16-mixed"
    )
    assert content(inside / "mixed.h5").keys() == before.keys()
    run_here("fasta=x.fasta", "topup=mixed.h5", "trainer.precision=bf16-mixed")
    metadata = json.loads(h5py.File(inside / "mixed.h5").attrs["rd_lightning"])
    assert (metadata["precision"], metadata["levels"][-1]) == ("bf16-mixed", "800K")


def test_an_unfinished_run_of_other_settings_is_refused(inside, argv, capsys, monkeypatch):
    """The disk was full when the file was to be written: nothing is lost."""

    def full(self, stack):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(HDF5Writer, "_open", full)
        with pytest.raises(SystemExit):
            run_here("fasta=x.fasta", "out=late.h5", "level=50K")
    assert "late.h5 cannot be written (No space left on device)" in capsys.readouterr().err
    assert not (inside / "late.h5").exists()
    with pytest.raises(SystemExit):
        run_here("fasta=x.fasta", "out=late.h5", "level=200K")
    error = capsys.readouterr().err
    assert "late.h5.unfinished is of an unfinished run with other settings" in error
    assert "width: 32 there, 64 now" in error
    run_here("fasta=x.fasta", "out=late.h5", "level=50K")
    assert not (inside / "late.h5.unfinished").exists()
    assert content(inside / "late.h5")["per-protein/s0"].shape == (32,)


def test_a_disk_that_is_too_small(inside, argv, capsys, monkeypatch):
    import shutil

    usage = shutil.disk_usage(inside)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(SystemExit):
        run_here("fasta=x.fasta", "out=b.h5")
    error = capsys.readouterr().err
    assert "has 1 kB free, but" in error
    assert "choose another disk" in error


@pytest.mark.parametrize("pooling", ["mean", "residue"])
def test_a_vector_that_is_not_finite_is_named(inside, argv, capsys, monkeypatch, pooling):
    predict = NestedModel.predict

    def spoilt(self, batch, name):
        found = predict(self, batch, name)
        if 77 in batch.sequences:
            place = batch.sequences.index(77)
            found[pooling][batch.offsets[place] if pooling == "residue" else place, 3] = 1e6
        return found

    monkeypatch.setattr(NestedModel, "predict", spoilt)
    out = f"inf-{pooling}.h5"
    with pytest.raises(SystemExit):
        run_here("fasta=x.fasta", f"out={out}", f"pooling={pooling}", "dtype=float16", "level=50K")
    index = int(find_unique(scan_fasta(inside / "x.fasta")).first[77])
    error = capsys.readouterr().err
    assert f"infinity in the {pooling} vectors of s{index} (record {index + 1}) as float16" in error
    assert not (inside / out).exists()
    run_here("fasta=x.fasta", f"out={out}.32.h5", f"pooling={pooling}", "level=50K")


def test_preflight_only_looks(inside, argv, capsys):
    run_here("fasta=x.fasta", "out=pre.h5", "preflight=true")
    said = capsys.readouterr().out
    for part in ("150 of 150 records", "of them distinct", "1 above 1,022 residues", "free"):
        assert part in said
    assert not os.path.exists("pre.h5")
    assert not os.path.exists("pre.h5.unfinished")


def test_packed_batches_give_the_same_vectors_and_are_of_one_file(inside, argv, capsys):
    run_here("fasta=x.fasta", "out=packed.h5", "level=200K", "family.attention=packed")
    whole, packed = content(inside / "whole.h5"), content(inside / "packed.h5")
    for key in (k for k in packed if k.startswith("per-protein")):
        assert np.allclose(packed[key], whole[key][:64], atol=1e-4)
    metadata = json.loads(h5py.File(inside / "packed.h5").attrs["rd_lightning"])
    assert metadata["attention"] == "packed"
    assert "attention" not in json.loads(h5py.File(inside / "whole.h5").attrs["rd_lightning"])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run_here("fasta=x.fasta", "topup=packed.h5")
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: packed.h5 was made with attention=packed, this run has padded; top up with "
        "family.attention=packed"
    )
