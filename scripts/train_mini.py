"""Train the bundled `mini` family: ESM-2's architecture and objective at toy widths.

    python scripts/train_mini.py DB.fasta.gz OUT --member 50K

Masked language modelling (Devlin et al. 2019, as in ESM-2): 15% of the residues are chosen, of
them 80% become <mask>, 10% a random amino acid, 10% stay. Hidden matrices are trained with Muon
(Jordan et al. 2024), everything else with AdamW. Held out are the sequences whose SHA-256 falls in
the lowest 5%, so copies of a sequence are always on one side.

Writes OUT/mini_<member>.safetensors (float16) and OUT/mini_<member>.json: residues seen, held-out
perplexity of the float16 weights and unigram perplexity of the same masked residues.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from Bio.SeqIO.FastaIO import SimpleFastaParser
from esm.model.esm2 import ESM2
from safetensors.torch import save_file

from rd_lightning.families.esm2 import encode

MEMBERS = {  # name: (layers, width, heads)
    "50K": (4, 32, 2),
    "200K": (4, 64, 4),
    "800K": (4, 128, 4),
}
AMINO_ACIDS = "LAGVSERTIDPKQNFYMHWC"
NEIGHBOURS = [(-1, 1, -2, 2), (-1, 1, -4, 4), (-3, 3)]  # by layer, in residues
HELD_OUT_SHARE = 0.05
LONG_CROP, SHORT_CROP, LONG_SHARE = 1022, 254, 0.1


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz, in float32 (torch's own works in bfloat16, which
    a CPU without bfloat16 units emulates at a tenth of the speed)."""

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalise(p.grad.lerp(buffer, group["momentum"]))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(p.shape)))


def orthogonalise(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def look_at_neighbours(model: ESM2) -> None:
    """Start some heads of the first layers as windows about a neighbour, by their biases alone.

    With rotary positions the score of biases q and k at distance d is q' R(d) k: it peaks at
    offset o where k = R(-o) q. Finding this by gradient descent takes longer than the whole
    training has.
    """
    for layer, offsets in zip(model.layers, NEIGHBOURS, strict=False):
        attention = layer.self_attn
        size = attention.head_dim
        frequencies = attention.rot_emb.inv_freq
        weight = 6.0 * frequencies.sqrt().clamp_min(0.1)
        for head, offset in enumerate(offsets[: attention.num_heads]):
            query = torch.cat([weight, torch.zeros_like(weight)])
            angle = -offset * frequencies
            key = torch.cat([weight * angle.cos(), weight * angle.sin()])
            with torch.no_grad():
                attention.q_proj.bias[head * size : (head + 1) * size] = query
                attention.k_proj.bias[head * size : (head + 1) * size] = key


def read(path: Path) -> list[str]:
    with gzip.open(path, "rt") as handle:
        return [sequence.upper() for _, sequence in SimpleFastaParser(handle)]


def is_held_out(sequence: str) -> bool:
    digest = hashlib.sha256(sequence.encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT_SHARE * 2**64


def collate(alphabet, sequences: list[str]) -> torch.Tensor:
    tokens = torch.full(
        (len(sequences), max(map(len, sequences)) + 2), alphabet.padding_idx, dtype=torch.long
    )
    for row, sequence in zip(tokens, sequences, strict=True):
        indices = [alphabet.cls_idx, *alphabet.encode(sequence), alphabet.eos_idx]
        row[: len(indices)] = torch.tensor(indices)
    return tokens


def mask(alphabet, tokens: torch.Tensor, generator: torch.Generator):
    """(corrupted tokens, chosen positions)."""
    amino_acids = torch.tensor([alphabet.get_idx(a) for a in AMINO_ACIDS])
    draw = torch.rand(tokens.shape, generator=generator)
    chosen = (draw < 0.15) & torch.isin(tokens, amino_acids)
    kind = torch.rand(tokens.shape, generator=generator)
    random = amino_acids[torch.randint(20, tokens.shape, generator=generator)]
    corrupted = torch.where(chosen & (kind < 0.8), alphabet.mask_idx, tokens)
    corrupted = torch.where(chosen & (kind >= 0.8) & (kind < 0.9), random, corrupted)
    return corrupted, chosen


def epochs(sequences: list[str], budget: int, generator: torch.Generator):
    """Endless batches of random crops of like length, at most ``budget`` tokens with padding."""
    while True:
        crops = []
        for i in torch.randperm(len(sequences), generator=generator).tolist():
            sequence = sequences[i]
            limit = LONG_CROP if torch.rand((), generator=generator) < LONG_SHARE else SHORT_CROP
            excess = max(0, len(sequence) - limit)
            start = int(torch.randint(excess + 1, (), generator=generator))
            crops.append(sequence[start : start + limit])
        crops.sort(key=len)
        batches, batch = [], []
        for crop in crops:
            if batch and (len(batch) + 1) * (len(crop) + 2) > budget:
                batches.append(batch)
                batch = []
            batch.append(crop)
        batches.append(batch)
        for i in torch.randperm(len(batches), generator=generator).tolist():
            yield batches[i]


def losses(model: ESM2, tokens: torch.Tensor, generator: torch.Generator):
    corrupted, chosen = mask(model.alphabet, tokens, generator)
    hidden = encode(model, corrupted)
    nats = F.cross_entropy(model.lm_head(hidden[chosen]), tokens[chosen], reduction="none")
    # A residue that was left in place can be copied: perplexity is told of the masked ones alone.
    return nats, chosen, corrupted[chosen] == model.mask_idx


@torch.no_grad()
def evaluate(model: ESM2, held_out: list[str], unigram: torch.Tensor) -> dict:
    """Perplexity on the masked residues of the held-out sequences, cut at 1,022; fixed masks."""
    generator = torch.Generator().manual_seed(0)
    nats = unigram_nats = count = 0.0
    for sequence in sorted(held_out, key=len):
        tokens = collate(model.alphabet, [sequence[:LONG_CROP]])
        losses_, chosen, masked = losses(model, tokens, generator)
        nats += losses_[masked].sum().item()
        unigram_nats -= unigram[tokens[chosen][masked]].log().sum().item()
        count += int(masked.sum())
    return {
        "held_out_perplexity": math.exp(nats / count),
        "unigram_perplexity": math.exp(unigram_nats / count),
        "held_out_masked_residues": int(count),
        "held_out_sequences": len(held_out),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fasta", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--member", choices=MEMBERS, required=True)
    parser.add_argument("--residues", type=float, default=20e6, help="residues to train on")
    parser.add_argument("--tokens-per-batch", type=int, default=2048)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)

    layers, width, heads = MEMBERS[arguments.member]
    model = ESM2(layers, width, heads)
    # The output layer shares these weights: torch's unit normal would start with huge logits.
    torch.nn.init.normal_(model.embed_tokens.weight, std=width**-0.5)
    for layer in model.layers:
        torch.nn.init.zeros_(layer.self_attn.out_proj.weight)
        torch.nn.init.zeros_(layer.fc2.weight)
    look_at_neighbours(model)
    sequences = read(arguments.fasta)
    training = [s for s in sequences if not is_held_out(s)]
    held_out = [s for s in sequences if is_held_out(s)]
    counts = torch.zeros(len(model.alphabet))
    for amino_acid in AMINO_ACIDS:
        counts[model.alphabet.get_idx(amino_acid)] = sum(s.count(amino_acid) for s in training)
    unigram = counts / counts.sum()

    trained = [(n, p) for n, p in model.named_parameters() if "contact_head" not in n]
    hidden = [p for n, p in trained if n.startswith("layers.") and p.ndim == 2]
    others = [p for n, p in trained if not (n.startswith("layers.") and p.ndim == 2)]
    optimizers = [
        Muon(hidden, lr=arguments.lr),
        torch.optim.AdamW(others, lr=arguments.lr, betas=(0.9, 0.98), weight_decay=0.01),
    ]
    seen, running, start = 0, [], time.time()
    batches = epochs(training, arguments.tokens_per_batch, generator)
    for step, batch in enumerate(batches, start=1):
        progress = seen / arguments.residues
        if progress >= 1:
            break
        scale = min(1.0, step / 200) * (1 - progress)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = arguments.lr * scale
            optimizer.zero_grad(set_to_none=True)
        nats, _, masked = losses(model, collate(model.alphabet, batch), generator)
        nats.mean().backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in trained], 1.0)
        for optimizer in optimizers:
            optimizer.step()
        seen += sum(map(len, batch))
        running.append(nats[masked].mean().item())
        if step % 100 == 0:
            rate = seen / (time.time() - start)
            perplexity = math.exp(sum(running) / len(running))
            print(f"{step} {seen / 1e6:.2f}M {perplexity:.3f} {rate:.0f} residues/s", flush=True)
            running = []

    weights = {n: p.detach().half() for n, p in trained if n != "lm_head.weight"}
    model.load_state_dict({n: p.float() for n, p in weights.items()}, strict=False)
    record = {
        "layers": layers,
        "width": width,
        "heads": heads,
        "parameters": sum(p.numel() for p in weights.values()),
        "residues_seen": seen,
        "training_sequences": len(training),
        **evaluate(model, held_out, unigram),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    save_file(weights, arguments.out / f"mini_{arguments.member}.safetensors")
    (arguments.out / f"mini_{arguments.member}.json").write_text(
        json.dumps(record, indent=2) + "\n"
    )
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
