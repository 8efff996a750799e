"""Everything that only a CUDA device can show; says so plainly where there is none.

    python scripts/check_cuda.py

Exits 0 when all checks pass or when there is no device ("not run: no CUDA device").
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

import torch

from rd_lightning import JointMoments, fit_chain
from rd_lightning.distillation.kernels import finite_rows
from rd_lightning.distillation.linalg import eigh_descending
from rd_lightning.runtime import precision
from rd_lightning.runtime.host_copies import HostCopies

DIMS = [64, 128, 256]


def rows(device: str, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(40, sum(DIMS), generator=generator)
    hidden = torch.randn(20_000, 40, generator=generator)
    noise = torch.randn(20_000, sum(DIMS), generator=generator)
    joint = torch.tanh(hidden @ mixing / 6) + 0.3 * noise + 5
    return [block.to(device, dtype) for block in joint.split(DIMS, dim=1)]


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found.cpu() - expected).norm() / expected.norm()).item()


def check_moments() -> str:
    exact = torch.cov(torch.cat(rows("cpu", torch.float64), dim=1).T)
    torch.set_float32_matmul_precision("medium")  # TF32 outside must not matter inside
    wide = JointMoments(DIMS, precision="float64").update(rows("cuda"))
    narrow = JointMoments(DIMS, precision="float32").update(rows("cuda"))
    torch.set_float32_matmul_precision("highest")
    errors = relative(wide.covariance, exact), relative(narrow.covariance, exact)
    assert wide.device.type == "cuda"
    assert errors[0] < 1e-12, errors
    assert errors[1] < 1e-6, errors
    return f"float64 {errors[0]:.1e}, float32 with TF32 on outside {errors[1]:.1e}"


def check_no_host_sync() -> str:
    blocks = rows("cuda")
    moments = JointMoments(DIMS).update(blocks)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            moments.update(blocks, row_mask=finite_rows(blocks))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "3 updates, none waited for the device"


def check_chain() -> str:
    on_cpu = fit_chain(JointMoments(DIMS, precision="float64").update(rows("cpu")))
    on_gpu = fit_chain(JointMoments(DIMS, precision="float64").update(rows("cuda")))
    deviation = (on_gpu.to("cuda")(rows("cuda")).cpu() - on_cpu(rows("cpu"))).abs().max().item()
    assert deviation < 1e-3, deviation
    return f"the head of the device deviates from the CPU's by {deviation:.1e}"


def check_fast_float64() -> str:
    device = torch.device("cuda", 0)
    wide, narrow = (precision._product_seconds(t, device) for t in (torch.float64, torch.float32))
    found = precision.has_fast_float64(device)
    ratio = wide / narrow
    assert not 4 < ratio < 16, f"float64 takes {ratio:.1f} times as long: too near to 8"
    return f"{'fast' if found else 'slow'}: {ratio:.1f} times as long as float32"


def check_eigh() -> str:
    x = torch.randn(4096, 2048, dtype=torch.float64, device="cuda")
    values, vectors = eigh_descending(x.T @ x)
    assert vectors.device.type == "cuda"
    return f"2,048 columns, largest eigenvalue {values[0].item():.4g}"


def check_host_copies() -> str:
    """Copies are begun without a wait, and are right whatever the device computes meanwhile."""
    copies, expected, waits = HostCopies(torch.device("cuda", 0), 2), [], []
    source = torch.randn(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            source = torch.tanh(source @ source)
            expected.append(source)
            waits.append(copies.start({"rows": source, "finite": source.isfinite().all(dim=1)}))
            source = source.clone().mul_(2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    found = [wait() for wait in waits]
    for copy, original in zip(found, expected, strict=True):
        assert copy["rows"].is_pinned() and copy["rows"].device.type == "cpu"
        assert torch.equal(copy["rows"], original.cpu()) and bool(copy["finite"].all())
    return "2 copies beside products, none waited for the device"


def check_command(trainer: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "rd_lightning.fit",
            f"trainer={trainer}",
            f"out={folder}/o",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return next(line for line in done.stdout.splitlines() if "residues fitted" in line)


def main() -> int:
    if not torch.cuda.is_available():
        print("not run: no CUDA device")
        return 0
    checks = [
        *(check_moments, check_no_host_sync, check_fast_float64, check_chain, check_eigh),
        check_host_copies,
    ]
    failed = 0
    for check in [*checks, lambda: check_command("gpu"), lambda: check_command("ddp")]:
        name = getattr(check, "__name__", "rd-fit").removeprefix("check_")
        try:
            print(f"ok      {name}: {check()}")
        except Exception as error:
            failed += 1
            print(f"FAILED  {name}: {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
