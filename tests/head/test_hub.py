"""The Hugging Face Hub: against a folder in its place, and its own client against a server."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
import traceback
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from rd_lightning import JointMoments, RDHead, RDModel, fit_chain
from rd_lightning.errors import InputError

from ..conftest import clean_environment, family_rows, tiny_family

FILES = ["README.md", "config.json", "head.safetensors"]


def make_head(seed: int = 0, **context: str) -> RDHead:
    """Of the widths of the bundled family."""
    moments = JointMoments((32, 64)).update(family_rows(400, (32, 64), seed))
    return fit_chain(moments, names=("50K", "200K"), context=context)


def refusal(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    response: Any = SimpleNamespace(headers={}, request=None, status_code=status)
    return kind(f"{status} Client Error.\n\nfor url: https://huggingface.co", response=response)


class LocalHub:
    """A folder of repositories, and what was asked of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.downloads: list[dict[str, Any]] = []
        self.created: list[dict[str, Any]] = []
        self.uploads: list[dict[str, Any]] = []
        self.failure: Exception | None = None

    def snapshot_download(self, repo_id: str, *, allow_patterns: list[str], **options: Any) -> str:
        self.downloads.append({"repo_id": repo_id, "files": sorted(allow_patterns), **options})
        if self.failure:
            raise self.failure
        if not (self.root / repo_id).is_dir():
            raise refusal(RepositoryNotFoundError, 404)
        folder = self.root / f"snapshot{len(self.downloads)}"
        folder.mkdir()
        for name in allow_patterns:
            if (self.root / repo_id / name).exists():
                shutil.copy(self.root / repo_id / name, folder)
        return str(folder)

    def create_repo(self, api: Any, repo_id: str, **options: Any) -> Any:
        self.created.append({"repo_id": repo_id, "token": api.token, **options})
        if self.failure:
            raise self.failure
        return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"me/{repo_id}")

    def upload_folder(self, api: Any, *, repo_id: str, folder_path: str, **options: Any) -> Any:
        self.uploads.append({"repo_id": repo_id, "token": api.token, **options})
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        address = f"https://huggingface.co/{repo_id}"
        pull = f"{address}/discussions/1" if options["create_pr"] else None
        return SimpleNamespace(commit_url=f"{address}/commit/1", pr_url=pull)

    def files(self, repo_id: str) -> list[str]:
        return sorted(p.name for p in (self.root / repo_id).rglob("*"))


@pytest.fixture
def hub(tmp_path, monkeypatch) -> LocalHub:
    found = LocalHub(tmp_path / "hub")
    found.root.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", found.snapshot_download)
    for name in ("create_repo", "upload_folder"):
        method = getattr(found, name)
        monkeypatch.setattr(
            f"huggingface_hub.HfApi.{name}",
            lambda api, *a, method=method, **o: method(api, *a, **o),
        )
    return found


def same(a: RDHead, b: RDHead) -> bool:
    pairs = zip(a.named_buffers(), b.named_buffers(), strict=True)
    return a.report == b.report and all(n == m and torch.equal(x, y) for (n, x), (m, y) in pairs)


def test_a_head_goes_and_comes_back_bit_for_bit(hub, tmp_path):
    head = make_head(family="mini")
    assert head.push_to_hub("org/name") == "https://huggingface.co/org/name/commit/1"
    assert hub.files("org/name") == FILES
    head.save_pretrained(tmp_path / "folder")
    for name in ("config.json", "head.safetensors"):
        pushed = hub.root / "org/name" / name
        assert pushed.read_bytes() == (tmp_path / "folder" / name).read_bytes()
    again = RDHead.from_pretrained("org/name")
    assert same(head, again)
    assert again.digest() == head.digest()
    assert hub.downloads[0]["files"] == FILES


def test_a_model_goes_and_comes_back(hub):
    head = make_head(family="mini")
    model = RDModel("mini", head)
    model.push_to_hub("org/name")
    assert hub.files("org/name") == FILES
    again = RDModel.from_pretrained("org/name", width=40, revision="v1")
    assert again.width == 40
    assert hub.downloads[-1]["revision"] == "v1"
    assert torch.equal(
        again.embed("MKTAYIAKQR", pooling="mean"),
        model.embed("MKTAYIAKQR", pooling="mean", width=40),
    )
    assert same(again.head, head)


def test_a_model_gives_its_familys_name_to_a_head_without_one(hub):
    head = make_head()
    with pytest.raises(InputError, match="does not say which family"):
        RDModel("mini", head).head.push_to_hub("org/head")
        RDModel.from_pretrained("org/head")
    RDModel("mini", head).push_to_hub("org/model")
    assert RDModel.from_pretrained("org/model").family.name == "mini"
    assert head.report.context == {}


def test_a_model_pushes_up_to_its_level_and_as_it_was_trained(hub):
    moments = JointMoments((8, 12, 16)).update(family_rows(400, (8, 12, 16), 0))
    head = fit_chain(moments, names=("A", "B", "C"))
    model = RDModel(tiny_family(), head, level="B", freeze=False)
    with torch.no_grad():
        model.head.get_parameter("bias_1").add_(1)
    model.push_to_hub("org/name")
    again = RDHead.from_pretrained("org/name")
    assert again.names == ("A", "B")
    assert torch.equal(again.get_buffer("bias_1"), head.get_buffer("bias_1") + 1)
    assert "trained since" in (hub.root / "org/name/README.md").read_text(encoding="utf-8")
    assert isinstance(model.head.bias_1, torch.nn.Parameter)


def test_options_are_passed_on(hub, tmp_path):
    head = make_head()
    address = head.push_to_hub(
        "name", private=True, token="t", branch="b", create_pr=True, commit_message="m"
    )
    assert address == "https://huggingface.co/me/name/discussions/1"
    assert hub.created == [{"repo_id": "name", "private": True, "token": "t", "exist_ok": True}]
    assert hub.uploads == [
        {
            "repo_id": "me/name",
            "token": "t",
            "revision": "b",
            "create_pr": True,
            "commit_message": "m",
        }
    ]
    options: dict[str, Any] = {
        "revision": "b",
        "token": "t",
        "cache_dir": tmp_path / "cache",
        "force_download": True,
        "local_files_only": True,
    }
    RDHead.from_pretrained("me/name", **options)
    assert hub.downloads == [{"repo_id": "me/name", "files": FILES, **options}]
    with pytest.raises(TypeError, match="unexpected keyword argument 'revison'"):
        RDHead.from_pretrained("me/name", revison="b")


@pytest.mark.parametrize("family", ["mini", None])
def test_the_cards_code_runs(hub, family):
    head = make_head(**({"family": family} if family else {}))
    head.push_to_hub("name")
    card = (hub.root / "me/name/README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert hub.downloads[0]["repo_id"] == "me/name"
    assert names["vectors" if family else "z"].shape == ((1, 64) if family else (10, 64))


def test_a_local_folder_comes_first(hub):
    here, there = make_head(1), make_head(2)
    there.push_to_hub("org/name")
    here.save_pretrained("org/name")
    assert sorted(p.name for p in Path("org/name").iterdir()) == ["config.json", "head.safetensors"]
    assert same(RDHead.from_pretrained("org/name"), here)
    shutil.rmtree("org/name")
    assert same(RDHead.from_pretrained("org/name"), there)
    Path("org").joinpath("name").write_text("a file")
    with pytest.raises(InputError, match="org/name/config.json: no such file; a head is a folder"):
        RDHead.from_pretrained("org/name")
    assert len(hub.downloads) == 1


PATHS = [
    Path("org/name"), "name", "./org/name", "../org/name", "/org/name", "org/name/", "a/b/c",
    "~/name", "org/.name", "org/a..b", "org/a--b", "org/a b", "",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", [RDHead, RDModel])
def test_what_is_no_name_of_a_repository_is_a_folder(hub, path, kind):
    with pytest.raises(InputError, match="config.json: no such file; a head is a folder"):
        kind.from_pretrained(path)
    assert not hub.downloads


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


NOT_CACHED = "Cannot find an appropriate cached snapshot"
FAILURES = {
    "gated": (refusal(GatedRepoError, 403), "access is by request"),
    "revision": (refusal(RevisionNotFoundError, 404), "no revision 'v9'; name a branch"),
    "forbidden": (refusal(HfHubHTTPError, 403), r"not allowed \(HTTP 403\); log in"),
    "server": (refusal(HfHubHTTPError, 500), "HfHubHTTPError: 500 Client Error. for url"),
    "cache": (LocalEntryNotFoundError(NOT_CACHED), "not in the cache, and the network"),
    "offline": (
        caused(LocalEntryNotFoundError(NOT_CACHED), OfflineModeIsEnabled("offline")),
        "leave out local_files_only=True and HF_HUB_OFFLINE=1",
    ),
    "network": (
        caused(
            LocalEntryNotFoundError(NOT_CACHED), ConnectionError("name resolution\nfailed " * 99)
        ),
        "ConnectionError: name resolution failed .*; check the network and try again",
    ),
    "timeout": (TimeoutError(), "TimeoutError: no reason given; check the network"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures_are_one_line(hub, name):
    hub.failure, message = FAILURES[name]
    where = "org/name: no such folder; on the Hugging Face Hub: "
    with pytest.raises(InputError, match=where + ".*" + message) as error:
        RDHead.from_pretrained("org/name", revision="v9", token="hf_secret")
    text = "".join(traceback.format_exception(error.value))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 320
    assert text.count("Traceback") == 1
    assert "hf_secret" not in str(error.value)


def test_a_missing_repository(hub):
    for kind in (RDHead, RDModel):
        with pytest.raises(InputError) as error:
            kind.from_pretrained("org/name")
        assert str(error.value) == (
            "org/name: no such folder; on the Hugging Face Hub: no such repository, or none that "
            "you may use; check the name, log in with `hf auth login` or pass token=..."
        )


@pytest.mark.parametrize("missing", ["config.json", "head.safetensors"])
def test_a_repository_that_is_not_a_head(hub, missing):
    make_head().push_to_hub("org/name")
    (hub.root / "org/name" / missing).unlink()
    with pytest.raises(InputError, match=f"org/name: the repository .* has no {missing}; a head"):
        RDHead.from_pretrained("org/name")


def test_an_upload_that_is_refused(hub):
    hub.failure = refusal(HfHubHTTPError, 401)
    with pytest.raises(InputError) as error:
        make_head().push_to_hub("org/name", token="hf_secret")
    assert str(error.value) == (
        "org/name: cannot be uploaded to the Hugging Face Hub: not allowed (HTTP 401); log in with "
        "`hf auth login` or pass token=..., one that may do this"
    )
    assert "".join(traceback.format_exception(error.value)).count("Traceback") == 1
    assert not hub.uploads


LAZY = """
import sys
import rd_lightning.head.head, rd_lightning.head.hub, rd_lightning.head.model_card
assert "huggingface_hub" not in sys.modules
rd_lightning.head.head.RDHead.from_pretrained("folder")
assert "huggingface_hub" not in sys.modules
"""


def test_a_local_folder_needs_no_client(tmp_path):
    make_head().save_pretrained(tmp_path / "folder")
    subprocess.run(
        [sys.executable, "-c", LAZY], cwd=tmp_path, check=True, env=clean_environment(), timeout=100
    )


SHA = "1" * 40
CLIENT = """
import sys
from huggingface_hub import constants
from rd_lightning import RDHead
from rd_lightning.errors import InputError

head = RDHead.from_pretrained("folder")
print(head.push_to_hub("org/name", token="hf_secret"))
for options in ({}, {"revision": "main"}, {"local_files_only": True}, {"force_download": True}):
    again = RDHead.from_pretrained("org/name", token="hf_secret", **options)
    assert again.digest() == head.digest() and again.report == head.report, options
for name, options in (
    ("org/other", {}),
    ("org/name", {"revision": "v9"}),
    ("org/other", {"local_files_only": True}),
):
    try:
        RDHead.from_pretrained(name, **options)
    except InputError as error:
        print(error)
constants.ENDPOINT = "http://127.0.0.1:9"
assert RDHead.from_pretrained("org/name").digest() == head.digest()
try:
    RDHead.from_pretrained("org/other")
except InputError as error:
    print(error)
"""


@contextmanager
def served(root: Path, repo: str = "/org/name"):
    """A server that does what the Hub does with small files of one repository: (its address, tokens
    it saw, files it gave)."""
    tokens, given = set(), []

    def files() -> dict[str, Path]:
        return {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}

    class Handler(BaseHTTPRequestHandler):
        def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path in (f"/api/models{repo}/revision/{name}" for name in ("main", SHA)):
                siblings = [{"rfilename": name} for name in files()]
                info = {"id": repo[1:], "sha": SHA, "siblings": siblings}
                self.reply(200, json.dumps(info).encode(), Content_Type="application/json")
            elif path == f"/api/models{repo}/tree/{SHA}":
                tree = [
                    {"type": "file", "path": name, "size": p.stat().st_size, "oid": "0"}
                    for name, p in files().items()
                ]
                self.reply(200, json.dumps(tree).encode(), Content_Type="application/json")
            elif path.startswith(f"{repo}/resolve/{SHA}/"):
                name = path.removeprefix(f"{repo}/resolve/{SHA}/")
                data = (root / name).read_bytes()
                etag = f'"{hashlib.sha1(name.encode() + data).hexdigest()}"'
                given.extend([name] if self.command == "GET" else [])
                self.reply(200, data, ETag=etag, X_Repo_Commit=SHA)
            else:
                known = path.startswith(f"/api/models{repo}/")
                self.reply(404, X_Error_Code="RevisionNotFound" if known else "RepoNotFound")

        do_HEAD = do_GET

        def do_POST(self) -> None:
            tokens.add(self.headers.get("Authorization"))
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            if self.path.endswith("/preupload/main"):
                files = [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in json.loads(body)["files"]
                ]
                answer: dict[str, Any] = {"files": files}
            elif self.path.endswith("/commit/main"):
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        data = base64.b64decode(line["value"]["content"])
                        (root / line["value"]["path"]).write_bytes(data)
                answer = {"commitUrl": f"{address}/org/name/commit/{SHA}", "commitOid": SHA}
            elif self.path == "/api/repos/create":
                answer = {"url": f"{address}/org/name"}
            else:
                answer = {"warnings": [], "errors": []}
            self.reply(200, json.dumps(answer).encode(), Content_Type="application/json")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield address, tokens, given
    finally:
        server.shutdown()
        server.server_close()


def client(code: str, folder: Path, address: str, *words: str, **environment: str) -> list[str]:
    """Lines that a program prints with the client's own library, the Hub being at that address."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        env={
            **clean_environment(),
            "HF_HUB_OFFLINE": "0",
            "HF_ENDPOINT": address,
            "HF_HOME": str(folder / "home"),
            "NO_PROXY": "127.0.0.1",
            **environment,
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_with_the_real_client(tmp_path):
    """The options exist, files of one commit are cached, every refusal is understood."""
    make_head(family="mini").save_pretrained(tmp_path / "folder")
    root = tmp_path / "server"
    root.mkdir()
    with served(root) as (address, tokens, _):
        commit, *refusals = client(CLIENT, tmp_path, address)
    assert commit == f"{address}/org/name/commit/{SHA}"
    assert sorted(p.name for p in root.iterdir()) == FILES
    assert tokens == {"Bearer hf_secret"}
    where = "no such folder; on the Hugging Face Hub: "
    absent, revision, uncached, unreached = refusals
    assert absent.startswith(f"org/other: {where}no such repository")
    assert revision.startswith(f"org/name: {where}no revision 'v9'")
    assert uncached.startswith(f"org/other: {where}not in the cache")
    assert unreached.startswith(f"org/other: {where}Connect")
