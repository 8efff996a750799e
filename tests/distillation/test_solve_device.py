"""The chain on a device: with deterministic algorithms, and where the device fails on the way."""

import logging

import pytest
import torch

from rd_lightning import JointMoments, RDHead, fit_chain
from rd_lightning.distillation.moments import from_flat

from ..conftest import family_rows
from ..fake_device import CUDA, FakeDevice, OnDevice

DIMS = (9, 14, 22)
NAMES = ["a", "b", "c"]
OPTIONS = {
    "pcr": {},
    "heldout": {"num_components": "heldout"},
    "share": {"num_components": 0.9},
    "ols": {"regression": "ols"},
    "ridge": {"regression": "ridge", "ridge": 1.0},
    "randomized": {"solver": "randomized"},
    "narrow": {"level_widths": [5, 8, 20]},
}


@pytest.fixture
def moments() -> tuple[JointMoments, JointMoments]:
    """To fit on, and held out."""
    rows = family_rows(900, DIMS, 0)
    parts = slice(0, 700), slice(700, 900)
    fit, heldout = (JointMoments(DIMS).update([r[part] for r in rows]) for part in parts)
    return fit, heldout


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def assert_same_head(found: RDHead, expected: RDHead) -> None:
    for (name, a), (_, b) in zip(found.named_buffers(), expected.named_buffers(), strict=True):
        assert torch.equal(a.as_subclass(torch.Tensor), b), name
    assert found.report.stages == expected.report.stages


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("options", OPTIONS)
def test_deterministic_algorithms_are_enough(moments, options, caplog):
    fit, heldout = moments
    with FakeDevice() as device:
        found = fit_chain(fit, heldout=heldout, device=CUDA, **OPTIONS[options])
    assert "linalg_eigh" in device.calls
    assert not caplog.records, "nothing failed there"
    assert isinstance(next(found.buffers()), OnDevice)
    assert_same_head(found, fit_chain(fit, heldout=heldout, **OPTIONS[options]))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("at", [1, 2, 4])
def test_after_a_failure_nothing_is_asked_of_the_device(moments, options, at, caplog):
    """The moments are on the device; from its failure on, each call there would raise."""
    solved = 0

    def fails(name: str) -> Exception | None:
        nonlocal solved
        solved += name == "linalg_eigh"
        return torch.linalg.LinAlgError("cusolver error: 7") if solved == at else None

    fit, heldout = moments
    expected = fit_chain(fit, names=NAMES, heldout=heldout, **OPTIONS[options])
    with FakeDevice(fails) as device, caplog.at_level(logging.WARNING):
        there = [_on_device(m) for m in moments]
        found = fit_chain(there[0], names=NAMES, heldout=there[1], **OPTIONS[options])
    assert device.dead == (solved >= at)
    assert_same_head(found, expected)
    assert ("solving on the CPU" in caplog.text) == device.dead


def _on_device(moments: JointMoments) -> JointMoments:
    shift = moments.shift
    assert shift is not None
    return from_flat(DIMS, moments.precision, moments.flat.to(CUDA), shift.to(CUDA))


def test_no_matrix_is_copied_to_the_host_but_the_moments_once(moments):
    """Vectors are: eigenvalues for the report, bounds."""
    with FakeDevice() as device:
        there = [_on_device(m) for m in moments]
        fit_chain(there[0], heldout=there[1])
    large = [size for size in device.to_host if size > max(DIMS)]
    width = sum(DIMS)
    assert sorted(large) == [width, width, width**2 + width + 1, width**2 + width + 1]
