"""Held and streamed weights of RDModel and rd-embed: the same vectors, bit for bit."""

import h5py
import numpy as np
import pytest
import torch

from rd_lightning import JointMoments, RDModel, fit_chain
from rd_lightning.embed import main as rd_embed
from rd_lightning.embedding import job as module
from rd_lightning.errors import InputError
from rd_lightning.families.backbone import Backbone
from rd_lightning.families.streamed import StreamedLayers

from ..conftest import SEEDS, family_rows, random_sequences, run_here, tiny_family
from .test_model import make_head


def is_streamed(backbone) -> bool:
    return isinstance(backbone.model.layers, StreamedLayers)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@torch.no_grad()
def test_vectors_are_those_of_a_plain_model(seed, dtype):
    plain = RDModel(tiny_family(), make_head())
    sequences = random_sequences(6, seed)
    for offload, names in (("layers", "ABC"), (["B"], "B"), ("none", "")):
        model = RDModel(tiny_family(), make_head(), hold=dtype, offload=offload)
        assert model.weight_digests() == plain.weight_digests()
        assert "".join(k for k, b in model.backbones.items() if is_streamed(b)) == names
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            found, expected = (m.embed(sequences, pooling="mean") for m in (model, plain))
        assert torch.equal(found, expected)


def test_a_head_on_disk_with_streamed_layers(tmp_path, unchecked):
    make_head().save_pretrained(tmp_path)
    model = RDModel.from_pretrained(
        tmp_path, family=tiny_family(), hold=torch.bfloat16, offload="layers"
    )
    assert all(map(is_streamed, model.backbones.values()))
    assert not [name for name in model.state_dict() if ".layers." in name]
    with pytest.raises(InputError, match="held in bfloat16"):
        model.embed(["MKV"])
    with pytest.raises(InputError, match="offload is none or layers, not 'auto'"):
        RDModel(tiny_family(), make_head(), offload="auto")  # pyright: ignore


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_rd_embed_writes_the_same_wherever_the_weights_are(tmp_path, fasta, monkeypatch, precision):
    moments = JointMoments((32, 64)).update(family_rows(300, (32, 64), 0))
    head = fit_chain(moments, names=("50K", "200K"), context={"family": "mini"})
    head.save_pretrained(tmp_path / "head")
    fasta(random_sequences(30, 0))
    loaded, load = [], Backbone.load

    def kept(*arguments, **options):
        loaded.append(load(*arguments, **options))
        return loaded[-1]

    monkeypatch.setattr(Backbone, "load", kept)

    def vectors(name: str, *words: str):
        given = ("head=head", "fasta=x.fasta", f"out={name}.h5", f"trainer.precision={precision}")
        status, said = run_here(rd_embed, tmp_path, "rd-embed", *given, *words)
        assert status == 0, said
        with h5py.File(tmp_path / f"{name}.h5") as file:
            found: dict[str, np.ndarray] = {}

            def keep(key, item):
                if isinstance(item, h5py.Dataset):
                    found[key] = item[()]

            file.visititems(keep)
        assert found
        return found, said

    resident, said = vectors("none", "family.offload=none")
    streamed, more = vectors("layers", "family.offload=layers")
    monkeypatch.setattr(module, "held_dtype", lambda precision: None)
    plain, _ = vectors("plain")
    for other in (streamed, plain):
        assert resident.keys() == other.keys()
        assert all(np.array_equal(resident[key], other[key]) for key in resident)
    assert [is_streamed(b) for b in loaded] == [False] * 2 + [True] * 2 + [False] * 2
    kind = "bfloat16 (linear layers)" if precision == "bf16-mixed" else "float32"
    assert f"of weights in {kind}, all on the device" in " ".join(said.split())
    assert "layers of 50K, 200K in host memory" in " ".join(more.split())
