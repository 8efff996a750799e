"""Vectors are written while the next ones are computed: in order, few at a time, errors told."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from rd_lightning.embedding.dataset import EmbedData
from rd_lightning.embedding.recorder import IN_FLIGHT, Recorder
from rd_lightning.embedding.sequence_batch import SequenceBatch
from rd_lightning.embedding.spool import Spool
from rd_lightning.errors import InputError

from ..conftest import SEEDS
from ..fake_cuda import FakeCuda, fake_cuda  # noqa: F401  (the latter is a fixture)
from ..fake_device import CUDA, FakeDevice

SECONDS = 30
LENGTHS = np.array([3, 5, 1, 4, 2, 6, 3, 2])
BATCHES = [SequenceBatch(b, [2 * b, 2 * b + 1], LENGTHS[2 * b :][:2].tolist()) for b in range(4)]


class Data(EmbedData):
    """Of a file with eight records."""

    def __init__(self) -> None:
        self.fasta = Path("x.fasta")

    def leave_out(self, done: np.ndarray) -> None:
        assert not done.any()

    def name(self, index: int) -> str:
        return f"record {index}"


def open_spool(folder: Path, dtype: torch.dtype = torch.float32) -> Spool:
    Spool.prepare(folder, {})
    return Spool(folder, LENGTHS, 4, dtype, ("mean", "residue"))


def vectors(batch: SequenceBatch, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 * seed + batch.number)
    rows = batch.num_residues
    return {
        "mean": torch.randn(len(batch.sequences), 4, generator=generator),
        "residue": torch.randn(rows, 4, generator=generator),
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_thread_writes_the_same_bytes_as_no_thread(tmp_path, dtype, seed, request):
    for name in ("alone", "thread"):
        if name == "thread":
            request.getfixturevalue("fake_cuda")
        with Recorder(Data(), open_spool(tmp_path / name, dtype)) as recorder:
            for batch in [*BATCHES, SequenceBatch(-1)]:
                recorder.write(batch, vectors(batch, seed) if batch.sequences else {})
        assert (recorder._thread is not None) == (name == "thread")
    assert contents(tmp_path / "alone") == contents(tmp_path / "thread")


def test_on_a_cpu_a_batch_is_written_at_once(tmp_path):
    spool = open_spool(tmp_path / "s")
    recorder = Recorder(Data(), spool)
    for batch in BATCHES:
        recorder.write(batch, vectors(batch))
        assert spool.done()[batch.sequences].all()
    assert recorder._thread is None
    recorder.close()


@pytest.mark.usefixtures("fake_cuda")
def test_a_batch_is_computed_while_the_one_before_is_written(tmp_path, monkeypatch):
    """Its write does not end before the next computation has begun."""
    begun = [threading.Event() for _ in BATCHES]
    events, write = [], Spool.write

    def held(self, sequences, rows):
        number = sequences[0] // 2
        if number + 1 < len(BATCHES):
            assert begun[number + 1].wait(SECONDS), "written before the next batch is computed"
        write(self, sequences, rows)
        events.append(f"written {number}")

    monkeypatch.setattr(Spool, "write", held)
    with Recorder(Data(), open_spool(tmp_path / "s")) as recorder:
        for batch in BATCHES:
            events.append(f"begun {batch.number}")
            begun[batch.number].set()
            recorder.write(batch, vectors(batch))
    for number in range(len(BATCHES) - 1):
        assert events.index(f"begun {number + 1}") < events.index(f"written {number}")
    written = [event for event in events if event.startswith("written")]
    assert written == [f"written {b.number}" for b in BATCHES], "in order"


def test_few_wait_for_a_slow_disk(tmp_path, monkeypatch, fake_cuda):  # noqa: F811
    """Counted where most could be: the disk writes nothing until nobody gives it more."""
    spool, given, write = open_spool(tmp_path / "s"), [], Spool.write
    stuck = threading.Semaphore(0)

    def slow(self, sequences, rows):
        assert stuck.acquire(timeout=SECONDS)
        write(self, sequences, rows)

    monkeypatch.setattr(Spool, "write", slow)

    def run():
        with Recorder(Data(), spool) as recorder:
            for batch in BATCHES:
                recorder.write(batch, vectors(batch))
                given.append(batch.number)

    runner = threading.Thread(target=run)
    runner.start()
    for number in range(len(BATCHES)):
        runner.join(0.2)  # as far as it gets
        assert len(given) <= number + IN_FLIGHT
        stuck.release()
    runner.join(SECONDS)
    assert not runner.is_alive() and len(given) == len(BATCHES)
    # Two sets of buffers, which may have been made anew for larger batches; not one a batch.
    names = {"mean", "residue", "mean is finite", "residue is finite"}
    assert fake_cuda.num_pinned <= IN_FLIGHT * len(names) + 2
    assert open_spool(tmp_path / "s").done().all()


def test_tensors_of_a_gpu_are_copied_to_pinned_memory(tmp_path, monkeypatch):
    """None by a copy that waits for the device."""
    pinned, batch = FakeCuda(monkeypatch), BATCHES[0]
    with FakeDevice() as device, Recorder(Data(), open_spool(tmp_path / "s")) as recorder:
        recorder.write(batch, {p: rows.to(CUDA) for p, rows in vectors(batch).items()})
    assert device.to_host == []
    assert pinned.num_pinned == 4, "vectors and truth values, of two poolings"
    assert torch.equal(open_spool(tmp_path / "s").read("residue", 1), vectors(batch)["residue"][3:])


@pytest.mark.usefixtures("fake_cuda")
def test_the_device_finds_what_is_not_finite(tmp_path, monkeypatch):
    """On the host, of the vectors of residues, that takes twice as long as the models."""
    checked, isfinite = [], torch.Tensor.isfinite

    def counted(self):
        checked.append(self.data_ptr())
        return isfinite(self)

    monkeypatch.setattr(torch.Tensor, "isfinite", counted)
    given = [vectors(batch) for batch in BATCHES]
    with Recorder(Data(), open_spool(tmp_path / "s")) as recorder:
        for batch, rows in zip(BATCHES, given, strict=True):
            recorder.write(batch, rows)
    assert sorted(checked) == sorted(t.data_ptr() for rows in given for t in rows.values())


@pytest.mark.parametrize("pooling", ["mean", "residue"])
@pytest.mark.parametrize("thread", [False, True])
def test_what_is_not_finite_is_named_and_not_done(tmp_path, pooling, thread, request):
    if thread:
        request.getfixturevalue("fake_cuda")
    bad = vectors(BATCHES[1])
    bad[pooling][-1, 2] = float("inf")
    spool = open_spool(tmp_path / "s")

    def run():
        with Recorder(Data(), spool) as recorder:
            for batch in BATCHES:
                recorder.write(batch, bad if batch.number == 1 else vectors(batch))

    with pytest.raises(InputError) as raised:
        run()
    assert str(raised.value) == (
        f"x.fasta: NaN or infinity in the {pooling} vectors of record 3 as float32; fix the "
        "weights or the precision, or use dtype=float32"
    )
    done = open_spool(tmp_path / "s").done()
    assert done[:2].all() and not done[2:4].any()


@pytest.mark.usefixtures("fake_cuda")
def test_overflow_in_the_dtype_of_the_output_counts(tmp_path):
    large = {p: rows * 1e6 for p, rows in vectors(BATCHES[0]).items()}
    recorder = Recorder(Data(), open_spool(tmp_path / "s", torch.float16))
    recorder.write(BATCHES[0], large)
    with pytest.raises(InputError, match="as float16"):
        recorder.close()


@pytest.mark.usefixtures("fake_cuda")
def test_an_error_of_the_disk_ends_the_run_and_is_the_systems(tmp_path, monkeypatch):
    write, given = Spool.write, []

    def full(self, sequences, rows):
        if sequences[0] == 2:
            raise OSError(28, "No space left on device", "mean.raw")
        write(self, sequences, rows)

    monkeypatch.setattr(Spool, "write", full)

    def run():
        with Recorder(Data(), open_spool(tmp_path / "s")) as recorder:
            for batch in BATCHES * 5:
                recorder.write(batch, vectors(batch))
                given.append(batch.number)

    with pytest.raises(OSError, match="No space") as raised:
        run()
    assert raised.value.filename == "mean.raw"
    assert len(given) <= 1 + IN_FLIGHT, "no later than two batches after"
    assert not open_spool(tmp_path / "s").done()[2:4].any()


@pytest.mark.usefixtures("fake_cuda")
def test_what_was_computed_is_written_when_the_run_is_stopped(tmp_path):
    """By the exception of a signal, which stays the one that is raised."""

    def run():
        with Recorder(Data(), open_spool(tmp_path / "s")) as recorder:
            for batch in BATCHES[:2]:
                recorder.write(batch, vectors(batch))
            raise SystemExit(143)

    with pytest.raises(SystemExit, match="143"):
        run()
    spool = open_spool(tmp_path / "s")
    assert spool.done().tolist() == [True] * 4 + [False] * 4
    expected = vectors(BATCHES[1])["residue"]
    assert torch.equal(torch.cat([spool.read("residue", 2), spool.read("residue", 3)]), expected)


@pytest.mark.usefixtures("fake_cuda")
def test_an_error_of_the_run_is_not_replaced_by_one_of_the_thread(tmp_path):
    bad = {p: rows * float("nan") for p, rows in vectors(BATCHES[0]).items()}

    def run():
        with Recorder(Data(), open_spool(tmp_path / "s")) as recorder:
            recorder.write(BATCHES[0], bad)
            raise RuntimeError("the model failed")

    with pytest.raises(RuntimeError, match="the model failed"):
        run()
