"""The page of features: well-formed, self-contained, escaped, and shaded as the numbers say."""

import re
from xml.etree import ElementTree

import pandas as pd
import pytest

from rd_lightning.evaluation.report import sae_page
from rd_lightning.evaluation.report.sae_page import save_features_page


def pairs(features=(3, 5), name="helix", seed=0) -> pd.DataFrame:
    rows = [
        {
            "representation": "rd",
            "seed": seed,
            "annotation": "structure",
            "feature": f,
            "term": "H",
            "name": name,
            "odds_ratio": float("inf"),
            "q": 1e-5 * (i + 1),
            "precision": 0.5,
            "recall": 0.25,
            "added": 0.75,
        }
        for i, f in enumerate(features)
    ]
    return pd.DataFrame(rows)


def peaks(features=(3, 5), protein="p1") -> pd.DataFrame:
    rows = []
    for f in features:
        own = {"representation": "rd", "seed": 0, "feature": f, "protein": protein}
        rows.append(
            {**own, "rank": 1, "position": 7, "activation": 2.0, "first": 5}
            | {"residues": "ACDEF", "activations": [0.0, 1.0, 2.0, 0.0, 0.5]}
        )
        rows.append(
            {**own, "rank": 2, "position": 1, "activation": 1.0, "first": 1}
            | {"residues": "KVL", "activations": [1.0, 0.0, 0.0]}
        )
    return pd.DataFrame(rows)


def page(tmp_path, enriched, examples) -> str:
    path = tmp_path / "features.html"
    save_features_page(enriched, examples, path, seed=0)
    return path.read_text()


def parsed(text: str) -> ElementTree.Element:
    """As XML: every element is closed."""
    text = text.replace("<!doctype html>", "").replace('<meta charset="utf-8">', "")
    return ElementTree.fromstring(text)


def test_elements_are_closed_and_nothing_is_loaded(tmp_path):
    text = page(tmp_path, pairs(), peaks())
    root = parsed(text)
    assert len(root.findall(".//details")) == 2
    assert not re.search(r"https?:|<script|<link|src=|url\(|@import", text)


def test_shades_and_peaks(tmp_path):
    root = parsed(page(tmp_path, pairs(), peaks()))
    first, second = root.findall(".//details")[0].findall(".//td[@class='s']")
    marks = [(i.text, i.get("class")) for i in first.findall("i")]
    # Of nine shades: 1 of 2 is round(4.5) = 4, 0.5 of 2 is round(2.25) = 2.
    assert marks == [("C", "a4"), ("D", "a9 p"), ("F", "a2")]
    assert "".join(first.itertext()) == "ACDEF"
    # Two residues before the peak in the first row, none in the second: the peaks are aligned.
    assert "".join(second.itertext()) == "  KVL"
    assert [(i.text, i.get("class")) for i in second.findall("i")] == [("K", "a4 p")]


def test_text_is_escaped(tmp_path):
    text = page(tmp_path, pairs(name="<b>&"), peaks(protein="<script>x"))
    assert "&lt;b&gt;&amp;" in text and "<script" not in text
    assert len(parsed(text).findall(".//details")) == 2


def test_numbers_of_a_feature(tmp_path):
    text = page(tmp_path, pairs(), peaks())
    assert "feature 3, q = 1.0e-05, odds ratio inf, 75% in added columns" in text
    assert "helix (H)" in text


def test_only_the_first_features_by_q_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(sae_page, "MOST_SHOWN", 1)
    text = page(tmp_path, pairs(), peaks())
    assert "1 of 2 features, those of the smallest q" in text
    assert "feature 3," in text and "feature 5," not in text


@pytest.mark.parametrize("enriched", [pairs().iloc[:0], pairs(seed=1)])
def test_no_feature_of_this_seed(tmp_path, enriched):
    text = page(tmp_path, enriched, peaks())
    assert "No feature has an enriched term." in text
    assert not parsed(text).findall(".//details")
