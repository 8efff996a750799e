"""Everything that only a CUDA device can show; says so plainly where there is none.

    python scripts/check_cuda.py

Exits 0 when all checks pass or when there is no device ("not run: no CUDA device").
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from esm.model.esm2 import ESM2
from torch.nn.attention import SDPBackend, sdpa_kernel

from rd_lightning import JointMoments, fit_chain
from rd_lightning.data.batch import Batch, residue_rows
from rd_lightning.distillation.kernels import finite_rows
from rd_lightning.distillation.linalg import eigh_descending
from rd_lightning.families import Family, Member, get_family, sample_fasta
from rd_lightning.families.backbone import ATTENTION, Backbone, Backbones, load_backbones
from rd_lightning.families.esm2 import esm_tokenizer
from rd_lightning.families.forward import TokenBudget, embed_in_pieces
from rd_lightning.families.streamed import StreamedLayers
from rd_lightning.runtime import precision
from rd_lightning.runtime.host_copies import HostCopies
from rd_lightning.runtime.precision import AUTOCAST, autocast, resolved_precision

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


def check_precision() -> str:
    device = torch.device("cuda", 0)
    found = resolved_precision("mixed", device)
    with autocast(found, device):
        dtype = (torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)).dtype
    assert dtype == AUTOCAST[found], dtype
    return f"mixed is {found} on {torch.cuda.get_device_name(device)}"


def check_attention() -> str:
    """Milliseconds of the first call of new shapes, with cuDNN's kernel and without."""

    def first_calls(kernels: list[SDPBackend], longest: int) -> float:
        with sdpa_kernel(kernels):
            start = time.perf_counter()
            for length in range(longest - 8, longest):
                x = torch.randn(4, 20, length, 64, device="cuda", dtype=torch.float16)
                torch.nn.functional.scaled_dot_product_attention(x, x, x)
            torch.cuda.synchronize()
            return (time.perf_counter() - start) / 8 * 1000

    first_calls(ATTENTION, 100)
    ours = first_calls(ATTENTION, 200)
    try:
        cudnn = f"{first_calls([SDPBackend.CUDNN_ATTENTION], 300):.1f}"
    except RuntimeError:
        cudnn = "not there"
    return f"a new shape: {ours:.1f} ms, by cuDNN {cudnn}"


def mini() -> tuple[Backbones, Backbones]:
    """The bundled family on the CPU and on the device."""
    family = get_family("mini")
    on_cpu, on_gpu = (load_backbones(family, family.members) for _ in range(2))
    return on_cpu, on_gpu.to("cuda")


def check_encode() -> str:
    tokens = torch.randint(4, 24, (8, 300))
    errors = []
    for cpu, gpu in zip(*(models.values() for models in mini()), strict=True):
        errors.append(relative(gpu(tokens.cuda(), padded=False), cpu(tokens, padded=False)))
    assert max(errors) < 1e-5, errors
    return f"embeddings in float32 deviate from the CPU's by {max(errors):.1e}"


def check_out_of_memory() -> str:
    """Batches that do not fit into a share of the memory: divided, and each size but once."""
    _, models = mini()
    sequences = ["ACDEFGHIKLMNPQRSTVWY" * 50] * 2000
    tokens = torch.from_numpy(esm_tokenizer().encode([s.encode() for s in sequences]))
    lengths = [len(s) for s in sequences]
    windows = [(i, 0, length) for i, length in enumerate(lengths)]
    located = residue_rows(lengths, tokens.shape[1]).cuda()
    batch = Batch(tokens.cuda(), located, 0, 0, padded=False, windows=windows)
    total = torch.cuda.get_device_properties(0).total_memory
    budget, numbers = TokenBudget(), []
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 4 * 2**30 / total))
    try:
        for _ in range(2):
            pieces = embed_in_pieces(
                models, batch, max_residues=1022, budget=budget, then=lambda blocks: len(blocks[0])
            )
            numbers.append([rows for _, rows in pieces])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert sum(numbers[0]) == sum(numbers[1]) == sum(lengths)
    assert budget.tokens is not None, "everything fitted"
    return f"in 4 GiB {len(numbers[0])} pieces, then {len(numbers[1])}; {budget.tokens:,} tokens"


def random_backbone(device: str, hold: torch.dtype | None, *, streamed: bool) -> Backbone:
    """Twelve layers of the 3B's width, with the same weights at each call."""

    def load(member: Member, folder: object) -> torch.nn.Module:
        torch.manual_seed(0)
        return ESM2(member.num_layers, member.width, member.num_heads)

    member = Member("random", 2560, "", 12, 40)
    family = Family("random", (member,), load)
    return Backbone.load(family, member, hold=hold, streamed=streamed, device=device)


@torch.no_grad()
def embed(backbone: Backbone, tokens: torch.Tensor, *, padded: bool) -> tuple[torch.Tensor, float]:
    """Embeddings, and seconds of a pass after the first."""
    with torch.autocast("cuda", torch.bfloat16):
        backbone(tokens, padded=padded)
        torch.cuda.synchronize()
        start = time.perf_counter()
        found = backbone(tokens, padded=padded)
        torch.cuda.synchronize()
    return found, time.perf_counter() - start


def check_held_and_streamed() -> str:
    """Weights in bfloat16, and layers copied as they are needed, change no bit."""
    tokens = torch.randint(4, 24, (32, 512), device="cuda")
    tokens[:, 0], tokens[:, -1] = 0, 2
    plain = random_backbone("cuda", None, streamed=False)
    expected = [embed(plain, tokens, padded=padded)[0] for padded in (False, True)]
    del plain
    held = random_backbone("cuda", torch.bfloat16, streamed=False)
    found, resident = embed(held, tokens, padded=False)
    assert torch.equal(found, expected[0]), "held differs from float32"
    del held
    before = torch.cuda.memory_allocated()
    streamed = random_backbone("cuda", torch.bfloat16, streamed=True)
    for _ in range(3):
        for padded in (False, True):
            found, seconds = embed(streamed, tokens, padded=padded)
            assert torch.equal(found, expected[padded]), "streamed differs from resident"
    layers = streamed.model.layers
    assert isinstance(layers, StreamedLayers)
    there = torch.cuda.memory_allocated() - before
    assert there < layers.num_bytes, "more than two layers are on the device"
    return (
        f"{tokens.numel():,} tokens: {1e3 * resident:.0f} ms resident, {1e3 * seconds:.0f} ms "
        f"streamed, {layers.num_bytes / seconds / 1e9:.1f} GB/s of weights"
    )


def check_packed() -> str:
    """Packed batches in bf16 are no further from float32 than padded ones."""
    from rd_lightning.families.builtin import MINI
    from rd_lightning.families.esm2 import encode
    from rd_lightning.families.packed import encode_packed, why_not_packed

    member = MINI.members[-1]
    problem = why_not_packed(
        {member.width // member.num_heads}, torch.device("cuda"), torch.bfloat16
    )
    if problem:
        return f"not run: {problem}"
    model = MINI.load(member, None).eval().requires_grad_(False)
    letters = b"LAGVSERTIDPKQNFYMHWC" * 20
    tokens = torch.from_numpy(MINI.tokenizer().encode([letters[:n] for n in (3, 400, 57, 57, 210)]))
    inside = tokens != model.padding_idx
    exact = encode(model, tokens)[inside]
    model, tokens = model.cuda(), tokens.cuda()
    with torch.autocast("cuda", torch.bfloat16):
        packed = encode_packed(model, tokens, num_tokens=int(inside.sum()))
        padded = encode(model, tokens)
    errors = [relative(z[inside.cuda()], exact) for z in (packed, padded)]
    assert errors[0] < 2 * errors[1], errors
    return f"relative error {errors[0]:.1e} packed, {errors[1]:.1e} padded"


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


def check_all_commands() -> str:
    """rd-fit in two parts, rd-merge, rd-embed and rd-evaluate, each on the device."""
    fasta, seconds = str(sample_fasta()), []
    wild = "".join(sample_fasta().read_text().split(">")[1].splitlines()[1:])[:60]
    rows = [f"{wild[:i]}{letter}{wild[i + 1 :]},{i}" for i in range(20) for letter in "ACDEF"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "assay.csv").write_text("\n".join(["mutated_sequence,DMS_score", *rows]))
        for command in (
            f"fit trainer=gpu data.part=1/2 out=a data.fasta={fasta}",
            f"fit trainer=gpu data.part=2/2 out=b data.fasta={fasta}",
            "merge a/moments.safetensors b/moments.safetensors out=fit",
            f"embed head=fit fasta={fasta} out=x.h5 trainer=gpu pooling=[mean,residue]",
            f"evaluate fit=fit assays=assay.csv device=cuda out=scores wild_type={wild}",
        ):
            name, *words = command.split()
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", f"rd_lightning.{name}", *words],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, f"{command}: {done.stderr}"
            seconds.append(f"{name} {time.perf_counter() - start:.0f} s")
    return ", ".join(seconds)


def main() -> int:
    if not torch.cuda.is_available():
        print("not run: no CUDA device")
        return 0
    checks = [
        check_moments,
        check_no_host_sync,
        check_fast_float64,
        check_chain,
        check_eigh,
        check_host_copies,
        check_precision,
        check_attention,
        check_encode,
        check_out_of_memory,
        check_held_and_streamed,
        check_packed,
        check_all_commands,
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
