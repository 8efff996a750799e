"""The files of models: from a server in the place of the Hub, by the client itself."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rd_lightning.errors import InputError
from rd_lightning.families.hub_files import is_repository, weight_files

from ..head import test_hub
from ..head.test_hub import SHA, served
from .test_esm2_hub import fair_esm2, small, write_hub

CLIENT = """
import json, sys
from dataclasses import replace
from rd_lightning.errors import InputError
from rd_lightning.families import Member, get_family
from rd_lightning.families.backbone import Backbone
from rd_lightning.families.download import download_missing, said_of_source, to_download
from rd_lightning.families.family import Repository

for source, revision in json.loads(sys.argv[1]):
    member = Member(
        "8M", 8, "esm2_t6_8M_UR50D", 2, 2,
        repository=Repository(revision), origin="esm2/8M", source=source,
    )
    try:
        missing = [d.name for d in to_download([member], None)]
        download_missing([member], None)
        digest = Backbone.load(get_family("esm2"), member).digest()
        print(json.dumps([missing, digest, said_of_source([member], None)]))
    except InputError as error:
        print(json.dumps(str(error)))
"""
REPOSITORY = "/facebook/esm2_t6_8M_UR50D"
OF_HUB = "8M of files of the Hugging Face Hub"


def client(tmp_path: Path, address: str, calls: list, **environment: str) -> list:
    places = {"TORCH_HOME": str(tmp_path / "torch"), **environment}
    lines = test_hub.client(CLIENT, tmp_path, address, json.dumps(calls), **places)
    return [json.loads(line) for line in lines]


def digest_of(tmp_path: Path) -> str:
    from rd_lightning.families import get_family
    from rd_lightning.families.backbone import Backbone

    return Backbone.load(get_family("esm2"), replace(small(), source="hub"), tmp_path).digest()


@pytest.mark.slow
@pytest.mark.parametrize(("parts", "pickled"), [(1, False), (2, True)])
def test_esm2_is_downloaded_once_and_no_more_than_it_needs(tmp_path, parts, pickled):
    """Of safetensors where there are any, else of pickled tensors; never both, and no other
    framework's."""
    root = tmp_path / "server"
    write_hub(fair_esm2(8, 2, 2), root, parts=parts, pickled=pickled)
    others = ["tf_model.h5", "pytorch_model_600k.bin"] + ([] if pickled else ["pytorch_model.bin"])
    for name in others:
        (root / name).write_bytes(b"x")
    (root / "config.json").write_text("{}")
    (tmp_path / "here").mkdir()
    write_hub(fair_esm2(8, 2, 2), tmp_path / "here" / "esm2_t6_8M_UR50D")
    digest = digest_of(tmp_path / "here")
    with served(root, REPOSITORY) as (address, _, given):
        found = client(tmp_path, address, [["hub", SHA], ["auto", SHA], ["hub", SHA]])
        assert found == [[["8M"], digest, OF_HUB], [[], digest, OF_HUB], [[], digest, OF_HUB]]
        weights = {path.name for path in weight_files(root)} if pickled else {"model.safetensors"}
        index = {"pytorch_model.bin.index.json"} if parts > 1 else set()
        assert sorted(given) == sorted({"config.json"} | weights | index)
    # Without the server, from the cache; and with none.
    nowhere = "http://127.0.0.1:9"
    assert client(tmp_path, nowhere, [["hub", SHA]]) == [[[], digest, OF_HUB]]
    offline = client(tmp_path, nowhere, [["hub", "0" * 40]], HF_HUB_OFFLINE="1")
    assert offline[0].startswith(f"{REPOSITORY[1:]} on the Hugging Face Hub: not in the cache")


def test_refusals_are_one_line(tmp_path):
    root = tmp_path / "server"
    root.mkdir()
    (root / "config.json").write_text("{}")
    with served(root, REPOSITORY) as (address, _, _given):
        empty, revision = client(tmp_path, address, [["hub", SHA], ["hub", "v9"]])
    assert empty.endswith("has neither model.safetensors nor pytorch_model.bin")
    assert "on the Hugging Face Hub: no revision 'v9'" in revision
    with served(root, "/org/other") as (address, _, _given):
        (absent,) = client(tmp_path, address, [["hub", SHA]], HF_HOME=str(tmp_path / "new"))
    assert "on the Hugging Face Hub: no such repository" in absent


def test_what_is_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "here").mkdir(parents=True)
    assert is_repository("org/name")
    for place in ("org/here", "name", "/org/name", "a/b/c", "esm2_t6_8M_UR50D"):
        assert not is_repository(place), place


def test_parts_that_an_index_names(tmp_path):
    assert weight_files(tmp_path) == []
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {"a": "x-1.safetensors", "b": "../x-2.safetensors"}})
    )
    assert weight_files(tmp_path) == [tmp_path / "x-1.safetensors", tmp_path / "x-2.safetensors"]
    for damaged in ("{", "[]", '{"weight_map": [1]}'):
        index.write_text(damaged)
        with pytest.raises(InputError, match="index.json: damaged .*; download it again"):
            weight_files(tmp_path)
