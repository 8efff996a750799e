"""The paper's heads by name: from a server in the place of the Hub, by the client itself."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rd_lightning import RDHead, RDModel
from rd_lightning.embed import main as rd_embed
from rd_lightning.errors import InputError
from rd_lightning.families import Family, Member, register_family
from rd_lightning.head import official_hub
from rd_lightning.head.official_hub import official_name

from ..conftest import random_sequences, run_here, tiny_family
from . import test_hub
from .test_hub import SHA, served
from .test_official import arrays

REPO = official_hub.REPOSITORY
NAMES, DIMS = ["8M", "35M", "150M"], [8, 12, 16]


def scaler(a: str, b: str, kind: str = "pcr-incremental-1k") -> str:
    return f"weights/rd-scaler-{a}-{b}-{kind}.npz"


@pytest.fixture
def root(tmp_path) -> Path:
    """The repository: two kinds of two stages, and what else such a repository holds."""
    root = tmp_path / "server"
    (root / "weights").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in (1, 2):
        for kind in ("pcr-incremental-1k", "ridge-fbpca-5k"):
            found = arrays(DIMS[k - 1], DIMS[k], kind.split("-")[0], rng)
            np.savez(root / scaler(NAMES[k - 1], NAMES[k], kind), **found)
    (root / "weights/naive-scaler-8M-35M-None-incremental-1k.npz").write_bytes(b"x")
    (root / "README.md").write_text("the paper's")
    return root


CLIENT = """
import json, sys
from rd_lightning import RDHead
from rd_lightning.errors import InputError

for call in json.loads(sys.argv[1]):
    method, args, options = call
    try:
        head = getattr(RDHead, method)(*args, **options)
        known = head.report.context
        context = {key: known.get(key) for key in ("family", "repository", "revision")}
        print(json.dumps([head.digest(), context]))
    except InputError as error:
        print(json.dumps(str(error)))
"""


def client(tmp_path: Path, address: str, calls: list[Any], **environment: str) -> list[Any]:
    """What each call gave: [digest, context], or the message of its refusal."""
    lines = test_hub.client(CLIENT, tmp_path, address, json.dumps(calls), **environment)
    return [json.loads(line) for line in lines]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*was fitted on raw")
def test_by_name_equals_from_files_and_takes_no_other_file(tmp_path, root):
    first, second = scaler("8M", "35M"), scaler("35M", "150M")
    by_target = {
        "35M": RDHead.from_official(root / first).digest(),
        "150M": RDHead.from_official([root / first, root / second]).digest(),
    }
    context = {"family": "esm2", "repository": REPO, "revision": SHA}
    with served(root, f"/{REPO}") as (address, _, given):
        calls: list[Any] = [["from_official", [REPO], {"target": "35M"}]]
        assert client(tmp_path, address, calls) == [[by_target["35M"], context]]
        assert given == [first]
        calls = [
            ["from_official", [REPO, "150M"], {}],
            ["from_pretrained", ["official:150M"], {}],
            ["from_pretrained", [f"official:{REPO}:150M"], {"local_files_only": True}],
            ["from_pretrained", [f"official:150M@{SHA}"], {}],
        ]
        assert client(tmp_path, address, calls) == [[by_target["150M"], context]] * 4
        assert given == [first, second]  # the first was in the cache
        ridge = RDHead.from_official(root / "weights", "150M", kind="ridge-fbpca-5k")
        calls = [["from_official", [], {"target": "150M", "kind": "ridge-fbpca-5k"}]]
        assert client(tmp_path, address, calls) == [[ridge.digest(), context]]
        assert len(given) == 4
    # Without a network, from the cache.
    calls = [["from_pretrained", ["official:150M"], {}], ["from_official", [REPO, "150M"], {}]]
    offline = {"HF_HUB_OFFLINE": "1"}
    assert client(tmp_path, address, calls, **offline) == [[by_target["150M"], context]] * 2
    assert client(tmp_path, "http://127.0.0.1:9", calls[:1]) == [[by_target["150M"], context]]


def test_refusals_are_one_line(tmp_path, root):
    (root / scaler("35M", "150M")).write_bytes((root / scaler("35M", "150M")).read_bytes()[:-40])
    payload = np.array([Path("x")], dtype=object)
    np.savez(root / scaler("8M", "35M", "linear-x-1"), regressor__coef_=payload)
    other = {"target": "35M", "kind": "linear-incremental-1k"}
    with served(root, f"/{REPO}") as (address, _, given):
        calls: list[Any] = [
            ["from_official", [REPO, "650M"], {}],
            ["from_official", [REPO], other],
            ["from_official", [REPO, "150M"], {}],
            ["from_official", [REPO], {"target": "35M", "kind": "linear-x-1"}],
            ["from_official", [REPO, "35M"], {"revision": "v9"}],
            ["from_official", ["org/none", "35M"], {}],
            ["from_official", [REPO, "650M"], {"local_files_only": True}],
        ]
        said = client(tmp_path, address, calls)
        assert not {name for name in given if "naive" in name or "ridge" in name}
    has = "of pcr-incremental-1k it has 35M->150M, 8M->35M"
    assert said[0] == f"{REPO}: no {scaler('150M', '650M')} in the repository; {has}"
    assert said[1].endswith(
        "it has the kinds linear-x-1, pcr-incremental-1k, ridge-fbpca-5k (kind=...)"
    )
    again = "RDHead.from_official(..., force_download=True) downloads it again"
    assert re.search("not an .npz file, or one cut short or damaged", said[2])
    assert re.search("regressor__coef_ is a pickled Python object", said[3])
    assert said[2].endswith(again) and said[3].endswith(again)
    assert "no revision 'v9'" in said[4]
    assert "org/none: the scalers up to 35M; on the Hugging Face Hub: no such repo" in said[5]
    assert "is not in the cache, and the Hugging Face Hub cannot be asked" in said[6]
    empty = [["from_pretrained", ["official:35M"], {}]]
    (nothing,) = client(tmp_path, address, empty, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "new"))
    assert "not in the cache, and the network is not to be used" in nothing
    assert all(isinstance(line, str) and "\n" not in line for line in [*said, nothing])


# Names


def test_names():
    assert official_name("official:650M") == (REPO, "650M", None)
    assert official_name("official:org/name:3B@abc") == ("org/name", "3B", "abc")
    for name in ("fit/head", "org/name", Path("official:650M"), "officially"):
        assert official_name(name) is None
    for name in ("official:", "official:org:3B", "official:org/name:", "official:3B@"):
        with pytest.raises(InputError, match="named by their largest member, official:650M"):
            RDHead.from_pretrained(name)


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("official:650M")
    with pytest.raises(InputError, match="config.json: no such file; a head is a folder"):
        RDHead.from_pretrained("official:650M")


def test_members_and_kinds_that_there_are_not():
    for target, words in (
        (None, "name the largest member, target=..., one of 35M, 150M, 650M, 3B, 15B; or give"),
        ("7M", "no member '7M' in the family esm2: 8M, 35M"),
        ("8M", "8M is the smallest member of esm2"),
    ):
        with pytest.raises(InputError, match=words):
            RDHead.from_official(REPO, target)
    for kind in ("pcr", "lasso-x-1", "pcr-*-1k"):
        with pytest.raises(InputError, match="kind is a regressor, decomposition and number"):
            RDHead.from_official(REPO, "35M", kind=kind)


@pytest.mark.filterwarnings("ignore:.*was fitted on raw")
def test_a_copy_of_the_repository_on_the_disk(root, tmp_path):
    folder = root / "weights"
    (folder / "naive-scaler-8M-35M-None-incremental-1k.npz").unlink()
    with pytest.raises(InputError, match="a second scaler .* or its kind, such as kind="):
        RDHead.from_official(folder)
    kind = "pcr-incremental-1k"
    whole = RDHead.from_official(folder, kind=kind)
    part = RDHead.from_official(folder, "35M", kind=kind)
    assert whole.names == ("8M", "35M", "150M") and part.names == ("8M", "35M")
    assert part.digest() == whole.truncate("35M").digest()
    assert "family" not in whole.report.context
    with pytest.raises(InputError, match="no scaler to 3B; they lead to 35M, 150M"):
        RDHead.from_official(folder, "3B", kind=kind)
    with pytest.raises(InputError, match="no scaler of kind=a-b-c; the kinds there are: pcr-incr"):
        RDHead.from_official(folder, kind="a-b-c")
    with pytest.raises(InputError, match="is read from the disk; leave out revision"):
        RDHead.from_official(folder, kind=kind, revision="main")
    with pytest.raises(InputError, match="no such file"):
        RDHead.from_official("weights/rd-scaler-8M-35M-pcr-incremental-1k.npz")


# Through rd-embed


@pytest.fixture
def esm2() -> Family:
    """A family of that name whose members are small."""
    tiny = tiny_family()
    members = tuple(
        Member(name, m.width, "", m.num_layers, m.num_heads)
        for name, m in zip(NAMES, tiny.members, strict=True)
    )
    return register_family(Family("esm2", members, tiny.load))


@pytest.mark.filterwarnings("ignore:.*was fitted on raw")
@pytest.mark.usefixtures("esm2")
def test_rd_embed(root, tmp_path, fasta, monkeypatch):
    def snapshot(repo_id: str, *, allow_patterns: list[str], **_: Any) -> str:
        assert repo_id == REPO
        assert all((root / name).is_file() for name in allow_patterns)
        return str(root)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    sequences = random_sequences(6, 0)
    fasta(sequences)
    given = ("head=official:150M", "fasta=x.fasta", "out=emb", "format=npy")
    status, said = run_here(rd_embed, tmp_path, "rd-embed", *given, "assemble=false")
    assert status == 0, said
    status, said = run_here(rd_embed, tmp_path, "rd-embed", *given)
    assert status == 0 and "resuming an earlier run" in said, said
    found = torch.from_numpy(np.load(tmp_path / "emb/per-protein.npy"))
    model = RDModel.from_pretrained("official:150M")
    expected = model.embed(sequences, pooling="mean")
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    about = json.loads((tmp_path / "emb/metadata.json").read_text())
    assert about["family"] == "esm2" and about["head_digest"] == model.head.digest()

    # The repository has moved on: the vectors that are there are of another head.
    given = (*given[:2], "out=other", "format=npy")
    assert run_here(rd_embed, tmp_path, "rd-embed", *given, "assemble=false")[0] == 0
    np.savez(root / scaler("8M", "35M"), **arrays(8, 12, "pcr", np.random.default_rng(9)))
    status, said = run_here(rd_embed, tmp_path, "rd-embed", *given)
    assert status == 1 and "is of an unfinished run with other settings (head_digest" in said, said
