"""What a Trainer is made of: nothing of Lightning's own beside the run, all of the data."""

import signal
from contextlib import nullcontext

import hydra
import lightning
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from rd_lightning import FrozenDDPStrategy
from rd_lightning.cli import command
from rd_lightning.cli.overrides import config_folder, misspelt_override
from rd_lightning.cli.trainer import make_trainer
from rd_lightning.embedding.runner import one_device
from rd_lightning.errors import InputError
from rd_lightning.runtime.precision import resolved_precision
from rd_lightning.runtime.stopping import raise_stopped, signals_handled

from ..commands import slurm_variables

CPU = {"_target_": "lightning.Trainer", "accelerator": "cpu", "devices": 1}
LEAVE_OUT = [
    ("limit_train_batches", 5),
    ("limit_train_batches", 1),
    ("limit_train_batches", 0.5),
    ("limit_predict_batches", 2),
    ("fast_dev_run", True),
    ("overfit_batches", 1),
    ("max_steps", 3),
]


def made(root, **settings):
    return make_trainer(OmegaConf.create({**CPU, **settings}), root=root)


@pytest.mark.parametrize(("key", "value"), LEAVE_OUT)
def test_settings_that_leave_data_out_are_refused(tmp_path, key, value):
    with pytest.raises(InputError, match=f"trainer.{key}={value} leaves data out"):
        made(tmp_path, **{key: value})


def test_the_same_settings_that_leave_nothing_out_are_taken(tmp_path):
    trainer = made(tmp_path, limit_train_batches=1.0, max_steps=-1, fast_dev_run=False)
    assert trainer.default_root_dir == str(tmp_path)
    assert made(tmp_path, overfit_batches=0.0).limit_train_batches == 1.0


def test_one_of_several_processes_is_not_the_only_one(tmp_path, monkeypatch):
    variables = {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}
    for key, value in {**variables, "SLURM_JOB_NAME": "fit"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(InputError, match="You set `--ntasks=2`"):  # Lightning's own
        made(tmp_path)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    with pytest.raises(InputError, match="several processes|number of tasks per node"):
        made(tmp_path)


@pytest.mark.parametrize(
    ("variables", "main"),
    [
        ({}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, True),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1"}, False),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "bash"}, True),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "RANK": "0"}, True),  # torchrun inside
    ],
)
def test_who_is_the_main_process(monkeypatch, variables, main):
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    assert command.is_main_process() is main


def composed(*overrides: str) -> DictConfig:
    """The trainer of rd-fit's configuration."""
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        return hydra.compose("fit", list(overrides)).trainer


@pytest.mark.parametrize("preset", ["ddp", "ddp_cpu"])
def test_machines_are_a_setting(tmp_path, monkeypatch, preset):
    assert misspelt_override("fit", [f"trainer={preset}", "trainer.num_nodes=2"]) is None
    assert misspelt_override("embed", [f"trainer={preset}", "trainer.num_nodes=2"]) is None
    more = ["trainer.num_nodes=2", "trainer.devices=3", "trainer.accelerator=cpu"]
    trainer = make_trainer(composed(f"trainer={preset}", *more), root=tmp_path)
    assert (trainer.num_nodes, trainer.world_size) == (2, 6)


def test_under_slurm_the_job_step_says_how_many(tmp_path, monkeypatch):
    for key, value in slurm_variables(5, 6, 29500, per_node=3).items():
        monkeypatch.setenv(key, value)
    config = composed("trainer=slurm", "trainer.accelerator=cpu")
    trainer = make_trainer(config, root=tmp_path)
    assert (trainer.num_nodes, trainer.num_devices, trainer.world_size) == (2, 3, 6)
    assert (trainer.global_rank, trainer.node_rank, trainer.local_rank) == (5, 1, 2)
    assert isinstance(trainer.strategy, FrozenDDPStrategy)


def test_without_slurm_its_preset_says_what_is_missing(tmp_path):
    with pytest.raises(InputError) as raised:
        make_trainer(composed("trainer=slurm"), root=tmp_path)
    assert str(raised.value) == (
        "trainer.devices is that of the variable SLURM_NTASKS_PER_NODE, which is not set; start "
        "the command with srun --nodes=N --ntasks-per-node=M, or give the value"
    )


def test_signals_are_the_commands_in_every_moment_of_a_run(tmp_path):
    """Lightning sets its own before the first batch is read, and with those the processes of one
    run hang where a signal comes then."""
    seen = []

    class Module(lightning.LightningModule):
        def predict_dataloader(self):
            seen.append(signal.getsignal(signal.SIGTERM))
            return [torch.zeros(1)]

        def predict_step(self, batch):
            seen.append(signal.getsignal(signal.SIGTERM))

    with signals_handled():
        made(tmp_path).predict(Module())
        seen.append(signal.getsignal(signal.SIGTERM))
    assert seen == [raise_stopped] * 3


@pytest.mark.parametrize(
    ("given", "found"),
    [("mixed", "bf16-mixed"), ("16-mixed", "bf16-mixed"), ("32-true", "32-true")],
)
def test_a_trainer_and_one_device_have_the_same_precision(tmp_path, recwarn, given, found):
    """Lightning takes bfloat16 for 16-mixed on a CPU; rd-embed once ran slow float16 there."""
    assert made(tmp_path, precision=given).precision == found
    assert not [w for w in recwarn if "16-mixed" in str(w.message)]
    device = one_device({**CPU, "precision": given})
    assert device is not None and device.precision == found


@pytest.mark.parametrize("preset", ["gpu", "ddp", "slurm"])
@pytest.mark.parametrize(("bfloat16", "found"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_presets_take_the_dtype_that_a_gpu_has(monkeypatch, preset, bfloat16, found):
    """A T4 or V100 emulates bfloat16, five to ten times slower than its float16."""

    def supported(including_emulation=True):
        return including_emulation or bfloat16

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    given = composed(f"trainer={preset}").precision
    assert resolved_precision(given, torch.device("cuda", 0)) == found


def test_the_preset_of_apples_gpus(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    device = one_device(composed("trainer=mps"))
    assert device is not None
    assert (device.device.type, device.precision) == ("mps", "32-true")


def test_a_gpu_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for accelerator in ("gpu", "mps"):
        with pytest.raises(InputError, match="the trainer cannot be made"):
            made(tmp_path, accelerator=accelerator, precision="mixed")


def test_plugins_of_a_user_stay(tmp_path, monkeypatch):
    variables = {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "fit"}
    for key, value in {**variables, "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}.items():
        monkeypatch.setenv(key, value)
    own = {"_target_": "lightning.fabric.plugins.environments.LightningEnvironment"}
    trainer = made(tmp_path, plugins=[own])
    found = trainer._accelerator_connector.cluster_environment
    assert type(found).__name__ == "LightningEnvironment"
