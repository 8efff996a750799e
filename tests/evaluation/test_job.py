"""Where rd-evaluate's weights are changes no embedding and no score."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rd_lightning.evaluation import models
from rd_lightning.evaluation.job import EvaluateJob
from rd_lightning.evaluation.options import EvaluateOptions
from rd_lightning.families.backbone import Backbone
from rd_lightning.families.streamed import StreamedLayers

ARTEFACTS = Path(__file__).parents[1] / "artefacts"


def make_job(folder: Path, offload: str) -> EvaluateJob:
    folder.mkdir(exist_ok=True)
    family = {"name": None, "weights": None, "offload": offload}
    options = EvaluateOptions(
        fit=str(ARTEFACTS / "fit"), assays=str(ARTEFACTS / "assays"), family=family
    )
    return EvaluateJob(options, folder)


def streamed(job: EvaluateJob) -> list[bool]:
    found = list(job.backbones.values())
    assert all(isinstance(backbone, Backbone) for backbone in found)
    return [isinstance(backbone.model.layers, StreamedLayers) for backbone in found]  # pyright: ignore


def test_streamed_layers_change_no_embedding(tmp_path):
    jobs = {name: make_job(tmp_path / name, name) for name in ("none", "layers")}
    assert streamed(jobs["none"]) == [False, False]
    assert streamed(jobs["layers"]) == [True, True]
    assert jobs["none"].assays
    for one, other in zip(*(job.assays for job in jobs.values()), strict=True):
        found, expected = jobs["layers"].embedder.embed(other), jobs["none"].embedder.embed(one)
        assert expected and found.keys() == expected.keys()
        for key, rows in expected.items():
            assert all(map(torch.equal, found[key], rows)), key


def test_a_run_may_resume_with_weights_elsewhere(tmp_path):
    assert make_job(tmp_path, "none").manifest == make_job(tmp_path, "layers").manifest


def test_weights_are_placed_by_the_devices_memory(tmp_path, monkeypatch):
    """Of a device so small that one member's layers, then both members', must be streamed."""
    free = make_job(tmp_path, "none").placement.needed
    monkeypatch.setattr(models, "available_memory", lambda device: free)
    assert make_job(tmp_path, "auto").placement.streamed == ()
    monkeypatch.setattr(models, "available_memory", lambda device: free - 1)
    job = make_job(tmp_path, "auto")
    assert job.placement.streamed == ("200K",)
    assert streamed(job) == [False, True]


@pytest.mark.parametrize(("bfloat16", "found"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_on_a_gpu_the_models_run_in_the_precision_that_it_has(monkeypatch, bfloat16, found):
    """Float32, in which they once ran there, is several times slower."""

    def supported(including_emulation=True):
        return including_emulation or bfloat16

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    options = EvaluateOptions(fit=str(ARTEFACTS / "fit"), device="cuda")
    assert models.Models(options).precision == found
    assert models.Models(replace(options, precision="32-true")).precision == "32-true"
