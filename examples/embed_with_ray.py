"""Embeddings of a FASTA file on a Ray cluster: one model a worker, Parquet files out.

    pip install "ray[data]"
    rd-fit out=fit
    python examples/embed_with_ray.py fit/head x.fasta embeddings

Where a cluster runs already (``ray start``, ``RAY_ADDRESS``), its machines take part; the head's
folder has to be there on each. With GPUs: ``map_batches(..., num_gpus=1)``.
"""

import sys
from typing import Any

import ray.data  # pyright: ignore[reportMissingImports]
import torch
from Bio import SeqIO

from rd_lightning import RDModel


class Embedder:
    def __init__(self, head: str) -> None:
        self.model = RDModel.from_pretrained(head)
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        vectors = self.model.embed(batch["sequence"].tolist(), pooling="mean")
        return {"id": batch["id"], "vector": vectors.numpy()}


if __name__ == "__main__":
    head, fasta, out = sys.argv[1:]
    records = [{"id": r.id, "sequence": str(r.seq)} for r in SeqIO.parse(fasta, "fasta")]
    data = ray.data.from_items(records)
    data.map_batches(
        Embedder, fn_constructor_args=(head,), batch_size=256, concurrency=1
    ).write_parquet(out)
