"""What a configuration may make, and what it may not."""

from pathlib import Path

import lightning as L
import pytest
from omegaconf import OmegaConf

from rd_lightning import FrozenDDPStrategy
from rd_lightning.cli.targets import ALLOW
from rd_lightning.cli.trainer import make_trainer
from rd_lightning.errors import InputError

TRAINER = {"_target_": "lightning.Trainer", "accelerator": "cpu", "devices": 1}


def made(**settings) -> L.Trainer:
    return make_trainer(OmegaConf.create({**TRAINER, **settings}), root=Path())


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.Popen",
        "torch.os.system",  # not torch's, only seen there
        "torch.serialization.os.system",
        "rd_lightning.cli.targets.os.system",
        "torch.nn.Linear.__init__",
        "torch.load",
        "torch.hub.load",
        "builtins.exec",
        "hydra.utils.get_method",
        3,
        None,
        "",
    ],
)
def test_a_configuration_runs_no_code(target, tmp_path):
    ran = tmp_path / "ran"
    node = {"_target_": target, "command": f"touch {ran}", "args": f"touch {ran}"}
    for place in ({"profiler": node}, {"strategy": {**TRAINER, "plugins": [{"x": node}]}}):
        with pytest.raises(InputError, match=r"_target_=.* is refused: .*RD_ALLOW_TARGETS="):
            made(**place)
    assert not ran.exists()


def test_nor_by_an_interpolation():
    config = {
        **TRAINER,
        "word": "os.system",
        "profiler": {"_target_": "${word}", "command": "true"},
    }
    with pytest.raises(InputError, match="_target_=os.system is refused"):
        make_trainer(OmegaConf.create(config), root=Path())


def test_a_class_that_is_not_there_is_one_line():
    with pytest.raises(InputError, match=r"^_target_=torch.nope: there is no such class$"):
        made(profiler={"_target_": "torch.nope"})


def test_classes_of_lightning_and_this_package_are_made():
    strategy = {
        "_target_": "rd_lightning.FrozenDDPStrategy",
        "timeout": {"_target_": "datetime.timedelta", "hours": 6},
    }
    assert isinstance(made(strategy=strategy).strategy, FrozenDDPStrategy)
    profiler = {"_target_": "lightning.pytorch.profilers.SimpleProfiler"}
    assert type(made(profiler=profiler).profiler).__name__ == "SimpleProfiler"


def test_packages_that_the_user_names_are_trusted(monkeypatch, tmp_path):
    (tmp_path / "mine_of_test.py").write_text("from lightning.pytorch.profilers import *\n")
    monkeypatch.syspath_prepend(tmp_path)
    node = {"_target_": "mine_of_test.SimpleProfiler"}
    with pytest.raises(InputError, match="RD_ALLOW_TARGETS=mine_of_test"):
        made(profiler=node)
    monkeypatch.setenv(ALLOW, "other, mine_of_test")
    assert type(made(profiler=node).profiler).__name__ == "SimpleProfiler"
