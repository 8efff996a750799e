"""Files of residue embeddings as a Lightning data module: a fit without models."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import DataLoader

from ..data.batch import EmbeddedBatch
from ..data.store import SequenceStore
from ..data.windows import LongPolicy, Window
from ..display.console import Fact
from ..errors import InputError, check_choice
from ..families.family import Family, Member
from ..formats.members import MemberReaders, member_files
from ..runtime.temporary import temporary_folder
from .embedded_store import EmbeddedStore, embedded_batch, make_embedded_store
from .planned import PlannedDataModule
from .state import Part

NAME = "embeddings"
"""Of the family of members whose embeddings are in files."""


class EmbeddingsDataModule(PlannedDataModule):
    """Residue embeddings that are in files, for :class:`rd_lightning.RDModule`, each exactly once.

    No model is loaded: the module is ``RDModule(data.family)``. The files, one a member, are
    of any kind that :func:`rd_lightning.formats.open_vectors` reads and that holds a row a residue.
    They are read protein by protein, in the batches that
    :class:`rd_lightning.FastaDataModule` would give; memory does not grow with them but for
    the ids and a few bytes a protein. Numbers are moved to the device as they are stored.

    Proteins are matched by id (of ``sp|ACCESSION|NAME`` by the accession), in the order of the
    first file. The held-out share and the groups are chosen by sequence where the first file is of
    rd-embed, as a fit from FASTA chooses them, else by id.

    Args:
        embeddings: name to path, or a list of ``{"name": ..., "path": ...}``, smallest member
            first.
        on_invalid: "raise" or "skip", for proteins that a file lacks or has in another length.
        tokens_per_batch: 2,048 on a CPU and 32,768 on a GPU by default; of a protein, its residues
            and two more, as in a fit from FASTA.
        num_workers: processes that read ahead.
        part: "i/n", one of n shares of the batches, for runs that are merged afterwards.
        num_sequences, heldout, num_groups, max_residues, long, seed: see
            :class:`rd_lightning.fitting.plan.PlanSettings`; a longer protein is divided, and every
            residue counted once.

    Raises:
        InputError: a file is missing, or a name or a file is given twice.

    Examples:
        >>> import h5py, numpy as np, lightning as L
        >>> from rd_lightning import EmbeddingsDataModule, RDModule
        >>> random = np.random.default_rng(0)
        >>> for name, width in [("small", 4), ("large", 6)]:
        ...     with h5py.File(f"{name}.h5", "w") as file:
        ...         for i in range(20):
        ...             file[f"P{i}"] = random.normal(size=(50, width)).astype("f4")
        >>> data = EmbeddingsDataModule({"S": "small.h5", "L": "large.h5"}, heldout=0)
        >>> module = RDModule(data.family)
        >>> trainer = L.Trainer(
        ...     max_epochs=1,
        ...     accelerator="cpu",
        ...     logger=False,
        ...     enable_checkpointing=False,
        ...     enable_progress_bar=False,
        ...     enable_model_summary=False,
        ... )
        >>> trainer.fit(module, datamodule=data)
        >>> module.head
        RDHead(S (4) -> L (6), regression=pcr, dtype=torch.float32)
    """

    remedy = "embed these again"

    def __init__(
        self,
        embeddings: Mapping[str, str | os.PathLike] | Sequence[Mapping[str, Any]],
        *,
        num_sequences: int | None = None,
        heldout: float = 0.05,
        num_groups: int = 1,
        max_residues: int = 1022,
        long: LongPolicy = "window",
        on_invalid: Literal["raise", "skip"] = "raise",
        tokens_per_batch: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
        part: str | None = None,
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
        self.files = member_files(embeddings)
        if len(self.files) == 1:
            name = self.files[0].name
            raise InputError(
                f"embeddings: one file, of {name}: there is nothing to distil it from; name those "
                "of smaller members before it"
            )
        check_choice("on_invalid", on_invalid, ("raise", "skip"))
        self.on_invalid: Literal["raise", "skip"] = on_invalid
        self._num_members = len(self.files)

    @cached_property
    def family(self) -> Family:
        """The members that the files are of, for :class:`rd_lightning.RDModule`: their names and
        widths, without models. Opens the files."""

        def load(member: Member, folder: Path | None) -> Any:
            raise InputError(f"{member.name} is embeddings in a file, and no model")

        with MemberReaders(self.files) as readers:
            widths = zip(readers.names, readers.widths, strict=True)
            members = tuple(Member(name, width, "", 0, 1) for name, width in widths)
            self._facts = readers.facts()
            return Family(NAME, members, load, embedded=readers.origin())

    def make_store(self) -> SequenceStore:
        """Open the files and match their proteins.

        Raises:
            InputError: see :class:`rd_lightning.formats.members.MemberReaders`.
        """
        return make_embedded_store(self.files, temporary_folder(), self.on_invalid)

    @staticmethod
    def open_store(folder: str | os.PathLike) -> SequenceStore:
        """Open what another process of the machine matched."""
        return EmbeddedStore.open(folder)

    def serve(self, family: Family, members: Sequence[Member]) -> None:
        """Read the files of the first members alone from now on.

        Raises:
            InputError: the family is not that of these files.
        """
        found, own = ([(m.name, m.width) for m in f.members] for f in (family, self.family))
        if family.has_models or found != own:
            raise InputError(
                "the data are embeddings in files, of no model that could be run: make the module "
                "with RDModule(data.family)"
            )
        self._num_members = len(members)

    @property
    def make_batch(self) -> Callable[[EmbeddedStore, int], EmbeddedBatch]:
        """(store, number) to the batch; of -1, the empty one."""
        assert self.plan is not None
        return partial(embedded_batch, plan=self.plan, num_members=self._num_members)

    def train_dataloader(self) -> DataLoader:
        assert isinstance(self.store, EmbeddedStore)
        self.store.release()  # a process that is forked opens the files for itself
        return super().train_dataloader()

    def named(self, windows: Sequence[Window]) -> str:
        """The records that windows are of, and the files in which they are not finite."""
        store = self.store
        assert isinstance(store, EmbeddedStore)
        found = {p: None for window in windows[:10] for p in store.nonfinite_in(window)}
        files = ", ".join(map(str, found)) or store.summary.path
        names = dict.fromkeys(index for index, _, _ in windows[:10])
        return f"{files}: {', '.join(map(store.name, names))}"

    def part(self, batches_done: int) -> Part:
        """The share of the plan that this run is, of these embeddings, as far as it got."""
        assert isinstance(self.store, EmbeddedStore)
        part = super().part(batches_done)
        of = {"plan": part.plan, "embeddings": self.store.digests}
        plan = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
        settings = {**part.settings, "embeddings": self.store.digests}
        return replace(part, plan=plan, settings=settings)

    def input_facts(self) -> list[Fact]:
        """The files, for people."""
        assert self.family.members
        return list(self._facts)

    def input_record(self) -> dict[str, Any]:
        """The files, for the report."""
        assert isinstance(self.store, EmbeddedStore)
        digests, files = self.store.digests, {file.name: file.path.name for file in self.files}
        said = {n: {"file": files[n], "digest": digests[n]} for n in files}
        return {"embedding_files": said, "proteins_digest": self.store.summary.digest}

    def reading_seconds(self, at_most: float = 1.0) -> float:
        """How long reading all batches once takes, from reading a few of them."""
        assert self.store is not None and self.plan is not None
        residues, read, begun = self.plan.residues_by_batch(), 0, time.perf_counter()
        for number in np.linspace(0, len(self.plan) - 1, min(16, len(self.plan))).astype(int):
            self.batch(int(number))
            read += int(residues[number])
            if time.perf_counter() - begun > at_most:
                break
        return (time.perf_counter() - begun) * int(residues.sum()) / max(1, read)
