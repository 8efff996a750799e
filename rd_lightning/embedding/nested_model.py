"""Backbones and head in one module: tokens or sequences in, nested embeddings out."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import InputError, check_choice
from ..families.backbone import load_backbones, weight_digests
from ..families.execution import Attention, Compile, Execution
from ..families.family import Family
from ..families.forward import TokenBudget, WindowTooLarge
from ..families.placement import streamed_members
from ..formats.base import PER_RESIDUE, Pooling
from ..head.family import described, family_of, members_of
from ..head.head import RDHead, reach
from ..head.hub import PushToHub
from ..runtime.precision import PRECISIONS, autocast_or_default
from .energy import check_energy
from .fair_esm_interface import FairESMInterface
from .in_memory import ListedSequences, embed_listed
from .parallel import stream_tokens
from .plan import EmbedSettings
from .pooling import Known, check_poolings, embed_batch
from .sequence_batch import SequenceBatch

Model = TypeVar("Model", bound="NestedModel")


class NestedModel(PushToHub, FairESMInterface, nn.Module):
    """The members of a family up to a level and their :class:`rd_lightning.RDHead`.

    The backbones are frozen and stay in eval mode.

    Args:
        family: what the head was fitted on.
        head: its members must be the family's first.
        weights: folder with the weights; by default bundled (mini) or downloaded (esm2).
        level: name of the largest member to use, all of the head's by default.
        width: in place of ``level``: the first columns to give, and no more members than they need.
        freeze: False makes the head's matrices parameters, to be trained with yours.
        hold: autocast's dtype, to hold the weights of linear layers in it: half the memory, the
            same embeddings, and the model then runs only under ``torch.autocast`` of that dtype (or
            a trainer's mixed precision). None: float32.
        offload: "none": the weights are on the model's device. "layers": those of the layers stay
            in host memory and are copied to the device as they are needed; or the names of members
            of which that is so. The embeddings are the same, bit for bit.
        attention, compile: see :class:`rd_lightning.families.execution.Execution`.

    Attributes:
        names, dims: of the levels, smallest first.
        width: columns of the output.
    """

    def __init__(
        self,
        family: str | Family,
        head: RDHead,
        *,
        weights: str | os.PathLike | None = None,
        level: str | None = None,
        width: int | None = None,
        freeze: bool = True,
        hold: torch.dtype | None = None,
        offload: Literal["none", "layers"] | Collection[str] = "none",
        attention: Attention = "auto",
        compile: Compile = "auto",
    ) -> None:
        super().__init__()
        if isinstance(family, str):
            family = family_of(head.report, "the head", {"name": family})
        self.family = family
        num_members, self.width = reach(head, level, width)
        self.members = members_of(self.family, head)[:num_members]
        self.head = head.truncate(head.names[num_members - 1])
        if not freeze:
            self.head.trainable_()
        self.execution = Execution(attention, compile)
        self.backbones = load_backbones(
            self.family,
            self.members,
            None if weights is None else Path(weights),
            self.execution,
            hold=hold,
            streamed=streamed_members(self.members, offload),
        )
        self._begun = False
        self.poolings: tuple[Pooling, ...] = ("mean",)
        self.max_residues = EmbedSettings(1).max_residues
        self.known: Known | None = None
        """Where predictions begin, if their first levels are there already."""
        self.num_pieces = 0
        """Pieces beyond the first of batches that did not fit into memory whole."""
        self._budget = TokenBudget()

    @classmethod
    def from_pretrained(
        cls: type[Model],
        folder: str | os.PathLike,
        *,
        family: str | Family | None = None,
        weights: str | os.PathLike | None = None,
        level: str | None = None,
        width: int | None = None,
        freeze: bool = True,
        hold: torch.dtype | None = None,
        offload: Literal["none", "layers"] = "none",
        attention: Attention = "auto",
        compile: Compile = "auto",
        **hub: Any,
    ) -> Model:
        """From the folder of a head, ``RDModel.from_pretrained("rd-fit/.../head")``, or its
        repository on the Hugging Face Hub, ``RDModel.from_pretrained("org/name")``.

        Args:
            family: by default the one that the head's own record names.
            hub: of :meth:`rd_lightning.RDHead.from_pretrained`: ``revision``, ``token``, ...

        Raises:
            InputError: no head there, no family known, or the two do not fit.
        """
        head = RDHead.from_pretrained(folder, **hub)
        family = family_of(head.report, folder) if family is None else family
        return cls(
            family,
            head,
            weights=weights,
            level=level,
            width=width,
            freeze=freeze,
            hold=hold,
            offload=offload,
            attention=attention,
            compile=compile,
        )

    def save_for_hub(self, folder: str | os.PathLike, repo_id: str) -> None:
        """The head up to this model's largest member, as :meth:`rd_lightning.RDHead.save_for_hub`
        writes it, with the family's name where its record has none. The backbones stay."""
        head = copy.copy(self.head)
        head.report = described(head.report, self.family, self.members)
        head.save_for_hub(folder, repo_id)

    @property
    def device(self) -> torch.device:
        """Of the backbones."""
        return next(self.backbones.parameters()).device

    @property
    def names(self) -> tuple[str, ...]:
        """Of the levels, smallest first."""
        return self.head.names

    @property
    def dims(self) -> tuple[int, ...]:
        """Widths of the levels."""
        return self.head.dims

    def begin(self) -> None:
        """Compile the layers if that is chosen; once, by itself at the first call."""
        if not self._begun and not torch.compiler.is_compiling():
            self.execution.choose(self.family)
            self.execution.begin(self.backbones.values())
            self._begun = True

    def forward(
        self,
        tokens: Int[Tensor, "batch length"],
        *,
        level: str | None = None,
        width: int | None = None,
        repr: Literal["tensor", "dict"] = "tensor",
        padded: bool = True,
    ) -> Float[Tensor, "batch length _"] | dict[str, Float[Tensor, "batch length _"]]:
        """Nested embeddings of every position, special tokens and ``<mask>`` included.

        Equals the head applied to fair-esm's ``representations`` of each member; at padding the
        values mean nothing.

        Args:
            level, width: run only the members that these columns need.
            repr: "dict" gives {level: view of the first columns} in place of the widest alone.
            padded: False if no token is padding, which is a little faster.
        """
        check_choice("repr", repr, ("tensor", "dict"))
        self.begin()
        num_members, columns = self._reach(level, width)
        members = self.backbones(tokens, padded=padded, chosen=slice(num_members))
        z = self.head(members)[..., :columns]
        if repr == "tensor":
            return z
        levels = zip(self.names[:num_members], self.dims[:num_members], strict=True)
        return {name: z[..., : min(d, columns)] for name, d in levels}

    def embed(
        self,
        sequences: Any,
        *,
        pooling: Pooling | Sequence[Pooling] | None = None,
        level: str | None = None,
        width: int | None = None,
        tokens_per_batch: int | None = None,
        max_residues: int = 1022,
        long: Literal["window", "whole", "truncate"] = "window",
        overlap: int = 128,
        precision: str | None = None,
    ) -> Any:
        """Embeddings of sequences, on the CPU, in the order given; equal ones are computed once.

        Letters are treated as in a FASTA file (:func:`rd_lightning.data.fasta.clean`).

        Args:
            sequences: a list of strings, of (id, sequence) pairs or of ``Bio.SeqRecord``, or one
                string or record.
            pooling: None or "residue": a list of (residues, width); "mean" or "bos": one
                (sequences, width); "energy": a list of (residues, levels after the first);
                several: {pooling: ...}.
            level, width: run only the members that these columns need.
            tokens_per_batch: 1,024 on a CPU and 32,768 on a GPU by default.
            max_residues, long, overlap: see :class:`rd_lightning.embedding.plan.EmbedSettings`.
            precision: of the backbones: "32-true", "bf16-mixed", "16-mixed", or "mixed", the one of
                the two that the device has. By default the autocast around the call, where there
                is one, else "mixed" on a GPU (as ``rd-embed device=cuda``) and "32-true" on a CPU.

        Raises:
            InputError: these are not sequences, or one is empty or has a letter that is no residue.
        """
        check_choice("long", long, ("window", "whole", "truncate"))
        if precision is not None:
            check_choice("precision", precision, PRECISIONS)
        listed = ListedSequences(sequences)
        poolings = check_poolings("residue" if pooling is None else pooling)
        num_members, columns = self._reach(level, width)
        check_energy(poolings, self.names[:num_members])
        budget = TokenBudget()
        settings = EmbedSettings(
            tokens_per_batch or stream_tokens(self.device.type), max_residues, long, overlap
        )

        def run(batch: SequenceBatch) -> dict[Pooling, Tensor]:
            return self._embed(
                batch, poolings, num_members, columns, listed.id, max_residues, budget
            )

        tokenizer, device_type = self.family.tokenizer(), self.device.type
        with autocast_or_default(precision, self.device):
            with torch.no_grad():
                self.begin()  # before streams of batches begin, each on a thread
            rows = embed_listed(run, listed, settings, tokenizer, device_type)
        by_pooling: dict[str, Any] = {}
        for p in poolings:
            found = [rows[p][kind] for kind in listed.of.tolist()]
            empty = torch.zeros(0, columns)
            by_pooling[p] = found if p in PER_RESIDUE else torch.cat(found) if found else empty
        one = pooling is None or isinstance(pooling, str)
        return by_pooling[poolings[0]] if one else by_pooling

    def predict(
        self, batch: SequenceBatch, name: Callable[[int], str] = lambda index: f"sequence {index}"
    ) -> dict[Pooling, Tensor]:
        """Vectors of a batch by :attr:`poolings`: (sequences, width), or a row a residue; ``name``
        gives that of a sequence, for messages."""
        if not batch.sequences:
            return {}
        return self._embed(
            batch,
            self.poolings,
            len(self.members),
            self.width,
            name,
            self.max_residues,
            self._budget,
            self.known,
        )

    def _embed(
        self,
        batch: SequenceBatch,
        poolings: Sequence[Pooling],
        num_members: int,
        columns: int,
        name: Callable[[int], str],
        max_residues: int,
        budget: TokenBudget,
        known: Known | None = None,
    ) -> dict[Pooling, Tensor]:
        device = self.device
        for piece in batch.pieces:
            # Not waited for: the loader pins them, and the batch before may still be computed.
            piece.tokens = piece.tokens.to(device, non_blocking=True)
            piece.rows = piece.rows.to(device, non_blocking=True)
        first = 0 if known is None else known.num_members

        def count(pieces: int) -> None:
            self.num_pieces += pieces > 0

        try:
            return embed_batch(
                self.backbones,
                self.head,
                batch,
                poolings,
                max_residues=max_residues,
                chosen=slice(first, num_members),
                columns=columns,
                budget=budget,
                known=None if known is None else known.vectors(batch, device),
                on_piece=count,
            )
        except WindowTooLarge as error:
            raise error.named(name(error.windows[0][0])) from error

    def _reach(self, level: str | None, width: int | None) -> tuple[int, int]:
        if level is None and width is None:
            return len(self.members), self.width
        num_members, columns = reach(self.head, level, width)
        if columns > self.width:
            raise InputError(f"this model gives {self.width} columns, not {columns}")
        return num_members, columns

    def weight_digests(self) -> dict[str, str]:
        """By member, see :meth:`rd_lightning.families.backbone.Backbone.digest`."""
        return weight_digests(self.backbones)
