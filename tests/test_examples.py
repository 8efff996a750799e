"""The examples as a user types them: on made-up data, and on a real assay where there is one."""

import csv
import re
import runpy
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from rd_lightning import JointMoments, RDModel, fit_chain

from .conftest import SHARED, clean_environment, family_rows, random_sequences

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "train_on_assay.py"
RAY = SCRIPT.with_name("embed_with_ray.py")
SERVE = SCRIPT.with_name("serve_embeddings.py")
REAL = SHARED / "proteingym" / "AMFR_HUMAN_Tsuboyama_2023_4G3O.singles.csv"
LINE = re.compile(r"^epoch +(\d+)  held-out Spearman  (.*)$", re.MULTILINE)


@pytest.fixture
def head(tmp_path) -> Path:
    moments = JointMoments((32, 64)).update(family_rows(600, (32, 64), 0))
    found = fit_chain(moments, names=("50K", "200K"), context={"family": "mini"})
    found.save_pretrained(tmp_path / "head")
    return tmp_path / "head"


def run(monkeypatch, capfd, *arguments: object) -> list[dict[str, float]]:
    """Spearman by level, epoch after epoch."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = LINE.findall(capfd.readouterr().out)
    assert [int(number) for number, _ in lines] == list(range(1, len(lines) + 1))
    return [
        dict(zip(w[::2], map(float, w[1::2]), strict=True)) for _, r in lines if (w := r.split())
    ]


def test_it_trains_on_what_a_language_model_can_see(head, tmp_path, monkeypatch, capfd):
    """The score is the share of one amino acid: learnt in a few epochs, at every level."""
    wild = random_sequences(1, 0)[0][:1] + "ACDEFGHIKLMNPQRSTVWY"
    with open(tmp_path / "x.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["mutated_sequence", "DMS_score", "fold_random_5"])
        for i in range(120):
            count = i % 7
            writer.writerow([wild[: len(wild) - count] + "W" * count, count, i % 5])
    found = run(monkeypatch, capfd, head, tmp_path / "x.csv", "--epochs", 4)
    assert len(found) == 4 and set(found[-1]) == {"50K", "200K"}
    assert min(found[-1].values()) > 0.9


def test_ray_gives_what_the_model_gives(head, tmp_path, fasta):
    pytest.importorskip("ray.data", reason='pip install "ray[data]"')
    parquet = pytest.importorskip("pyarrow.parquet")
    sequences = random_sequences(20, 0)
    words = [str(head), str(fasta(sequences)), str(tmp_path / "out")]
    variables = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(RAY.parents[1])}
    done = subprocess.run(
        [sys.executable, str(RAY), *words],
        env={**clean_environment(), **variables},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = parquet.read_table(tmp_path / "out").to_pylist()
    found = {row["id"]: torch.tensor(row["vector"]) for row in rows}
    expected = RDModel.from_pretrained(head).embed(sequences, pooling="mean")
    assert found.keys() == {f"s{i}" for i in range(20)}
    for i, vector in enumerate(expected):
        assert torch.allclose(found[f"s{i}"], vector, atol=1e-5)


@pytest.fixture
def server(head, monkeypatch):
    """A client of the example in ``client``, the sizes of its batches in ``sizes``, and the seconds
    that a batch takes at least in ``pause``."""
    pytest.importorskip("fastapi", reason='pip install ".[serve]"')
    client = pytest.importorskip("starlette.testclient", reason="pip install httpx")
    monkeypatch.setenv("HEAD", str(head))
    app, sizes, pause = runpy.run_path(str(SERVE))["app"], [], [0.0]
    embed = RDModel.embed

    def counted(self, sequences, **options):
        sizes.append(len(sequences))
        time.sleep(pause[0])
        if "FAIL" in sequences:
            raise RuntimeError("no room")
        return embed(self, sequences, **options)

    monkeypatch.setattr(RDModel, "embed", counted)
    with client.TestClient(app, raise_server_exceptions=False) as opened:
        yield {"client": opened, "sizes": sizes, "pause": pause}


def test_the_server_gives_what_the_model_gives(server, head):
    model, client, sequences = RDModel.from_pretrained(head), server["client"], ["MKTAYIAK", "MV"]
    assert client.get("/levels").json() == {"50K": 32, "200K": 64}
    for chosen, width in (({}, 64), ({"level": "50K"}, 32), ({"width": 10}, 10)):
        answer = client.post("/embed", json={"sequences": sequences, **chosen})
        assert answer.status_code == 200 and answer.json()["width"] == width
        expected = model.embed(sequences, pooling="mean", **chosen)
        assert torch.allclose(torch.tensor(answer.json()["embeddings"]), expected, atol=1e-5)


def test_the_server_computes_concurrent_requests_in_one_batch(server, head):
    """Each is answered with its own rows and width, whatever else is in the batch."""
    sequences = random_sequences(12, 0)
    asked = [
        {"sequences": [s, s[:3]], "level": ("50K", "200K")[i % 2]} for i, s in enumerate(sequences)
    ]
    server["pause"][0] = 1.0
    with ThreadPoolExecutor(len(asked)) as threads:
        answers = list(threads.map(lambda a: server["client"].post("/embed", json=a).json(), asked))
    assert sum(server["sizes"]) == 24 and len(server["sizes"]) <= 3
    model = RDModel.from_pretrained(head)
    for question, answer in zip(asked, answers, strict=True):
        expected = model.embed(question["sequences"], pooling="mean", level=question["level"])
        assert torch.allclose(torch.tensor(answer["embeddings"]), expected, atol=1e-5)


def test_the_server_refuses_what_it_cannot_embed(server):
    for wrong, said in (
        ({"sequences": ["MK", "M1K"]}, "sequence 1: not an amino acid: '1' at position 2"),
        ({"sequences": [""]}, "sequence 0: the sequence is empty"),
        ({"sequences": ["M" * 10_001]}, "at most 10000 characters"),
        ({"sequences": []}, "at least 1 item"),
        ({"sequences": ["M"] * 257}, "at most 256 items"),
        (
            {"sequences": ["M"], "level": "650M"},
            "the levels are 50K (32) -> 200K (64)",
        ),
        ({"sequences": ["M"], "width": 0}, "width is a whole number from 1 to 64, not 0"),
        ({"sequences": ["M"], "level": "50K", "width": 3}, "not both"),
    ):
        answer = server["client"].post("/embed", json=wrong)
        assert answer.status_code == 422 and said in answer.text
    assert server["sizes"] == []
    answer = server["client"].post("/embed", json={"sequences": ["FAIL"]})
    assert answer.status_code == 500 and "RuntimeError: no room" in answer.text
    answer = server["client"].post("/embed", json={"sequences": ["MK"]})
    assert answer.status_code == 200  # and goes on


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason="no ../shared/data/proteingym beside the checkout")
def test_it_trains_on_a_real_assay(head, monkeypatch, capfd):
    found = run(monkeypatch, capfd, head, REAL, "--epochs", 4)
    assert min(found[-1].values()) > 0.3
    assert found[-1]["200K"] > found[0]["200K"]
