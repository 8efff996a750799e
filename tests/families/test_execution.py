"""Which way the members of a family are run, what is recorded of it, and what is refused."""

from dataclasses import replace

import jaxtyping
import pytest
import torch

from rd_lightning import FastaDataModule, RDHead, RDModel, RDModule
from rd_lightning.errors import InputError
from rd_lightning.families import get_family
from rd_lightning.families import packed as packing
from rd_lightning.families.backbone import load_backbones, residue_embeddings
from rd_lightning.families.execution import Execution, completed, recorded
from rd_lightning.fitting.checkpoint import check_resumed

from ..conftest import random_sequences
from ..fitting.test_module import run
from .test_packed import bound

CPU, CUDA, MPS = map(torch.device, ("cpu", "cuda", "mps"))


@pytest.fixture
def counted(monkeypatch):
    """How often packed batches went through a member."""
    calls = []

    def encode(*args, **options):
        calls.append(options["num_tokens"])
        return packing.encode_packed(*args, **options)

    monkeypatch.setattr("rd_lightning.families.execution.encode_packed", encode)
    return calls


@pytest.fixture
def new_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))


def test_only_what_is_asked_for_is_packed(new_gpu):
    esm2, packed = get_family("esm2"), Execution("packed")
    for execution in (Execution(), Execution("padded")):
        assert not execution.is_packed(esm2, CUDA, torch.bfloat16)
    assert packed.is_packed(esm2, CUDA, torch.bfloat16)
    assert packed.is_packed(get_family("mini"), CUDA, torch.float16)
    assert packed.is_packed(esm2, CPU, torch.float32)
    assert packed.fact(esm2, CUDA, "bf16-mixed") == "packed batches, no padding"
    assert Execution().fact(esm2, CUDA, "bf16-mixed") is None


def test_what_cannot_be_is_one_line(new_gpu, monkeypatch):
    esm2 = get_family("esm2")
    other = replace(esm2, name="hugging_face", encode=lambda model, tokens, *, padded: tokens)
    for family, device, precision, said in (
        (other, CPU, "32-true", "only ESM-2 takes packed batches"),
        (esm2, CUDA, "32-true", "they need 16 bits"),
        (esm2, MPS, "16-mixed", "not on mps"),
    ):
        with pytest.raises(InputError, match=f"attention=packed: .*{said}.*; use attention=padded"):
            Execution("packed").identity(family, device, precision)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would refuse it first
    with pytest.raises(InputError, match="attention is auto, padded or packed, not 'flash'"):
        Execution("flash")  # pyright: ignore


def test_files_of_before_are_padded_and_not_compiled():
    former = {"family": "mini", "attention": "padded", "compile": False}
    assert recorded(former) == {"family": "mini"}
    for change in ({}, {"attention": "packed"}, {"compile": True}):
        identity = {**former, **change}
        assert recorded(identity) == {"family": "mini", **change}
        assert completed(recorded(identity)) == identity


def test_residues_of_packed_and_padded_batches_agree(counted):
    family = get_family("mini")
    sequences = [s.encode() for s in random_sequences(12, 0, longest=90)]
    tokens = torch.from_numpy(family.tokenizer().encode(sequences))
    inside = [i * tokens.shape[1] + 1 + k for i, s in enumerate(sequences) for k in range(len(s))]
    rows = torch.tensor(inside)
    blocks = {
        how: residue_embeddings(
            load_backbones(family, family.members, execution=Execution(how)),
            tokens,
            rows,
            padded=True,
        )
        for how in ("padded", "packed")
    }
    assert counted == [sum(len(s) + 2 for s in sequences)] * 3
    for member, a, b in zip(family.members, *blocks.values(), strict=True):
        assert (a - b).abs().max() < bound(family.load(member, None), a)


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    """The same fit, padded and packed."""
    path = tmp_path_factory.mktemp("fits") / "x.fasta"
    path.write_text("".join(f">s{i}\n{s}\n" for i, s in enumerate(random_sequences(60, 0))))
    settings = {"tokens_per_batch": 300, "heldout": 0.2}
    return {
        how: run(RDModule("mini", "200K", attention=how), FastaDataModule(path, **settings))
        for how in ("padded", "packed")
    }


def test_moments_of_a_fit_agree(fits):
    """Embeddings differ by rounding of at most 1e-4 of their size, means and covariances alike."""
    padded, packed = fits["padded"].state, fits["packed"].state
    for a, b in zip(padded.all_moments, packed.all_moments, strict=True):
        assert a.num_rows == b.num_rows > 0
        assert (a.mean - b.mean).norm() < 1e-4 * a.mean.norm()
        assert (a.covariance - b.covariance).norm() < 1e-4 * a.covariance.norm()


def test_attention_is_part_of_a_states_identity(fits):
    padded, packed = fits["padded"], fits["packed"]
    assert "attention" not in padded.state.identity  # equal to a state of before
    assert packed.head.report.context["attention"] == "packed"
    for one, other, said in (
        (padded, packed, "attention: padded in one, packed in the other"),
        (packed, padded, "attention: packed in one, padded in the other"),
    ):
        state = other.state.clone()
        state.parts = [replace(state.parts[0], content="other")]
        with pytest.raises(InputError, match=said):
            one.state.clone().merge_(state)
        run_identity = {"attention": completed(one.state.identity)["attention"]}
        with pytest.raises(InputError, match=f"resume: .*{said}"):
            check_resumed(other.state, run_identity, one.dims, other.state.parts[0])


def test_embeddings_agree(fits, counted):
    sequences = random_sequences(20, 1, longest=80)
    head: RDHead = fits["padded"].head
    padded, packed = (RDModel("mini", head, attention=how) for how in ("padded", "packed"))
    options = {"pooling": ["mean", "bos", "residue"], "max_residues": 50, "overlap": 10}
    expected, found = padded.embed(sequences, **options), packed.embed(sequences, **options)
    assert counted
    for pooling in ("mean", "bos"):
        assert torch.allclose(found[pooling], expected[pooling], atol=1e-4)
    for a, b in zip(found["residue"], expected["residue"], strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_a_graph_is_padded(fits, counted):
    model = RDModel("mini", fits["padded"].head, attention="packed").eval()
    tokens = torch.from_numpy(model.family.tokenizer().encode([b"ACDEF", b"MK"]))
    program = torch.export.export(model.backbones["50K"], (tokens,))
    assert not counted
    assert program.module()(tokens).shape == (2, 7, 32)
