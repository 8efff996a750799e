"""Where a fit's weights are changes no bit of it; what it takes is said before they are loaded."""

from typing import Any

import pytest
import torch

from rd_lightning import RDModule
from rd_lightning.errors import InputError
from rd_lightning.families import get_family
from rd_lightning.families.execution import Execution
from rd_lightning.families.placement import Placement, Work
from rd_lightning.families.streamed import StreamedLayers
from rd_lightning.fit import main
from rd_lightning.fitting import weights as module
from rd_lightning.fitting.plan import PlanSettings
from rd_lightning.fitting.state import FitState
from rd_lightning.fitting.weights import fit_placement, load_weights

from ..conftest import run_here

DATA = (
    "data.num_sequences=30",
    "data.heldout=0.2",
    "data.max_residues=100",
    "data.long=skip",
)


@pytest.fixture
def loaded(monkeypatch):
    """The backbones that fits load."""
    found = []

    def kept(*arguments):
        found.append(load_weights(*arguments))
        return found[-1]

    monkeypatch.setattr("rd_lightning.fitting.module.load_weights", kept)
    return found


def fit(folder, name: str, *words: str) -> FitState:
    status, said = run_here(main, folder, "rd-fit", f"out={name}", "target=200K", *DATA, *words)
    assert status == 0, said
    return FitState.load(folder / name / "moments.safetensors")


def assert_equal(one: FitState, two: FitState) -> None:
    assert one.identity == two.identity
    for found, expected in zip(one.all_moments, two.all_moments, strict=True):
        assert found.num_rows == expected.num_rows > 1
        assert torch.equal(found.mean, expected.mean)
        assert torch.equal(found.covariance, expected.covariance)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_moments_are_the_same_wherever_the_weights_are(tmp_path, loaded, precision, monkeypatch):
    """Streamed, on the device, and, where they are held, in float32."""
    setting = f"trainer.precision={precision}"
    streamed = fit(tmp_path, "layers", setting, "family.offload=layers")
    resident = fit(tmp_path, "none", setting, "family.offload=none")
    monkeypatch.setattr(module, "held_dtype", lambda precision: None)
    plain = fit(tmp_path, "plain", setting)
    for state in (streamed, plain):
        assert_equal(state, resident)
    kinds = [
        (isinstance(b.model.layers, StreamedLayers), b.held)
        for backbones in loaded
        for b in backbones.values()
    ]
    held = torch.bfloat16 if precision == "bf16-mixed" else None
    expected = [(True, held), (False, held), (False, None)]
    assert kinds == [each for each in expected for _ in range(2)]


def test_weights_are_read_to_the_host_and_go_to_the_trainers_device():
    """Lightning makes the device torch's default while the weights are loaded."""

    class Strategy:
        root_device = torch.device("cpu")

        def barrier(self, name):
            self.asked = name

    class Trainer:
        strategy, precision = Strategy(), "bf16-mixed"
        num_devices = world_size = 1

    family = get_family("mini")
    placement = Placement(family.members, ("800K",), Work(64, 0, torch.bfloat16), None)
    with torch.device("meta"):
        trainer: Any = Trainer()
        backbones = load_weights(family, None, placement, Execution(), trainer)
    assert not [n for n, tensor in backbones.state_dict().items() if tensor.is_meta]
    assert {backbone.held for backbone in backbones.values()} == {torch.bfloat16}
    assert isinstance(backbones["800K"].model.layers, StreamedLayers)
    assert Trainer.strategy.asked


def test_a_setting_that_there_is_not_is_refused(unchecked):
    with pytest.raises(InputError, match="offload is auto, none or layers, not 'disk'"):
        RDModule("mini", offload="disk")  # pyright: ignore


def test_a_placement_counts_the_states_of_the_plan(unchecked):
    class Trainer:
        precision = "16-mixed"
        strategy = type("Strategy", (), {"root_device": torch.device("cpu")})

    settings = PlanSettings(tokens_per_batch=512, num_groups=20)
    found = fit_placement(get_family("mini").members, "auto", Trainer(), settings)  # pyright: ignore
    assert found.work == Work(512, 21, torch.float16) and found.free is None


@pytest.mark.parametrize(
    ("free", "words", "said"),
    [
        (80e9, (), "about 6.3 GB of 80.0 GB free"),
        (80e9, ("family.offload=layers",), "layers of 8M, 35M, 150M, 650M in host memory ("),
        (5.9e9, (), "; all weights on the device would take 6.3 GB"),
        (5.9e9, ("family.offload=none",), "WILL NOT FIT: family.offload=layers would take"),
        (5.9e9, ("family.offload=none",), "tokens_per_batch=16384 would take"),
        (5.9e9, ("family.offload=none",), "level=150M would take"),
        (1e8, (), "WILL NOT FIT: use a device with more memory"),
    ],
)
def test_a_preflight_says_what_a_fit_takes(tmp_path, monkeypatch, free, words, said):
    """Of float32 weights of the 650M, on a device of so much memory."""
    monkeypatch.setattr(module, "available_memory", lambda device: int(free))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    arguments = ("family=esm2", "level=650M", "preflight=true", "data.tokens_per_batch=32768")
    status, printed = run_here(main, tmp_path, "rd-fit", "out=look", *DATA, *arguments, *words)
    assert status == 0, printed
    assert said in " ".join(printed.split())


def test_the_weights_go_where_the_preflight_said(tmp_path, monkeypatch, loaded):
    """The device is asked once: later, others have taken memory of it."""
    asked = []

    def available(device):
        asked.append(device)
        return None if len(asked) == 1 else 0  # then everything would be streamed

    monkeypatch.setattr(module, "available_memory", available)
    fit(tmp_path, "out")
    assert len(asked) == 1
    assert not any(isinstance(b.model.layers, StreamedLayers) for b in loaded[0].values())
