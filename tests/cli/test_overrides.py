"""Families that other packages register are choices as the bundled one is, with its settings."""

import yaml
from hydra.core.config_store import ConfigStore

from rd_lightning.cli import overrides
from rd_lightning.cli.overrides import _offer_families, config_folder


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
