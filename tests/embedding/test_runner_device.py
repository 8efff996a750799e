import pytest
import torch
from omegaconf import OmegaConf

from rd_lightning.cli.overrides import config_folder
from rd_lightning.embedding.runner import one_device

CPU = {"_target_": "lightning.Trainer", "accelerator": "cpu", "devices": 1, "precision": "32-true"}


@pytest.fixture(autouse=True)
def not_launched(monkeypatch):
    for name in ("WORLD_SIZE", "SLURM_NTASKS", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("name", "alone"), [("cpu", True), ("ddp_cpu", False), ("ddp", False)])
def test_the_choices_of_trainer(name, alone):
    config = OmegaConf.load(config_folder() / "trainer" / f"{name}.yaml")
    assert (one_device(config) is not None) == alone


def test_a_gpu_where_there_is_one():
    found = one_device({**CPU, "accelerator": "gpu", "precision": "bf16-mixed"})
    assert (found is not None) == torch.cuda.is_available()


@pytest.mark.parametrize(
    "change",
    [
        {"devices": 2},
        {"devices": "auto"},
        {"precision": "64-true"},
        {"accelerator": "auto"},
        {"strategy": "ddp"},
        {"_target_": "mine.Trainer"},
    ],
)
def test_all_else_is_the_trainers(change):
    assert one_device({**CPU, **change}) is None


def test_a_process_that_was_launched_among_others(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert one_device(CPU) is None


@pytest.mark.parametrize(
    ("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)]
)
def test_precision(precision, dtype):
    device = one_device({**CPU, "precision": precision})
    a = torch.randn(4, 4)
    with device.autocast:
        assert (a @ a).dtype == dtype
