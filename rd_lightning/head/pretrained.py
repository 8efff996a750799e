"""The two files of a head: ``head.safetensors`` and ``config.json``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ..errors import InputError, whole_number
from ..runtime.files import read_json, read_tensors, write_json, write_tensors
from .report import FitReport

TENSORS_FILE, CONFIG_FILE = "head.safetensors", "config.json"
KIND = "head"
RUN_HEAD = "head"
"""Its folder within that of a run."""


class Pretrained(NamedTuple):
    """What a head's files hold."""

    names: list[str]
    dims: list[int]
    """Widths of the levels."""
    member_dims: list[int]
    tensors: dict[str, Tensor]
    """By name of the head's buffers."""
    report: FitReport


def write_pretrained(
    folder: str | os.PathLike,
    names: Sequence[str],
    dims: Sequence[int],
    member_dims: Sequence[int],
    tensors: Mapping[str, Tensor],
    report: FitReport,
) -> None:
    """Write both files, each whole or not at all; see :func:`is_pretrained`."""
    write_tensors(Path(folder) / TENSORS_FILE, tensors, {"kind": KIND})
    config: dict[str, Any] = {
        "kind": KIND,
        "names": list(names),
        "dims": list(dims),
        "member_dims": list(member_dims),
        "report": report.to_dict(),
    }
    write_json(Path(folder) / CONFIG_FILE, config)


def is_pretrained(folder: Path) -> bool:
    """Whether both files are there: a process may be killed between the two."""
    return all((folder / name).is_file() for name in (TENSORS_FILE, CONFIG_FILE))


def read_pretrained(folder: Path) -> Pretrained:
    """Read both files, bit for bit.

    Raises:
        InputError: a file is missing, damaged, of another kind or lacks an entry.
    """
    config = _read_config(folder / CONFIG_FILE)
    tensors, _ = read_tensors(folder / TENSORS_FILE, KIND)
    try:
        dims = config["dims"]
        members = config.get("member_dims", dims)  # absent in files of before there was keep=
        names, report = config["names"], FitReport.from_dict(config["report"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{folder}: the files do not fit each other ({error})") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{folder / CONFIG_FILE}: names are not a list of words: {names}")
    for key, widths in (("dims", dims), ("member_dims", members)):
        if (
            not isinstance(widths, list)
            or not widths
            or any(whole_number(w) is None for w in widths)
        ):
            raise InputError(f"{folder / CONFIG_FILE}: {key} are not whole numbers: {widths}")
    return Pretrained(names, dims, members, tensors, report)


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; a head is a folder with {CONFIG_FILE}")
    config = read_json(path, "save or download the head again")
    if config.get("kind") != KIND:
        raise InputError(f"{path}: not the configuration of an RDHead")
    return config
