"""The example as a user types it: on a made-up assay, and on a real one where there is one."""

import csv
import re
import runpy
import sys
from pathlib import Path

import pytest

from rd_lightning import JointMoments, fit_chain

from .conftest import SHARED, family_rows, random_sequences

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "train_on_assay.py"
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


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason="no ../shared/data/proteingym beside the checkout")
def test_it_trains_on_a_real_assay(head, monkeypatch, capfd):
    found = run(monkeypatch, capfd, head, REAL, "--epochs", 4)
    assert min(found[-1].values()) > 0.3
    assert found[-1]["200K"] > found[0]["200K"]
