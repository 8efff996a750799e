"""A LightningModule of yours on top of nested embeddings, trained on a deep mutational scan.

    rd-fit out=fit
    python examples/train_on_assay.py fit/head ASSAY.csv

``ASSAY.csv`` is in ProteinGym's format (mutated_sequence, DMS_score, fold_random_5), of variants
of one length; one fold is held out. Tokens go through the frozen backbones and the head of reverse
distillation, which trains with the layers on top. Every level has layers of its own, so that one
run says what each width is worth.
"""

from __future__ import annotations

import argparse
import csv
import logging
import warnings

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import SpearmanCorrCoef

from rd_lightning import RDModel

Variant = tuple[str, float]


class Fitness(L.LightningModule):
    """The measured score of a variant, from the mean over its residues' embeddings."""

    def __init__(self, head: str, *, learning_rate: float = 1e-3) -> None:
        super().__init__()
        self.rd = RDModel.from_pretrained(head, freeze=False)
        levels = dict(zip(self.rd.names, self.rd.dims, strict=True))
        # BatchNorm: variants of one protein differ by little from a large common mean.
        self.out = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.BatchNorm1d(d),
                    nn.Linear(d, 128),
                    nn.GELU(),
                    nn.Dropout(0.2),
                    nn.Linear(128, 1),
                )
                for name, d in levels.items()
            }
        )
        self.spearman = nn.ModuleDict({name: SpearmanCorrCoef() for name in levels})
        self.learning_rate = learning_rate
        self.history: list[dict[str, float]] = []

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """(batch,) of every level, from tokens of one length."""
        levels = self.rd(tokens, repr="dict", padded=False)
        return {name: self.out[name](z[:, 1:-1].mean(1)).squeeze(-1) for name, z in levels.items()}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        tokens, scores = batch
        errors = [(found - scores).square().mean() for found in self(tokens).values()]
        return torch.stack(errors).sum()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        tokens, scores = batch
        for name, found in self(tokens).items():
            self.spearman[name].update(found, scores)

    def on_validation_epoch_end(self) -> None:
        self.history.append({n: m.compute().item() for n, m in self.spearman.items()})
        shown = "  ".join(f"{name} {value:.3f}" for name, value in self.history[-1].items())
        print(f"epoch {len(self.history):>2}  held-out Spearman  {shown}", flush=True)
        for metric in self.spearman.values():
            metric.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # The head starts from the exact solution: it may move, but slowly.
        groups = [
            {"params": self.out.parameters(), "weight_decay": 0.01},
            {"params": self.rd.head.parameters(), "lr": self.learning_rate / 100},
        ]
        return torch.optim.AdamW(groups, lr=self.learning_rate)


def read(path: str, fold: int) -> tuple[list[Variant], list[Variant]]:
    """(training, held-out) variants; scores as they are."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    parts: tuple[list[Variant], list[Variant]] = ([], [])
    for row in rows:
        variant = (row["mutated_sequence"], float(row["DMS_score"]))
        parts[int(row["fold_random_5"]) == fold].append(variant)
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("head", help="folder of a head")
    parser.add_argument("assay", help="CSV file")
    parser.add_argument("--fold", type=int, default=0, help="held out")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    # Frozen backbones are meant to be in eval mode, and loading is no bottleneck here.
    warnings.filterwarnings("ignore", ".*(eval mode|many workers|large memory footprint)")
    L.seed_everything(args.seed, verbose=False)
    training, heldout = read(args.assay, args.fold)
    scores = torch.tensor([score for _, score in training])
    mean, scale = scores.mean(), scores.std()
    model = Fitness(args.head)
    to_tokens = model.rd.batch_converter()

    def collate(variants: list[Variant]) -> tuple[Tensor, Tensor]:
        _, _, tokens = to_tokens([("", sequence) for sequence, _ in variants])
        return tokens, (torch.tensor([score for _, score in variants]) - mean) / scale

    def loader(variants: list[Variant], shuffle: bool = False) -> DataLoader:
        # A last batch of one variant has no variance to normalise by.
        return DataLoader(
            variants, args.batch_size, shuffle=shuffle, collate_fn=collate, drop_last=shuffle
        )

    print(f"{len(training)} variants to train on, {len(heldout)} held out")
    trainer = L.Trainer(
        max_epochs=args.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, loader(training, shuffle=True), loader(heldout))


if __name__ == "__main__":
    main()
