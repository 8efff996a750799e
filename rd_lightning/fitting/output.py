"""The output folder of a fit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..distillation.moments import JointMoments
from ..errors import InputError
from ..head.head import RDHead
from ..head.pretrained import RUN_HEAD, is_pretrained
from ..pages.page import PAGE, write_page
from ..runtime.files import write_json
from ..runtime.provenance import differences
from .page import fit_page
from .state import FitState
from .summary import save_report_picture

HEAD, MOMENTS, REPORT, PICTURE = RUN_HEAD, "moments.safetensors", "report.json", "report.png"
CHECKPOINT = "checkpoint.safetensors"


def refuse_used(folder: str | os.PathLike, state: FitState | None = None) -> None:
    """Raise InputError if the folder holds a fit, or a part of one: it would be lost.

    Args:
        state: what will be written. If it is there already, without a whole head, an earlier run
            was killed before it had written one, and nothing is lost.
    """
    folder = Path(folder)
    used = any((folder / name).exists() for name in (MOMENTS, HEAD))
    if state is not None and (folder / MOMENTS).exists():
        there = FitState.load(folder / MOMENTS)
        if (there.parts, there.identity) == (state.parts, state.identity):
            used = is_pretrained(folder / HEAD)
    if used:
        raise InputError(f"{folder} holds a fit already; choose another folder: out=DIR")


def is_complete(folder: Path, resume: str | None, *, is_part: bool) -> bool:
    """Whether the folder holds the finished fit that ``resume`` asks for.

    Raises:
        InputError: it holds a fit, or the checkpoint of one, that the run would replace.
    """
    checkpoint = folder / CHECKPOINT
    own = resume == "auto" or (resume is not None and Path(resume).absolute() == checkpoint)
    if checkpoint.exists():  # also while an earlier run was writing its results
        if own:
            return False
        raise InputError(
            f"{folder} holds the checkpoint of an interrupted fit; resume it with resume=auto, or "
            "choose another folder: out=DIR"
        )
    if not own:
        refuse_used(folder)
    return own and ((folder / MOMENTS).exists() if is_part else is_pretrained(folder / HEAD))


def resumable(folder: Path) -> Path | None:
    """What an earlier run left of its state: the checkpoint, or the moments of one that wrote its
    results."""
    return next((p for p in (folder / CHECKPOINT, folder / MOMENTS) if p.exists()), None)


def resumed_state(resume: str | None, folder: Path) -> FitState | None:
    """The state that ``resume`` names, "auto" or a path; None where there is none to resume from.

    Raises:
        InputError: it is no state, or that of several runs.
    """
    path = resumable(folder) if resume == "auto" else None if resume is None else Path(resume)
    if path is None:
        return None
    state = FitState.load(path)
    if len(state.parts) != 1:
        raise InputError(f"{path}: not the state of one run; nothing can resume from it")
    return state


def check_same_options(folder: Path, options: Mapping[str, Any]) -> None:
    """Raise InputError if the head of the folder was solved with other options."""
    if not is_pretrained(folder / HEAD):
        return
    report = RDHead.from_pretrained(folder / HEAD).report
    there = {**report.options, "level_widths": report.keep, "scale": report.scale}
    # What the report does not tell, or tells as it was worked out, is not compared.
    asked = {k: options[k] for k in there if options[k] is not None or k == "level_widths"}
    if found := differences(asked, {k: there[k] for k in asked}, names=("now", "there")):
        raise InputError(
            f"{folder} holds a fit with other options ({'; '.join(found)}); solve its moments "
            f"again: rd-merge {folder / MOMENTS} out=DIR with these options"
        )


def write_state(
    state: FitState,
    head: RDHead | None,
    folder: str | os.PathLike,
    config: dict[str, Any],
    *,
    page: bool = False,
) -> None:
    """Write ``moments.safetensors`` and, of a solved fit, ``report.json`` (with the run's
    configuration), ``report.png``, where ``page`` is true ``report.html``, and ``head/``.

    Each file appears whole or not at all; the head, which readers look for, comes last.
    """
    folder = Path(folder)
    state.save(folder / MOMENTS)
    if head is None:
        return
    save_report_picture(head.report, head.dims, head.names, folder / PICTURE)
    report = {"names": list(head.names), "dims": list(head.dims), **head.report.to_dict()}
    write_json(folder / REPORT, {**report, "config": config})
    if page:
        about = {"names": head.names, "dims": head.dims, "digest": head.digest()}
        write_page(folder / PAGE, fit_page(head.report, **about, config=config))
    head.save_pretrained(folder / HEAD)


@dataclass(frozen=True)
class Fitted:
    """A head, and the state that it was solved from.

    Raises:
        InputError: they are not of the same widths.
    """

    head: RDHead
    state: FitState

    def __post_init__(self) -> None:
        if self.state.dims != self.head.dims:
            raise InputError(
                f"the moments are of widths {self.state.dims}, the head of {self.head.dims}; "
                "give the folder that one rd-fit wrote"
            )

    @cached_property
    def moments(self) -> JointMoments:
        """Of all fit residues."""
        return self.state.total

    @property
    def heldout(self) -> JointMoments | None:
        """Of the held-out residues; None where fewer than two are held out."""
        return self.state.heldout if self.state.heldout.num_rows > 1 else None

    @property
    def levels(self) -> dict[str, int]:
        """Width by name."""
        return dict(zip(self.head.names, self.head.dims, strict=True))


def read_fit(folder: str | os.PathLike) -> Fitted:
    """Head and moments of one fit.

    Raises:
        InputError: a file is missing or damaged, or the two are not of one fit.
    """
    folder = Path(folder)
    if not (folder / MOMENTS).is_file():
        raise InputError(
            f"{folder}: no {MOMENTS} there; give the folder that rd-fit wrote, which holds head/ "
            f"and {MOMENTS}"
        )
    head, state = RDHead.from_pretrained(folder / HEAD), FitState.load(folder / MOMENTS)
    names = state.identity.get("names")
    if head.dims != head.member_dims:
        raise InputError(
            f"{folder}: its levels have {list(head.dims)} columns, its members "
            f"{list(head.member_dims)} (keep=...); representations are compared at the members' "
            "own widths: give a fit without keep"
        )
    if state.dims != head.dims or (names is not None and list(names) != list(head.names)):
        raise InputError(
            f"{folder}: the moments are of {names} {list(state.dims)}, the head of "
            f"{list(head.names)} {list(head.dims)}; give the folder that one rd-fit wrote"
        )
    return Fitted(head, state)
