"""One graph for all layers and shapes, what it computes, and a run whose compiler fails."""

import logging
import shutil
import threading

import jaxtyping
import pytest
import torch
from esm.model.esm2 import ESM2
from torch._dynamo.testing import CompileCounter

from rd_lightning import FastaDataModule, RDModel, RDModule
from rd_lightning.errors import InputError
from rd_lightning.families import compiled, get_family
from rd_lightning.families.backbone import load_backbones
from rd_lightning.families.esm2 import encode, esm_tokenizer
from rd_lightning.families.execution import Execution
from rd_lightning.families.packed import encode_packed

from ..conftest import random_sequences
from ..fitting.test_module import run
from .test_packed import bound, masked, random_model

pytestmark = pytest.mark.usefixtures("eager_backend")
# The smallest there can be (one residue, one window), then any.
SHAPES = [(1, 1), (1, 300), (2, 1), (7, 7), (50, 3)] + [(1 + i % 9, 2 + 3 * i) for i in range(45)]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def eager_backend(monkeypatch):
    """Graphs are counted and run as they are, without a C++ compiler; the annotations are not
    checked, for jaxtyping takes no symbolic sizes."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    counter = CompileCounter()
    monkeypatch.setattr(compiled, "BACKEND", counter)
    return counter


def batches(model: ESM2, *, padded: bool):
    """Of 50 shapes; one row of each padded batch is whole."""
    for seed, (windows, length) in enumerate(SHAPES):
        lengths = [length] + [1 + (length - 1) * i // windows for i in range(windows - 1)]
        letters = ["ACDEFGHIKLMNPQRSTVWY"[(seed + i) % 20] * n for i, n in enumerate(lengths)]
        if not padded:
            letters = [s[:1] * length for s in letters]
        tokens = torch.from_numpy(esm_tokenizer().encode([s.encode() for s in letters]))
        yield masked(tokens, model, seed), bool((tokens == model.padding_idx).any())


@pytest.mark.parametrize("packed", [True, False])
def test_one_graph_serves_all_layers_and_shapes(eager_backend, packed):
    model, layer = random_model("deep"), compiled.compiled_layer()
    with torch.no_grad():
        for mixed in (True, False):
            for tokens, padded in batches(model, padded=mixed):
                found = compiled.encode_compiled(model, layer, tokens, packed=packed, padded=padded)
                whole = encode_packed(model, tokens) if packed else encode(model, tokens)
                inside = tokens != model.padding_idx
                assert (found - whole)[inside].abs().max() <= bound(model, whole)
    assert eager_backend.frame_count == 1


def test_two_members_are_two_graphs(eager_backend):
    family = get_family("mini")
    execution = Execution(compile=True)
    backbones = load_backbones(family, family.members[:2], execution=execution)
    tokens = torch.from_numpy(family.tokenizer().encode([b"MKTAYIAKQR", b"MK"]))
    with torch.no_grad():
        execution.begin(backbones.values())
        assert execution.compiled and eager_backend.frame_count == 2
        for backbone in backbones.values():
            backbone(tokens)
            backbone(tokens[:1], padded=False)
    assert eager_backend.frame_count == 2


def test_many_members_and_runs_do_not_reach_torchs_limit(eager_backend):
    """Eight graphs of one function, and torch compiles no more of it."""
    models = [random_model(shape) for shape in ("narrow", "wide", "deep") for _ in range(4)]
    tokens = torch.from_numpy(esm_tokenizer().encode([b"MKTAYIAKQR", b"MK"]))
    with torch.no_grad():
        for model in models:
            compiled.encode_compiled(model, compiled.compiled_layer(), tokens, packed=False)
    assert eager_backend.frame_count == len(models)


@pytest.mark.parametrize("attention", ["padded", "packed"])
def test_a_fit_with_compiled_layers(eager_backend, fasta, attention):
    path = fasta(random_sequences(60, 0))
    settings = {"tokens_per_batch": 300, "heldout": 0.2}
    fits = [
        run(
            RDModule("mini", "200K", attention=attention, compile=compile),
            FastaDataModule(path, **settings),
        )
        for compile in (False, True)
    ]
    assert eager_backend.frame_count == 2  # before the first batch, and none after it
    plain, found = (module.state for module in fits)
    assert found.identity["compile"] is True and "compile" not in plain.identity
    for a, b in zip(plain.all_moments, found.all_moments, strict=True):
        assert a.num_rows == b.num_rows
        assert (a.covariance - b.covariance).norm() < 1e-4 * a.covariance.norm()
    with pytest.raises(InputError, match="compile: False in one, True in the other"):
        plain.clone().merge_(found)


def broken(graph, inputs):
    raise RuntimeError("no C++ compiler")


def test_a_compiler_that_fails_leaves_the_whole_run_without(monkeypatch, fasta, caplog):
    """Also where it is the second member that fails: the first is not left compiled."""
    calls = []

    def fails_second(graph, inputs):
        calls.append(1)
        return graph.forward if len(calls) == 1 else broken(graph, inputs)

    path = fasta(random_sequences(60, 0))
    settings = {"tokens_per_batch": 300, "heldout": 0.2}
    plain = run(RDModule("mini", "200K", compile=False), FastaDataModule(path, **settings))
    monkeypatch.setattr(compiled, "BACKEND", fails_second)
    with caplog.at_level(logging.WARNING):
        found = run(RDModule("mini", "200K", compile=True), FastaDataModule(path, **settings))
    assert len(calls) == 2
    (warning,) = [r for r in caplog.records if "could not be compiled" in r.getMessage()]
    assert "no C++ compiler" in warning.getMessage() and "\n" not in warning.getMessage()
    assert found.state.identity == plain.state.identity
    for a, b in zip(plain.state.all_moments, found.state.all_moments, strict=True):
        assert torch.equal(a.covariance, b.covariance)


def test_a_process_whose_compiler_works_follows_one_whose_does_not(monkeypatch):
    family = get_family("mini")
    execution = Execution(compile=True)
    backbones = load_backbones(family, family.members[:1], execution=execution)
    monkeypatch.setattr(
        "rd_lightning.runtime.distributed.all_reduce_sum_", lambda failed: failed + 1
    )
    with torch.no_grad():
        execution.begin(backbones.values())
    assert not execution.compiled and backbones["50K"].layer is None


def test_embeddings_of_compiled_layers(eager_backend, family):
    from rd_lightning import JointMoments, fit_chain

    dims = [m.width for m in family.members]
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(200, d, generator=generator) for d in dims]
    head = fit_chain(JointMoments(dims).update(rows), names=["A", "B", "C"])
    sequences = random_sequences(20, 1, longest=80)
    expected = RDModel(family, head).embed(sequences)
    found = RDModel(family, head, compile=True).embed(sequences)
    assert eager_backend.frame_count == 3
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_only_esm2_is_compiled_and_auto_is_off():
    esm2 = get_family("esm2")
    for compile, expected in (("auto", False), (False, False), (True, True)):
        execution = Execution(compile=compile)
        execution.choose(esm2)
        assert execution.compiled is expected
    other = type(esm2)("other", esm2.members, esm2.load, lambda model, tokens, *, padded: tokens)
    with pytest.raises(InputError, match="compile=true: only ESM-2's layers are compiled"):
        Execution(compile=True).choose(other)
    with pytest.raises(InputError, match="compile is auto, true or false, not 'yes'"):
        Execution(compile="yes")  # pyright: ignore


def test_processes_that_disagree_are_refused(monkeypatch):
    monkeypatch.setattr("rd_lightning.runtime.distributed.world_size", lambda: 2)
    Execution(compile=False).check_processes(CPU)
    monkeypatch.setattr("rd_lightning.runtime.distributed.all_reduce_sum_", lambda x: x + 1)
    Execution(compile=True).check_processes(CPU)
    with pytest.raises(InputError, match="some processes alone; use compile=false"):
        Execution(compile=False).check_processes(CPU)


def test_threads_compile_once(eager_backend):
    family = get_family("mini")
    execution = Execution(compile=True)
    backbones = list(load_backbones(family, family.members[:2], execution=execution).values())

    def begin():
        with torch.no_grad():
            execution.begin(backbones)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert eager_backend.frame_count == 2


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inductor_computes_the_same(monkeypatch, dtype):
    """In float32 to rounding; under bf16 autocast no further from float32 than without."""
    monkeypatch.setattr(compiled, "BACKEND", "inductor")
    model, layer = random_model("wide"), compiled.compiled_layer()
    tokens = torch.from_numpy(esm_tokenizer().encode([b"MKTAYIAKQRQISFVK", b"MK", b"ACDEFGH"]))
    inside = tokens != model.padding_idx
    with torch.no_grad():
        exact = encode(model, tokens)[inside]
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            options = {"packed": True, "padded": True}
            found = compiled.encode_compiled(model, layer, tokens, **options)[inside]
            plain = encode(model, tokens)[inside]
    if dtype == torch.float32:
        assert (found - exact).abs().max() <= bound(model, exact)
    else:
        assert (found - exact).norm() <= 2 * (plain - exact).norm() > 0
