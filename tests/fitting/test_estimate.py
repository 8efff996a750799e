"""How fast a device multiplies, on a device that answers late."""

import pytest
import torch

from rd_lightning.fitting import estimate
from rd_lightning.fitting.estimate import measured_rate


class Device:
    """Multiplies behind the host's back; waiting for it takes four times as long as a product.

    Time is the host's clock, which stands still but for launches and waiting.
    """

    def __init__(self, seconds: float) -> None:
        self.product, self.clock, self.busy_until, self.waits = seconds, 0.0, 0.0, 0

    def mm(self, a, b):
        self.clock += self.product / 100  # a launch
        self.busy_until = max(self.clock, self.busy_until) + self.product
        return a

    def wait(self, device):
        self.waits += 1
        self.clock = max(self.clock, self.busy_until) + 4 * self.product

    def now(self) -> float:
        return self.clock


@pytest.mark.parametrize("milliseconds", [0.02, 0.2, 5.0])
def test_the_rate_is_of_the_products_not_of_the_waiting(monkeypatch, milliseconds):
    device = Device(milliseconds / 1000)
    monkeypatch.setattr(torch, "mm", device.mm)
    monkeypatch.setattr(estimate, "_wait", device.wait)
    monkeypatch.setattr(estimate.time, "perf_counter", device.now)
    rate = measured_rate(torch.device("cpu"), torch.float32)
    true = 2 * 1024**3 / device.product
    # Waiting is four products: of the ten or more that 0.1 s hold at the slowest, 4 / 14 at most.
    assert 0.7 * true < rate <= true
    assert device.clock < 1.0


def test_of_a_real_device():
    assert measured_rate(torch.device("cpu"), torch.float32, seconds=0.02) > 1e8
