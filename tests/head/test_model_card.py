"""The model card: its front matter parses, its figures are the report's."""

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml

from rd_lightning import JointMoments, RDHead, fit_chain
from rd_lightning.head.model_card import model_card

from ..conftest import SEEDS, family_rows

NAMES, DIMS = ("8M", "35M", "150M"), (6, 10, 17)
CONTEXT = {
    "family": "esm2",
    "fasta": "x|y.fasta",
    "fasta_digest": "d1g35t",
    "weights": {"8M": "w8", "35M": "w35", "150M": "w150", "650M": "w650"},
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "plan": {"num_sequences": 3},
}


def make_head(seed: int = 0, *, heldout: bool = True, context: dict[str, Any] = CONTEXT) -> RDHead:
    rows = family_rows(700, DIMS, seed, mean=2)
    moments = JointMoments(DIMS).update([b[:500] for b in rows])
    other = JointMoments(DIMS).update([b[500:] for b in rows]) if heldout else None
    return fit_chain(moments, names=NAMES, heldout=other, context=context)


def card_of(head: RDHead, repo_id: str = "org/name", **options: bool) -> str:
    return model_card(head.names, head.dims, head.report, repo_id, **options)


def table(card: str, section: str) -> list[list[str]]:
    """Cells of a section's table without its heading."""
    body = re.search(rf"^## {section}\n\n(.*?)(?=\n\n)", card, re.DOTALL | re.MULTILINE)
    assert body
    rows = [re.split(r" (?<!\\)\| ", line[2:-2]) for line in body[1].splitlines()]
    assert len({len(row) for row in rows}) == 1
    assert all(re.fullmatch("-{2,}[-:]", rule) for rule in rows[1])
    return [[cell.strip() for cell in row] for row in rows[2:]]


def front_matter(card: str) -> dict[str, Any]:
    _, front, _ = card.split("---\n", 2)
    return yaml.safe_load(front)


@pytest.mark.parametrize("family", ["esm2", "it's: [odd]", 'a "quote"', "yes", "1"])
def test_front_matter_is_yaml(family):
    head = make_head(context={**CONTEXT, "family": family})
    fields = front_matter(card_of(head))
    assert fields["library_name"] == "rd_lightning"
    assert fields["license"] == "mit"
    assert fields["pipeline_tag"] == "feature-extraction"
    assert fields["tags"][-1] == family
    assert all(isinstance(tag, str) for tag in fields["tags"])


def test_the_hubs_own_reader_takes_it():
    from huggingface_hub import ModelCard

    text = card_of(make_head())
    card = ModelCard(text)
    assert card.data.library_name == "rd_lightning"
    assert card.data.license == "mit"
    assert "reverse-distillation" in card.data.tags
    assert card.text.lstrip().startswith("# Reverse distillation of esm2: 8M to 150M")


@pytest.mark.parametrize("seed", SEEDS)
def test_figures_are_the_reports(seed):
    head = make_head(seed)
    report = head.report
    first, *others = table(card_of(head), "Levels")
    assert first == ["8M", "6", "6", "", "", "", ""]
    assert len(others) == len(report.stages)
    for row, stage, width, before in zip(others, report.stages, DIMS[1:], DIMS, strict=False):
        name, columns, new, components, r2, heldout, kept = row
        assert (name, int(columns), int(new)) == (stage.target, width, width - before)
        assert components == f"{stage.num_components} of {stage.num_inputs}"
        assert float(r2) == pytest.approx(stage.r2_fit, abs=5.1e-4)
        assert float(heldout) == pytest.approx(stage.r2_heldout, abs=5.1e-4)
        assert float(kept.rstrip("%")) == pytest.approx(100 * stage.kept_variance, abs=0.051)


def test_where_it_comes_from():
    facts = dict(table(card_of(make_head()), "Fit"))
    assert facts == {
        "family": "esm2",
        "options": "regression=pcr, num_components=marchenko_pastur",
        "residues in the fit": "500",
        "residues held out": "200",
        "sequences": r"x\|y.fasta",
        "digest of the sequences": "`d1g35t`",
        "digests of the weights": "8M `w8`, 35M `w35`, 150M `w150`",
        "software": "python 3.11.7, torch 2.13.0",
    }


def test_the_models_and_their_licences():
    """Of a family of the table, of a mixed chain with inner layers, and of one that is not
    published."""
    found = table(card_of(make_head()), "Models")
    assert [row[0] for row in found] == list(NAMES)
    assert found[1][1:] == [
        "[facebook/esm2_t12_35M_UR50D](https://huggingface.co/facebook/esm2_t12_35M_UR50D)",
        "`6fbf070e65b0`",
        "last",
        "MIT",
    ]
    members = [
        {"name": "8M@3", "of": "esm2/8M", "layer": 3},
        {"name": "mine", "path": "org/name", "revision": "0" * 40},
        {"name": "ankh-large", "of": "ankh/large"},
    ]
    card = card_of(make_head(context={**CONTEXT, "family": "esm2+paths+ankh", "members": members}))
    assert [row[3:] for row in table(card, "Models")] == [
        ["3", "MIT"],
        ["last", "not recorded"],
        ["last", "CC-BY-NC-SA-4.0"],
    ]
    assert front_matter(card)["license"] == "other"
    own = card_of(make_head(context={**CONTEXT, "family": "mini"}))
    assert "## Models" not in own and front_matter(own)["license"] == "mit"


def test_merged_fits_name_the_sequences_of_each_part():
    parts = [{"content": "a"}, {"content": "b"}, {"content": "a"}]
    card = card_of(make_head(context={"family": "esm2", "parts": parts}))
    assert dict(table(card, "Fit"))["digest of the sequences"] == "`a`, `b`"
    assert "homologues may be on both sides" in card


def test_what_is_not_known_is_said():
    head = make_head(heldout=False, context={})
    card = card_of(head)
    facts = dict(table(card, "Fit"))
    assert facts["residues held out"] == "0"
    assert facts["digest of the sequences"] == facts["software"] == "not recorded"
    assert [row[5] for row in table(card, "Levels")] == ["", "not recorded", "not recorded"]
    assert "homologues" not in card
    nothing = replace(head.report, stages=(), num_residues=0, level_variance=())
    card = model_card(NAMES, DIMS, nothing, "org/name")
    assert [row[:3] for row in table(card, "Levels")] == [
        ["8M", "6", "6"],
        ["35M", "10", "4"],
        ["150M", "17", "7"],
    ]
    assert table(card, "Levels")[1][3:] == ["not recorded"] * 4
    assert dict(table(card, "Fit"))["residues in the fit"] == "not recorded"


def test_a_head_of_one_member():
    card = card_of(make_head().truncate("8M"))
    assert table(card, "Levels") == [["8M", "6", "6", "", "", "", ""]]
    assert dict(table(card, "Fit"))["digests of the weights"] == "8M `w8`"


def test_a_head_trained_further_says_so(tmp_path):
    head = make_head()
    assert "trained since" not in card_of(head)
    head.trainable_().save_for_hub(tmp_path, "org/name")
    assert "trained since" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_limits_and_citation():
    card = card_of(make_head())
    assert "The mapping is linear" in card
    assert "Fitted on these models of `esm2` (8M, 35M, 150M) only" in card
    assert "Catrina et al." in card
    assert "https://arxiv.org/abs/2603.07710" in card
