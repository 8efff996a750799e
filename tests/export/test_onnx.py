"""Exported files against the models they come from."""

import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

import rd_lightning
from rd_lightning import JointMoments, RDHead, RDModel, fit_chain
from rd_lightning.errors import InputError
from rd_lightning.export import onnx as export
from rd_lightning.export import program, to_exported, to_onnx
from rd_lightning.families import MINI, Family

from ..conftest import SEEDS, family_rows, random_sequences, tiny_family

NEEDED = ("onnx", "onnxscript", "onnxruntime")
needs_onnx = pytest.mark.skipif(
    any(find_spec(package) is None for package in NEEDED),
    reason='needs onnx, onnxscript and onnxruntime: pip install "rd-lightning[onnx]"',
)


@pytest.fixture(autouse=True, scope="module")
def _no_checks_of_types():
    """Those that the tests add cannot be traced."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def make_head(family: Family, dtype: torch.dtype = torch.float32) -> RDHead:
    names, dims = zip(*((m.name, m.width) for m in family.members), strict=True)
    moments = JointMoments(dims).update(family_rows(400, dims, 0))
    return fit_chain(moments, names=names, dtype=dtype, context={"family": family.name})


def make_model(family: Family) -> RDModel:
    return RDModel(family, make_head(family))


def load(path: Path) -> Callable[..., torch.Tensor]:
    """The file as a function of tensors by the names of its inputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(**inputs: torch.Tensor) -> torch.Tensor:
        (z,) = session.run(None, {name: t.numpy() for name, t in inputs.items()})
        return torch.from_numpy(z)

    return run


def record_of(path: Path) -> dict:
    import onnx

    found = onnx.load(path, load_external_data=False).metadata_props
    return json.loads({entry.key: entry.value for entry in found}["rd_lightning"])


def batches(model: RDModel) -> list[torch.Tensor]:
    """Of many shapes: alone, of one residue, padded, with <mask>."""
    found = [["A"], ["MKTAYIAKQR"], ["MK", "ACDEFGHIKLMNPQRSTVWY"], ["A<mask>C", "<mask>", "MKTV"]]
    for seed in SEEDS:
        residues = random_sequences(2 + 3 * seed, seed, longest=30 + 60 * seed)
        found.append([s[:3] + "<mask>" + s[3:] for s in residues] + ["ACXBZUO"])
    convert = model.batch_converter()
    return [convert([(str(i), s) for i, s in enumerate(batch)])[2] for batch in found]


def assert_same(run: Callable[..., torch.Tensor], model: RDModel, **options: int | str) -> None:
    for tokens in batches(model):
        there = tokens != model.alphabet.padding_idx
        expected = model(tokens, **options)
        found = run(tokens=tokens)
        assert found.dtype == torch.float32
        assert found.shape == expected.shape
        assert (found - expected)[there].abs().max() < 1e-5


def members(head: RDHead, *leading: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(*leading, d, generator=generator, dtype=head.dtype) for d in head.member_dims
    ]


def inputs_of(names: Sequence[str], embeddings: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"h_{name}": h for name, h in zip(names, embeddings, strict=True)}


@pytest.mark.slow
@needs_onnx
def test_a_model_for_any_batch(tmp_path):
    model = make_model(MINI)
    deviation = to_onnx(model, tmp_path / "folder" / "model.onnx", level="200K")
    assert deviation is not None
    assert 0 <= deviation < 1e-5
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["model.onnx"]
    assert_same(load(tmp_path / "folder" / "model.onnx"), model, level="200K")


@needs_onnx
def test_the_columns_asked_for(tmp_path, capfd):
    """The file says what made it and names no path of this machine; nothing is printed."""
    model = make_model(tiny_family())
    to_onnx(model, tmp_path / "x.onnx", width=15)
    assert_same(load(tmp_path / "x.onnx"), model, width=15)
    record = record_of(tmp_path / "x.onnx")
    assert set(record.pop("versions")) >= {"torch", "onnx", "onnxscript", "rd-lightning"}
    assert record == {
        "kind": "model",
        "levels": ["A", "B", "C"],
        "dims": [8, 12, 16],
        "width": 15,
        "head_digest": model.head.digest(),
        "family": "tiny",
        "weights": model.weight_digests(),
    }
    written = (tmp_path / "x.onnx").read_bytes()
    assert str(Path(rd_lightning.__file__).parent).encode() not in written
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


@needs_onnx
def test_the_smallest_member_alone(tmp_path):
    """No member that the columns do not need is in the file."""
    import onnx

    model = make_model(tiny_family())
    to_onnx(RDModel(tiny_family(), model.head, width=7, freeze=False), tmp_path / "x.onnx")
    assert_same(load(tmp_path / "x.onnx"), model, width=7)
    record = record_of(tmp_path / "x.onnx")
    assert (record["levels"], list(record["weights"])) == (["A"], ["A"])
    weights = onnx.load(tmp_path / "x.onnx").graph.initializer
    in_file = sum(np.prod(w.dims) for w in weights)
    assert in_file < sum(p.numel() for p in model.backbones["A"].parameters())


@needs_onnx
@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 16), (torch.float64, 10)])
def test_a_head_for_any_batch(dtype, width, tmp_path, recwarn):
    import onnx

    head = make_head(tiny_family(), dtype)
    names = "ABC" if width == 16 else "AB"
    to_onnx(head, tmp_path / "head.onnx", width=width)
    assert not recwarn.list
    record = record_of(tmp_path / "head.onnx")
    assert (record["kind"], record["levels"], record["width"]) == ("head", list(names), width)
    for tensor in onnx.load(tmp_path / "head.onnx").graph.input:
        axes = tensor.type.tensor_type.shape.dim
        assert [axis.dim_param for axis in axes[:2]] == ["batch", "length"]
    run = load(tmp_path / "head.onnx")
    for leading in ((1, 1), (1, 40), (5, 1), (3, 11), (0, 4)):
        h = members(head, *leading)
        z = run(**inputs_of(names, h[: len(names)]))
        assert z.dtype == dtype
        assert torch.equal(z[..., :8], h[0])
        torch.testing.assert_close(z, head(h)[..., :width], rtol=0, atol=1e-5)


@needs_onnx
@pytest.mark.parametrize("width", [14, 4])
def test_levels_narrower_than_their_members(width, tmp_path):
    dims = (8, 12, 16)
    moments = JointMoments(dims).update(family_rows(400, dims, 0))
    head = fit_chain(moments, names="ABC", level_widths=(4, 9, 14))
    to_onnx(head, tmp_path / "head.onnx", width=width)
    h = members(head, 3, 11)[: 3 if width == 14 else 1]
    z = load(tmp_path / "head.onnx")(**inputs_of("ABC"[: len(h)], h))
    torch.testing.assert_close(z, head(h), rtol=0, atol=1e-5)


@needs_onnx
def test_the_smallest_head(tmp_path):
    """Of one member, with a name that no variable could have."""
    to_onnx(RDHead(["0.6B"], [4], [], make_head(tiny_family()).report), tmp_path / "x.onnx")
    h = torch.randn(2, 3, 4)
    assert torch.equal(load(tmp_path / "x.onnx")(h_0_6B=h), h)


@needs_onnx
def test_weights_too_large_for_one_file(tmp_path, monkeypatch):
    """They stand beside it, under a name that tells models apart; both move together."""
    monkeypatch.setattr(export, "ONE_FILE_BYTES", 1000)
    folder = tmp_path / "folder"
    heads = [make_head(MINI), make_head(MINI).trainable_()]
    heads[1].mapping_1.data += 1
    assert to_onnx(heads[0], folder / "x.onnx") is not None
    assert to_onnx(heads[1], folder / "x.onnx", check=False) is None
    assert (folder / "x.onnx").stat().st_size < 10_000
    data = sorted(p.name for p in folder.iterdir() if p.name != "x.onnx")
    assert len(data) == 2
    assert all(name.startswith("x.onnx.") and name.endswith(".data") for name in data)
    folder.rename(tmp_path / "moved")
    h = members(heads[1], 2, 5)
    z = load(tmp_path / "moved" / "x.onnx")(**inputs_of(heads[1].names, h))
    torch.testing.assert_close(z, heads[1](h), rtol=0, atol=1e-5)


@needs_onnx
def test_a_file_that_deviates_is_not_written(tmp_path, monkeypatch):
    (tmp_path / "x.onnx").write_text("what was there")
    run = program.HeadAlone.forward
    calls = []

    def other(self, embeddings):
        calls.append(self)
        return run(self, embeddings) + len(calls)  # 1 when traced, more when compared

    monkeypatch.setattr(program.HeadAlone, "forward", other)
    with pytest.raises(InputError, match=r"x\.onnx is not written: ONNX Runtime deviates from"):
        to_onnx(make_head(tiny_family()), tmp_path / "x.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["x.onnx"]
    assert (tmp_path / "x.onnx").read_text() == "what was there"


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_missing_packages(tmp_path, monkeypatch, missing):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == missing else True)
    with pytest.raises(InputError) as error:
        to_onnx(make_head(tiny_family()), tmp_path / "x.onnx")
    assert str(error.value) == (
        f'{missing}, which export needs, is missing: pip install "rd-lightning[onnx]"'
    )


@needs_onnx
def test_without_onnxruntime(tmp_path, monkeypatch):
    known = find_spec
    monkeypatch.setattr(export, "find_spec", lambda n: None if n == "onnxruntime" else known(n))
    assert to_onnx(make_head(tiny_family()), tmp_path / "x.onnx") is None
    assert (tmp_path / "x.onnx").is_file()


def test_bad_input():
    model = make_model(tiny_family())
    with pytest.raises(InputError, match="no level 'D'"):
        to_exported(model, level="D")
    with pytest.raises(InputError, match="not both"):
        to_exported(model.head, level="A", width=3)
    with pytest.raises(InputError, match=r"float32 are exported, and .* is torch.bfloat16"):
        to_exported(model.bfloat16())


def test_a_program_of_torch_export(tmp_path):
    """Through a file; for any batch; with the columns asked for."""
    model = make_model(tiny_family())
    torch.export.save(to_exported(model, width=10), tmp_path / "x.pt2")
    program = torch.export.load(tmp_path / "x.pt2").module()
    assert_same(lambda tokens: program(tokens), model, width=10)
    program = to_exported(model.head).module()
    for leading in ((1, 1), (1, 40), (5, 1), (3, 11)):
        h = members(model.head, *leading)
        # Sums of up to 36 float32 products of O(1), in whatever order: 36 * 2^-24 times a few.
        torch.testing.assert_close(program(h), model.head(h), rtol=0, atol=1e-5)
