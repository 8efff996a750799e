"""The output folder of a fit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .module import RDModule
from .plots import save_report_picture
from .storage import write_json

HEAD, MOMENTS, HELDOUT_MOMENTS = "head", "moments.safetensors", "heldout_moments.safetensors"
REPORT, PICTURE = "report.json", "report.png"


def write_fit(module: RDModule, folder: str | os.PathLike, config: dict[str, Any]) -> None:
    """Write ``head/``, both moments, ``report.json`` (with the run's configuration), the picture.

    Each file appears whole or not at all; the head, which readers look for, comes last.
    """
    folder = Path(folder)
    assert module.head is not None
    head = module.head
    about = {"names": list(head.names), **head.report.context}
    module.moments.save(folder / MOMENTS, about)
    module.heldout_moments.save(folder / HELDOUT_MOMENTS, about)
    save_report_picture(head.report, head.dims, head.names, folder / PICTURE)
    report = {"names": list(head.names), "dims": list(head.dims), **head.report.to_dict()}
    write_json(folder / REPORT, {**report, "config": config})
    head.save_pretrained(folder / HEAD)
