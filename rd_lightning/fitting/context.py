"""Where a head comes from, for its report; where a residue does, for a message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..data.windows import Window
from ..families.execution import Execution
from ..families.family import Family, Member
from ..families.record import EMBEDDED, MEMBERS, members_record
from ..runtime.provenance import versions
from .planned import PlannedDataModule

if TYPE_CHECKING:
    from lightning import Trainer


def fit_identity(
    family: Family,
    members: Sequence[Member],
    accumulate: str,
    execution: Execution,
    trainer: Trainer,
) -> dict[str, Any]:
    """What must agree for two states to be of one fit, as far as known before the weights. Where
    the embeddings are in files there is no family, and no model that is run in some precision.

    Args:
        members: that are fitted.
        accumulate: arithmetic of the moments.
    """
    names = [member.name for member in members]
    if family.embedded is not None:
        files = {name: family.embedded[name] for name in names}
        return {"names": names, EMBEDDED: files, "accumulate": accumulate}
    device, precision = trainer.strategy.root_device, str(trainer.precision)
    record = members_record(family, members)
    return {
        "family": family.name,
        "names": names,
        **({} if record is None else {MEMBERS: record}),
        "accumulate": accumulate,
        "precision": precision,
        **execution.identity(family, device, precision),
    }


def fit_context(
    identity: Mapping[str, Any],
    data: PlannedDataModule | None,
    *,
    num_devices: int,
    num_residues: int,
    num_nonfinite: int,
    num_pieces: int,
    seconds: float,
) -> dict[str, Any]:
    """Of a fit: its identity, what ran, and the data.

    Args:
        identity: see :attr:`rd_lightning.fitting.state.FitState.identity`.
        data: None where they are not of this package.
        num_residues: that this run streamed, in so many seconds.
        num_nonfinite: residues that were left out.
        num_pieces: beyond the first, of batches that did not fit into memory whole.
    """
    return {
        **identity,
        "num_devices": num_devices,
        "num_nonfinite_residues": num_nonfinite,
        "num_out_of_memory_pieces": num_pieces,
        "seconds": round(seconds, 3),
        "residues_per_second": round(num_residues / seconds, 1),
        "versions": versions(),
        **({} if data is None else data.record()),
    }


def named(windows: Sequence[Window], data: PlannedDataModule | None) -> str:
    """The records that windows are of, for a message."""
    if data is None or data.store is None:
        return f"sequence(s) {sorted({i for i, _, _ in windows})}"
    return data.named(windows)
