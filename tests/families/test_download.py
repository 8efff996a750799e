"""How much ESM-2 takes is known before it comes."""

import pytest
import torch

from rd_lightning.families import get_family
from rd_lightning.families.download import to_download

PUBLISHED = {"8M": 30.1e6, "35M": 134e6, "150M": 595e6, "650M": 2.61e9, "3B": 5.68e9, "15B": 30.3e9}
"""Bytes of fair-esm's checkpoints."""


def test_what_is_missing_and_how_large_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    family = get_family("esm2")
    sizes = to_download(family, family.members, None)
    assert sizes == pytest.approx(PUBLISHED, rel=0.03)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "esm2_t6_8M_UR50D.pt").touch()
    assert list(to_download(family, family.members, None)) == list(PUBLISHED)[1:]
    assert to_download(family, family.members, tmp_path) == {}
    mini = get_family("mini")
    assert to_download(mini, mini.members, None) == {}
