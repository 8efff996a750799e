"""RDModel against fair-esm's own forward pass and the head."""

import subprocess
import sys
from dataclasses import replace

import lightning as L
import numpy as np
import pytest
import torch
from Bio.Seq import Seq
from Bio.SeqRecord import SeqRecord
from torch.utils.data import DataLoader, TensorDataset

from rd_lightning import JointMoments, RDHead, RDModel, fit_chain
from rd_lightning.cli.command import quiet_libraries
from rd_lightning.data.windows import overlapping_windows
from rd_lightning.errors import InputError
from rd_lightning.families import Family
from rd_lightning.families.esm2 import esm_tokenizer
from rd_lightning.runtime import precision as precision_module

from ..conftest import SEEDS, clean_environment, family_rows, random_sequences, tiny_family


def make_head(dtype: torch.dtype = torch.float32) -> RDHead:
    """Of the tiny family's widths."""
    moments = JointMoments((8, 12, 16)).update(family_rows(400, (8, 12, 16), 0))
    return fit_chain(moments, names=("A", "B", "C"), dtype=dtype, context={"family": "tiny"})


@pytest.fixture
def model() -> RDModel:
    return RDModel(tiny_family(), make_head())


def raw(model: RDModel, tokens: torch.Tensor) -> list[torch.Tensor]:
    """fair-esm's own representations of every member."""
    with torch.no_grad():
        return [
            b.model(tokens, repr_layers=[b.model.num_layers])["representations"][b.model.num_layers]
            for b in model.backbones.values()
        ]


def tokens_of(model: RDModel, sequences: list[str]) -> torch.Tensor:
    return model.batch_converter()([(str(i), s) for i, s in enumerate(sequences)])[2]


@pytest.mark.parametrize("seed", SEEDS)
def test_equals_the_head_on_fair_esms_representations(model, seed):
    """At every position that is not padding; <mask> too."""
    sequences = [s[:5] + "<mask>" + s[5:] for s in random_sequences(5, seed)]
    tokens = tokens_of(model, sequences)
    assert (tokens == model.alphabet.mask_idx).any()
    there = tokens != model.alphabet.padding_idx
    members = raw(model, tokens)
    z = model(tokens)
    assert z.shape == (*tokens.shape, 16)
    assert (z[..., :8] - members[0])[there].abs().max() < 1e-5
    for k, level in enumerate("ABC", start=1):
        expected = model.head(members[:k])
        assert (model(tokens, level=level) - expected)[there].abs().max() < 1e-5


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sequence_alone_or_in_any_batch(model, seed):
    sequences = random_sequences(9, seed)
    alone = [model.embed([s], pooling="mean")[0] for s in sequences]
    for tokens_per_batch in (64, 200, 10_000):
        together = model.embed(sequences, pooling="mean", tokens_per_batch=tokens_per_batch)
        assert (together - torch.stack(alone)).abs().max() < 1e-5
    direct = model(tokens_of(model, sequences))
    for i, rows in enumerate(model.embed(sequences)):
        assert (rows - direct[i, 1 : len(sequences[i]) + 1]).abs().max() < 1e-5


def test_levels_are_views(model):
    tokens = tokens_of(model, ["ACDEF", "MK"])
    levels = model(tokens, repr="dict")
    assert {k: v.shape[-1] for k, v in levels.items()} == {"A": 8, "B": 12, "C": 16}
    assert len({v.untyped_storage().data_ptr() for v in levels.values()}) == 1
    assert torch.equal(levels["C"], model(tokens))


def test_only_the_needed_backbones_run(model, monkeypatch):
    def never(*_, **__):
        raise AssertionError("the third backbone was run")

    monkeypatch.setattr(model.backbones["C"], "forward", never)
    tokens = tokens_of(model, ["ACDEF"])
    assert model(tokens, level="B").shape[-1] == 12
    assert model(tokens, width=10).shape[-1] == 10
    assert model.embed("ACDEF", pooling="mean", width=12).shape == (1, 12)
    smaller = RDModel(tiny_family(), make_head(), level="B")
    assert list(smaller.backbones) == ["A", "B"]
    assert torch.equal(smaller(tokens), model(tokens, level="B"))


def test_pooling(model):
    sequences = ["ACDEFGHIKL", "MKTV", "ACDEFGHIKL"]
    found = model.embed(sequences, pooling=["residue", "mean", "bos"])
    z = model(tokens_of(model, sequences))
    for i, s in enumerate(sequences):
        residues = z[i, 1 : len(s) + 1]
        assert (found["residue"][i] - residues).abs().max() < 1e-5
        assert (found["mean"][i] - residues.mean(0)).abs().max() < 1e-5
        assert (found["bos"][i] - z[i, 0]).abs().max() < 1e-5
    assert torch.equal(found["mean"][0], found["mean"][2])
    assert model.embed([], pooling="mean").shape == (0, 16)
    assert model.embed([]) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_long_sequences_are_averaged_over_windows(model, seed):
    """Against windows run one by one: each residue is the mean over the windows that hold it."""
    sequence = "".join(random_sequences(4, seed, longest=60)) + "MKTVQ" * 5
    length, limit, overlap = len(sequence), 20, 6
    total, count, bos = torch.zeros(length, 16), torch.zeros(length, 1), []
    for start, size in overlapping_windows(length, limit, overlap):
        window = sequence[start : start + size]
        z = model(tokens_of(model, [window]))[0]
        total[start : start + size] += z[1 : size + 1]
        count[start : start + size] += 1
        bos.append(z[0])
    expected = total / count
    options = {"max_residues": limit, "overlap": overlap, "tokens_per_batch": 70}
    found = model.embed([sequence, "MKT"], pooling=("mean", "bos", "residue"), **options)
    assert (found["residue"][0] - expected).abs().max() < 1e-5
    assert (found["mean"][0] - expected.mean(0)).abs().max() < 1e-5
    assert (found["bos"][0] - torch.stack(bos).mean(0)).abs().max() < 1e-5
    whole = model.embed(sequence, long="whole", max_residues=limit)[0]
    assert (whole - model(tokens_of(model, [sequence]))[0, 1:-1]).abs().max() < 1e-5
    cut = model.embed(sequence, long="truncate", max_residues=limit)[0]
    assert (cut - model(tokens_of(model, [sequence[:limit]]))[0, 1:-1]).abs().max() < 1e-5


def test_gradients_reach_a_module_on_top(model):
    top = torch.nn.Linear(16, 1)
    model.train()
    assert not model.backbones["A"].model.training
    top(model(tokens_of(model, ["ACDEF"])).mean(1)).sum().backward()
    assert top.weight.grad is not None
    assert not list(model.parameters()) or all(not p.requires_grad for p in model.parameters())


def test_a_head_that_is_not_frozen():
    model = RDModel(tiny_family(), make_head(), freeze=False)
    tokens = tokens_of(model, ["ACDEF"])
    assert torch.equal(model(tokens), RDModel(tiny_family(), make_head())(tokens))
    model(tokens).sum().backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {f"head.{n}_{k}" for n in ("projection", "mapping", "bias") for k in (1, 2)}
    assert all(p.grad is not None for p in model.head.parameters())
    assert all(p.grad is None for p in model.backbones.parameters())


def test_autocast_keeps_the_head_in_float32(model):
    tokens = tokens_of(model, random_sequences(3, 0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = model(tokens)
    assert z.dtype == torch.float32
    there = tokens != model.alphabet.padding_idx
    assert (z - model(tokens))[there].abs().max() < 0.2


COMPILE = """
import torch
from rd_lightning import RDHead, RDModel
model = RDModel.from_pretrained("head")
tokens = torch.tensor([[0, 20, 15, 11, 2], [0, 20, 2, 1, 1]])
there = tokens != model.alphabet.padding_idx
compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
assert (compiled(tokens) - model(tokens))[there].abs().max() < 1e-5
shapes = {"tokens": {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", min=3)}}
program = torch.export.export(model, (tokens,), dynamic_shapes=shapes).module()
other = torch.randint(4, 24, (5, 31))
other[0, 20:] = model.alphabet.padding_idx
there = other != model.alphabet.padding_idx
assert (program(other) - model(other))[there].abs().max() < 1e-5
print("same")
"""


@pytest.mark.slow
def test_compile_and_export(tmp_path):
    """Traced without a graph break; exported for any batch size and length. In a process of its
    own: the checks of types that these tests add cannot be traced."""
    moments = JointMoments((32, 64)).update(family_rows(400, (32, 64), 0))
    head = fit_chain(moments, names=("50K", "200K"), context={"family": "mini"})
    head.save_pretrained(tmp_path / "head")
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        env=clean_environment(),
    )
    assert done.stdout == "same\n", done.stderr


def test_from_pretrained(tmp_path):
    moments = JointMoments((32, 64)).update(family_rows(400, (32, 64), 0))
    head = fit_chain(moments, names=("50K", "200K"), context={"family": "mini"})
    head.save_pretrained(tmp_path)
    model = RDModel.from_pretrained(tmp_path)
    assert model.width == 64
    assert model.embed(["MKTAYIAKQR"])[0].shape == (10, 64)
    assert RDModel.from_pretrained(tmp_path, width=40).embed("MKT", pooling="mean").shape == (1, 40)
    fit_chain(moments, names=("50K", "200K")).save_pretrained(tmp_path / "nameless")
    with pytest.raises(InputError, match="does not say which family"):
        RDModel.from_pretrained(tmp_path / "nameless")
    assert RDModel.from_pretrained(tmp_path / "nameless", family="mini").names == ("50K", "200K")
    with pytest.raises(InputError, match="the family tiny begins"):
        RDModel(tiny_family(), head)


def test_the_precision_of_embed(model, monkeypatch):
    """By default what rd-embed does on the device, unless the caller says otherwise."""
    sequences = random_sequences(6, 1)

    def vectors(precision=None):
        return model.embed(sequences, pooling="mean", precision=precision)

    with torch.autocast("cpu", torch.bfloat16):
        rounded = vectors()
        exact = vectors("32-true")
    assert torch.equal(vectors(), exact)  # on a CPU
    for precision in ("bf16-mixed", "16-mixed", "mixed"):  # one arithmetic on a CPU
        assert torch.equal(vectors(precision), rounded)
    assert not torch.equal(rounded, exact)
    monkeypatch.setattr(precision_module, "resolved_precision", lambda given, device: "bf16-mixed")
    assert torch.equal(vectors(), rounded)  # where the device has it
    with pytest.raises(InputError, match="precision is mixed, 32-true, bf16-mixed or 16-mixed"):
        vectors("64-true")


def test_a_batch_that_does_not_fit_is_divided(model, monkeypatch):
    sequences = random_sequences(9, 0)
    whole = model.embed(sequences, pooling="mean")
    for backbone in model.backbones.values():
        forward = backbone.forward

        def limited(tokens, *, forward=forward, **known):
            if tokens.numel() > 130:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(tokens, **known)

        monkeypatch.setattr(backbone, "forward", limited)
    assert (model.embed(sequences, pooling="mean") - whole).abs().max() < 1e-5
    assert model.num_pieces > 0
    with pytest.raises(InputError, match="out of memory on cpu with one window of 200 residues"):
        model.embed("A" * 200)


@pytest.mark.parametrize(
    "given",
    [
        ["MKTAYIAK", "ACDW"],
        ("MKTAYIAK", "ACDW"),
        (s for s in ("MKTAYIAK", "ACDW")),
        [("a", "MKTAYIAK"), ("b", "ACDW")],
        [SeqRecord(Seq("MKTAYIAK"), id="a"), SeqRecord(Seq("ACDW"), id="b")],
        [Seq("MKTAYIAK"), "ACDW"],
        np.array(["MKTAYIAK", "ACDW"]),
    ],
    ids=["list", "tuple", "generator", "pairs", "records", "mixed", "array"],
)
def test_sequences_of_any_usual_kind(model, given):
    expected = model.embed(["MKTAYIAK", "ACDW"], pooling="mean")
    assert torch.equal(model.embed(given, pooling="mean"), expected)


def test_one_sequence_is_one_row(model):
    expected = model.embed(["MKTAYIAK"], pooling="mean")
    for one in ("MKTAYIAK", Seq("MKTAYIAK"), SeqRecord(Seq("MKTAYIAK"), id="a")):
        assert torch.equal(model.embed(one, pooling="mean"), expected)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"a": "MKT"}, "a dict is not a list of sequences"),
        ({"MKT", "MKV"}, "a set is not a list of sequences"),
        (b"MKT", "a bytes is not a list of sequences"),
        (3, "a int is not a list of sequences"),
        (None, "a NoneType is not a list of sequences"),
        (["MKT", None], "sequence 1 is a NoneType"),
        (["MKT", b"MKT"], "sequence 1 is a bytes"),
        ([["a", "MKT"]], "sequence 0 is a list"),
        ([("a", "MKT", "x")], "sequence 0 is a tuple"),
    ],
)
def test_what_is_no_sequence_is_refused(model, given, said):
    with pytest.raises(InputError) as caught:
        model.embed(given)
    assert str(caught.value) == (
        f"{said}; give strings, (id, sequence) pairs or Bio.SeqRecords, one or a list of them"
    )


def predictions(model: RDModel, data) -> list:
    with quiet_libraries():
        trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
        found = trainer.predict(model, data)
    assert found is not None
    return found


def test_a_trainer_predicts_tokens(model):
    tokens = tokens_of(model, ["MKTAYIAK", "ACDWEFGH", "LLLLLLLL"])
    for data in (DataLoader(tokens, batch_size=2), DataLoader(TensorDataset(tokens), batch_size=2)):
        found = torch.cat(predictions(model, data))
        assert found.shape == (3, 10, 16)
        assert (found - model(tokens)).abs().max() < 1e-5
    with pytest.raises(InputError, match=r"needs batches of tokens \(batch, length\), not a list"):
        predictions(model, DataLoader(["MKT", "MKV"], batch_size=2))


def other_tokens() -> Family:
    """The tiny family, with another token for each residue."""
    own = esm_tokenizer()
    table = np.where(own.table >= 4, 27 - own.table, own.table)
    return replace(tiny_family(), tokenizer=lambda: replace(own, table=table))


def test_fair_esms_alphabet_is_for_families_of_its_tokens(model):
    assert model.alphabet.cls_idx == esm_tokenizer().begin
    other = RDModel(other_tokens(), make_head())
    for ask in (lambda: other.alphabet, other.batch_converter):
        with pytest.raises(InputError, match="the family tiny reads other tokens than fair-esm's"):
            ask()
    assert other.embed(["MKT"], pooling="mean").shape == (1, 16)


BAD = [
    ({"sequences": ["MK", "M-K"]}, "sequence 1: gap '-' at position 2"),
    ({"sequences": [""]}, "sequence 0: the sequence is empty"),
    ({"sequences": ["MK"], "pooling": []}, "none is given"),
    ({"sequences": ["MK"], "level": "D"}, "no level 'D'"),
    ({"sequences": ["MK"], "width": 17}, "width is a whole number from 1 to 16, not 17"),
    ({"sequences": ["MK"], "width": 12, "level": "B"}, "not both"),
    ({"sequences": ["MK"], "overlap": 1022}, "overlap=1022 must be below"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_input(model, options, message):
    with pytest.raises(InputError) as error:
        model.embed(**options)
    assert message in str(error.value)
