"""A FASTA file as a Lightning data module: batches of tokens, a share for each process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ..data.batch import Batch
from ..data.kept import kept_scan
from ..data.scan import scan_fasta
from ..data.store import SequenceStore
from ..data.tokenizer import Tokenizer
from ..data.windows import LongPolicy
from ..display.console import Fact
from ..errors import InputError, check_choice
from ..families.builtin import sample_fasta
from ..families.esm2 import esm_tokenizer
from ..families.family import Family, Member
from ..runtime.owner import locked
from ..runtime.temporary import temporary_folder
from .plan import planned_batch
from .planned import PlannedDataModule


class FastaDataModule(PlannedDataModule):
    """Residues of a FASTA file for :class:`rd_lightning.RDModule`, each exactly once.

    The file is read and checked once (:meth:`scan`), its sequences spooled to a temporary folder;
    host memory does not grow with their number but for a few bytes each. Batches are a function of
    the sequences and the settings (:class:`rd_lightning.fitting.plan.BatchPlan`).

    Args:
        fasta: plain or compressed, a folder of such files, "-" for the standard input; the bundled
            sample by default.
        on_invalid: "raise" or "skip", for records that cannot be used.
        on_nucleotides: "raise" or "read", for a file that seems to hold DNA or RNA.
        tokens_per_batch: 2,048 on a CPU and 32,768 on a GPU by default.
        tokenizer: the family's; ESM-2's by default.
        num_workers: of the data loader.
        part: "i/n", one of n shares of the batches, for runs that are merged afterwards.
        store: folder in which the scan is kept for later runs and other machines, see
            :func:`rd_lightning.data.kept.kept_scan`; by default it is temporary.
        num_sequences, heldout, num_groups, max_residues, long, seed: see
            :class:`rd_lightning.fitting.plan.PlanSettings`.

    Attributes:
        batches_done: of the part, by an earlier run that this one resumes.

    Examples:
        >>> from rd_lightning import FastaDataModule
        >>> data = FastaDataModule(num_sequences=20)  # of the bundled sample
        >>> plan = data.scan("cpu")
        >>> plan.summary().num_sequences
        20
    """

    def __init__(
        self,
        fasta: str | os.PathLike | None = None,
        *,
        num_sequences: int | None = None,
        heldout: float = 0.05,
        num_groups: int = 1,
        max_residues: int = 1022,
        long: LongPolicy = "window",
        on_invalid: Literal["raise", "skip"] = "raise",
        on_nucleotides: Literal["raise", "read"] = "raise",
        tokens_per_batch: int | None = None,
        seed: int = 0,
        tokenizer: Tokenizer | None = None,
        num_workers: int = 0,
        part: str | None = None,
        store: str | os.PathLike | None = None,
    ) -> None:
        super().__init__(
            num_sequences=num_sequences,
            heldout=heldout,
            num_groups=num_groups,
            max_residues=max_residues,
            long=long,
            tokens_per_batch=tokens_per_batch,
            seed=seed,
            num_workers=num_workers,
            part=part,
        )
        self.fasta = Path(fasta) if fasta is not None else sample_fasta()
        check_choice("on_invalid", on_invalid, ("raise", "skip"))
        check_choice("on_nucleotides", on_nucleotides, ("raise", "read"))
        self.on_invalid: Literal["raise", "skip"] = on_invalid
        self.on_nucleotides: Literal["raise", "read"] = on_nucleotides
        self.kept_in = None if store is None else Path(store)
        self.tokenizer = tokenizer or esm_tokenizer()

    def make_store(self) -> SequenceStore:
        """Read and check the file.

        Raises:
            InputError: see :func:`rd_lightning.data.scan.scan_fasta` and
                :func:`rd_lightning.data.kept.kept_scan`.
        """
        policy: dict[str, Any] = {
            "on_invalid": self.on_invalid,
            "on_nucleotides": self.on_nucleotides,
        }
        if self.kept_in is None:
            return scan_fasta(self.fasta, folder=temporary_folder(), **policy)
        return kept_scan(self.kept_in, self.fasta, held=locked, **policy)

    def serve(self, family: Family, members: Sequence[Member]) -> None:
        """Raise InputError unless the batches hold tokens that the family reads."""
        if not family.has_models:
            raise InputError(
                f"{family.name} are members whose embeddings are in files: give the fit the "
                "EmbeddingsDataModule of these files, not a FastaDataModule"
            )
        if self.tokenizer != family.tokenizer():
            raise InputError(
                f"FastaDataModule gives other tokens than the family {family.name} reads: "
                "give it tokenizer=module.family.tokenizer()"
            )

    @property
    def make_batch(self) -> Callable[[SequenceStore, int], Batch]:
        """(store, number) to the batch; of -1, the empty one."""
        assert self.plan is not None
        return partial(planned_batch, plan=self.plan, tokenizer=self.tokenizer)

    def input_facts(self) -> list[Fact]:
        """The file, for people."""
        return [("input", self.fasta)]

    def input_record(self) -> dict[str, Any]:
        """The file, for the report."""
        assert self.store is not None
        return {"fasta": self.fasta.name, "fasta_digest": self.store.summary.digest}
