"""What becomes of the processes of one run when one of them ends."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch.distributed

from rd_lightning.errors import InputError
from rd_lightning.runtime.ddp import processes_end_together

GONE = (
    "[/__w/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer "
    "[127.0.0.1]:942. This is typically caused by a remote worker crashing.",
    "[gloo/transport/tcp/pair.cc:536] Read error [127.0.0.1]:5: Connection reset by peer",
    "NCCL error: ncclRemoteError: A call failed possibly due to a network error or a remote "
    "process exiting prematurely.",
)


def trainer(*processes: subprocess.Popen) -> SimpleNamespace:
    launcher = SimpleNamespace(procs=list(processes))
    return SimpleNamespace(strategy=SimpleNamespace(launcher=launcher))


@pytest.mark.parametrize(
    "error",
    [
        *map(RuntimeError, GONE),
        torch.distributed.DistNetworkError("Failed to recv, got 0 bytes."),
        torch.distributed.DistStoreError("wait timeout after 60000ms"),
    ],
)
def test_a_process_without_its_peers_says_so_in_a_line(error):
    with pytest.raises(InputError) as raised, processes_end_together(trainer()):
        raise error
    assert str(raised.value).startswith("another process of this run has ended")
    assert "\n" not in str(raised.value)


def test_other_errors_are_as_they_are():
    with pytest.raises(RuntimeError, match="no convergence"), processes_end_together(trainer()):
        raise RuntimeError("no convergence")


def test_the_others_do_not_wait():
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    with pytest.raises(KeyboardInterrupt), processes_end_together(trainer(other)):
        raise KeyboardInterrupt
    assert other.wait(10) != 0
