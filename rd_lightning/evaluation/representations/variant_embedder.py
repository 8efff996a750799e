"""An assay's variants through the family: pooled raw embeddings, kept by digest of the content."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...data.batch import Batch
from ...data.tokenizer import Tokenizer
from ...embedding.in_memory import ListedSequences, embed_listed
from ...embedding.plan import EmbedSettings
from ...embedding.pooling import weighted_means
from ...embedding.sequence_batch import SequenceBatch
from ...errors import InputError
from ...families.backbone import Backbones
from ...families.forward import TokenBudget, run_in_pieces
from ...runtime.files import read_tensors, write_tensors
from ...runtime.precision import first_nonfinite_row
from ...runtime.provenance import digest_of
from ..assays.assay import Assay

Pooling = Literal["mean", "mutated", "both"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
_KIND = "variant embeddings"
Transform = Callable[[list[Tensor]], list[Tensor]]


class VariantEmbedder:
    """Pooled raw embeddings of an assay's variants.

    ``embed(assay)`` gives {"mean": (n, D), "mutated": (n, D)}, float32 on the CPU, a row a variant:
    the mean of [h_1 | ... | h_K] over all residues, and over the mutated ones (over all for the
    wild type, which has none). "mutated" is there where the assay knows its mutations.

    Args:
        identity: what the numbers depend on beside the sequences, such as digests of the weights.
        transform: of the (residues, d_k) blocks of each batch, before pooling; its own settings
            belong into ``identity``.
        cache: folder; what was embedded before is read from there.
    """

    def __init__(
        self,
        backbones: Backbones,
        tokenizer: Tokenizer,
        identity: Mapping[str, Any],
        *,
        cache: Path,
        tokens_per_batch: int,
        max_residues: int = 1022,
        transform: Transform | None = None,
    ) -> None:
        self.backbones, self.tokenizer, self.identity = backbones, tokenizer, identity
        self.cache, self.transform, self._budget = cache, transform, TokenBudget()
        self.settings = EmbedSettings(tokens_per_batch, max_residues, "whole", overlap=0)

    def path(self, assay: Assay) -> Path:
        """Where this assay's embeddings are kept; equal names mean equal content."""
        content = {**self.identity, "sequences": assay.sequences, "positions": assay.positions}
        return self.cache / f"{digest_of(content, num_bytes=16)}.safetensors"

    def num_residues(self, assay: Assay) -> int:
        """Of the distinct variants."""
        return sum(map(len, set(assay.sequences)))

    def embed(
        self, assay: Assay, on_batch: Callable[[int], None] = lambda residues: None
    ) -> dict[str, Float[Tensor, "n D"]]:
        """Read or computed.

        Args:
            on_batch: told the number of residues after each batch.

        Raises:
            InputError: see :func:`check_length`.
        """
        check_length(assay, self.settings.max_residues)
        path = self.path(assay)
        if path.exists():
            tensors, _ = read_tensors(path, _KIND)
            on_batch(self.num_residues(assay))
            return tensors
        found = self._computed(assay, on_batch)
        for pooling, rows in found.items():
            if (row := first_nonfinite_row(rows)) is not None:
                raise InputError(
                    f"{assay.name}: NaN or infinity in the {pooling} embedding of row {row + 1}; "
                    "fix the weights"
                )
        write_tensors(path, found, {"kind": _KIND, "assay": assay.name})
        return found

    def _computed(self, assay: Assay, on_batch: Callable[[int], None]) -> dict[str, Tensor]:
        listed = ListedSequences(assay.sequences)
        rows_of = {int(kind): row for row, kind in reversed(list(enumerate(listed.of)))}
        positions = None
        if assay.positions is not None:
            positions = [assay.positions[rows_of[kind]] for kind in range(len(listed))]
        device = next(self.backbones.parameters()).device

        def run(batch: SequenceBatch) -> dict[str, Tensor]:
            return self._pooled(batch, positions, device)

        found = embed_listed(
            run, listed, self.settings, self.tokenizer, device.type, on_batch=on_batch
        )
        rows = torch.from_numpy(listed.of.astype(np.int64))
        return {pooling: torch.cat(parts)[rows] for pooling, parts in found.items()}

    @torch.no_grad()
    def _pooled(
        self,
        batch: SequenceBatch,
        positions: Sequence[tuple[int, ...]] | None,
        device: torch.device,
    ) -> dict[str, Tensor]:
        def pool(piece: Batch) -> dict[str, Tensor]:
            return self._pooled_piece(batch, piece, positions)

        found: dict[str, list[Tensor]] = {}
        for planned in batch.pieces:
            planned.tokens = planned.tokens.to(device)
            limit = self.settings.max_residues
            for _, vectors in run_in_pieces(pool, planned, max_residues=limit, budget=self._budget):
                for pooling, rows in vectors.items():
                    found.setdefault(pooling, []).append(rows)
        return {pooling: torch.cat(parts) for pooling, parts in found.items()}

    def _pooled_piece(
        self, batch: SequenceBatch, piece: Batch, positions: Sequence[tuple[int, ...]] | None
    ) -> dict[str, Tensor]:
        known = {"padded": piece.padded, "num_tokens": piece.num_tokens}
        blocks = self.backbones.map(torch.Tensor.float, piece.tokens, **known)
        if self.transform is not None:
            flat = self.transform([block.flatten(0, 1) for block in blocks])
            blocks = [block.view(*piece.tokens.shape, -1) for block in flat]
        weights = {"mean": batch.mean_weights(piece)}
        if positions is not None:
            weights["mutated"] = _mutated_weights(piece, weights["mean"], positions)
        found = {}
        for pooling, weight in weights.items():
            on_device = weight.to(piece.tokens.device)
            found[pooling] = torch.cat([weighted_means(b, on_device) for b in blocks], dim=1)
        return found


def check_length(assay: Assay, max_residues: int) -> None:
    """Raise InputError if a variant is longer than the models are given."""
    longest = max(map(len, assay.sequences))
    if longest > max_residues:
        raise InputError(
            f"{assay.name}: {longest:,} residues, but max_residues={max_residues:,}; variants "
            "would be cut: raise max_residues, or give the domain that was measured"
        )


def _mutated_weights(
    piece: Batch, mean: Tensor, positions: Sequence[tuple[int, ...]]
) -> Float[Tensor, "windows tokens"]:
    """1 / m at each of m mutated residues; where there is none, the weights of the mean."""
    weights = torch.zeros_like(mean)
    for row, (index, _, _) in enumerate(piece.windows):
        if places := positions[index]:
            weights[row, list(places)] = 1 / len(places)  # token 0 is <cls>, position 1 token 1
        else:
            weights[row] = mean[row]
    return weights


def pooled_columns(
    rows: Mapping[str, Float[Tensor, "n D"]], pooling: Pooling, map_: Callable[[Tensor], Tensor]
) -> Float[Tensor, "n w"]:
    """A map's columns under a pooling; "both" gives those of mean and mutated in turn, so that the
    first 2 w columns are both poolings' first w.

    Raises:
        InputError: the mutated positions are not known.
    """
    if pooling != "mean" and "mutated" not in rows:
        raise InputError(f"pooling={pooling} needs mutants; give their column, or use pooling=mean")
    if pooling != "both":
        return map_(rows[pooling])
    return torch.stack([map_(rows["mean"]), map_(rows["mutated"])], dim=-1).flatten(1)
