"""rd-embed pooling=energy as a user types it: all formats, a run that resumes, what is refused."""

import h5py
import numpy as np
import pytest
import torch

from rd_lightning import JointMoments, RDModel, fit_chain
from rd_lightning.embed import main
from rd_lightning.embedding.recorder import Recorder

from .conftest import family_rows, random_sequences, run_here

NAMES, DIMS = ("50K", "200K", "800K"), (32, 64, 128)
GIVEN = ("head=head", "fasta=x.fasta", "tokens_per_batch=256")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A head of the bundled family, sequences of which one is long and one is there twice."""
    folder = tmp_path_factory.mktemp("energy")
    moments = JointMoments(DIMS).update(family_rows(600, DIMS, 0))
    fit_chain(moments, names=NAMES, context={"family": "mini"}).save_pretrained(folder / "head")
    sequences = random_sequences(40, 3, longest=120)
    sequences[7] = sequences[3]
    sequences[9] = "ACDEFGHIKL" * 130
    (folder / "x.fasta").write_text("".join(f">s{i}\n{s}\n" for i, s in enumerate(sequences)))
    return folder, sequences


def embed(folder, *words: str) -> str:
    status, said = run_here(main, folder, "rd-embed", *GIVEN, *words)
    assert status == 0, said
    return said


def test_every_format_holds_the_models_shares(folder):
    folder, sequences = folder
    model = RDModel.from_pretrained(folder / "head")
    expected = model.embed(sequences, pooling="energy")
    embed(folder, "out=x.h5", "pooling=energy")
    embed(folder, "out=pt", "format=pt", "pooling=[energy,mean]", "dtype=bfloat16")
    embed(folder, "out=npy", "format=npy", "pooling=[energy,residue]", "dtype=float16")
    whole = np.load(folder / "npy" / "energy.npy", allow_pickle=False)
    assert whole.dtype == np.float32
    lines = (folder / "npy" / "index.tsv").read_text().splitlines()[1:]
    with h5py.File(folder / "x.h5") as file:
        assert sorted(file) == ["energy", "rd_lightning"]
        assert list(file["energy"].attrs["levels"]) == ["200K", "800K"]
        for i, (shares, line) in enumerate(zip(expected, lines, strict=True)):
            tensor = torch.load(folder / "pt" / f"s{i}.pt", weights_only=True)["energies"]
            first, number = map(int, line.split("\t")[-2:])
            for found in (file["energy"][f"s{i}"][:], tensor, whole[first : first + number]):
                assert found.shape == (len(sequences[i]), 2)
                # Batches differ, and with them the rounding of z: 1e-5 of numbers about 1.
                assert abs(np.asarray(found) - shares.numpy()).max() < 1e-4
        assert file["energy/s3"] == file["energy/s7"], "one dataset, two names"


def test_a_run_that_is_interrupted_resumes(folder, monkeypatch):
    folder, _ = folder
    embed(folder, "out=whole.h5", "pooling=[energy,mean]")
    write, batches = Recorder.write, []

    def few(self, batch, vectors):
        if len(batches) == 3:
            raise KeyboardInterrupt
        batches.append(batch)
        write(self, batch, vectors)

    monkeypatch.setattr(Recorder, "write", few)
    words = ("out=again.h5", "pooling=[energy,mean]")
    status, _ = run_here(main, folder, "rd-embed", *GIVEN, *words)
    assert status != 0
    monkeypatch.setattr(Recorder, "write", write)
    embed(folder, *words)
    with h5py.File(folder / "whole.h5") as one, h5py.File(folder / "again.h5") as two:
        for name in one["energy"]:
            assert np.array_equal(one["energy"][name][:], two["energy"][name][:])


def test_energies_are_not_topped_up(folder):
    folder, _ = folder
    four = JointMoments((32, 64, 128, 128)).update(family_rows(600, (32, 64, 128, 128), 0))
    members = "family.members=[mini/50K,mini/200K,mini/800K@2,mini/800K]"
    names = ("mini-50K", "mini-200K", "mini-800K@2", "mini-800K")
    head = fit_chain(four, names=names, level_widths=(32, 64, 100, 128))
    head.save_pretrained(folder / "four")
    words = ("head=four", "fasta=x.fasta", "family=mini", members)
    made = run_here(
        main, folder, "rd-embed", *words, "out=four.h5", "pooling=energy", "level=mini-800K@2"
    )
    assert made[0] == 0, made[1]
    status, said = run_here(main, folder, "rd-embed", *words, "topup=four.h5")
    assert status == 1
    assert "four.h5 holds energies, shares of what all its levels add, which a larger" in said
