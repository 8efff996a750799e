"""Families that other packages register are choices as the bundled one is, with its settings."""

import pytest
import yaml
from hydra.core.config_store import ConfigStore

from rd_lightning.cli import overrides
from rd_lightning.cli.overrides import _offer_families, config_folder, misspelt_override


def test_a_registered_family_has_the_settings_of_the_bundled_one(monkeypatch):
    stored = {}

    def store(group, name, node):
        stored[f"{group}={name}"] = node

    monkeypatch.setattr(overrides, "registered_families", lambda: ["mini", "mine"])
    monkeypatch.setattr(ConfigStore.instance(), "store", store)
    choices = ["mini", "esm2"]
    _offer_families(choices)
    assert choices == ["mini", "esm2", "mine"]
    bundled = yaml.safe_load((config_folder() / "family" / "mini.yaml").read_text())
    assert stored == {"family=mine": {**bundled, "name": "mine"}}


@pytest.mark.parametrize("value", ["", "null", "3", "flat", "[]", "{lists:3}", "flat,hnsw"])
def test_a_group_of_settings_is_no_setting(value):
    problem = misspelt_override("search", [f"faiss={value}"])
    assert problem is not None and "set faiss.kind, faiss.effort" in problem


def test_a_list_is_no_mapping():
    problem = misspelt_override("evaluate", ["probes=[ridge]", "representations={a:1}"])
    assert problem == "representations takes a list, not a mapping: representations={a:1}"


@pytest.mark.parametrize(
    ("command", "override"),
    [
        ("search", "faiss={kind:flat}"),
        ("search", "faiss.kind=flat"),
        ("fit", "+trainer.logger={a:1}"),
        ("fit", "data.fasta=x"),
    ],
)
def test_what_a_group_takes(command, override):
    assert misspelt_override(command, [override]) is None


def test_a_trainers_arguments_are_lightnings():
    assert misspelt_override("fit", ["trainer=ddp", "trainer.strategy=ddp"]) is None
