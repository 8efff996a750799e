"""Other spellings of settings: a word that one command has for a thing is understood by all.

Hydra and the configuration know one spelling of each setting; the command line is rewritten to it,
and text is quoted where Hydra's grammar needs that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import InputError
from .text import as_text, is_sweep, unquoted

_OF_DATA = (
    "fasta",
    "num_sequences",
    "heldout",
    "num_groups",
    "part",
    "max_residues",
    "long",
    "on_invalid",
    "on_nucleotides",
    "tokens_per_batch",
    "seed",
    "num_workers",
    "store",
    "claim",
    "claim_parts",
)
_EMBED_HAS = (
    "fasta",
    "max_residues",
    "long",
    "on_invalid",
    "on_nucleotides",
    "tokens_per_batch",
    "num_workers",
    "store",
)
_SEARCH_HAS = ("max_residues", "long", "on_invalid", "tokens_per_batch")
_EVALUATE_HAS = ("max_residues", "tokens_per_batch")
_RUN = {"device": "trainer", "precision": "trainer.precision", "weights": "family.weights"}

ALIASES: dict[str, dict[str, str]] = {
    "fit": {**{key: f"data.{key}" for key in _OF_DATA}, "level": "target", **_RUN},
    "merge": {"state": "states"},
    "embed": {**{f"data.{key}": key for key in _EMBED_HAS}, "target": "level", **_RUN},
    "search": {
        **{f"data.{key}": key for key in _SEARCH_HAS},
        "target": "level",
        "trainer": "device",
        "trainer.precision": "precision",
        "weights": "family.weights",
    },
    "evaluate": {
        **{f"data.{key}": key for key in _EVALUATE_HAS},
        "data": "preset_data",  # data alone is a group of conf/, of rd-fit
        "trainer": "device",
        "trainer.precision": "precision",
        "weights": "family.weights",
    },
}
"""Of each command: other spelling to the key of the configuration."""

_OVERRIDE = re.compile(r"(\+\+|\+|~|)([\w.]+)(?:=(.*))?", re.DOTALL)
_DEVICE = re.compile(r"cpu|mps|(?:cuda|gpu)(?::(\d+))?")


def canonical(command: str, arguments: Sequence[str]) -> list[str]:
    """The command line in the configuration's own spelling; flags and files stay as they are.

    What it returns it would return again: a process that is started with it reads the same.

    Raises:
        InputError: a setting is given in two spellings with different values, a path without a
            value, or a device that there is not.
    """
    rewritten, sweep = [], is_sweep(arguments)
    given: dict[str, tuple[str, str | None, str]] = {}  # key: (spelling, value, argument)
    for argument in arguments:
        found = _OVERRIDE.fullmatch(argument)
        if found is None or (not found[1] and found[3] is None):
            rewritten.append(argument)  # a flag, a file
            continue
        prefix, name, value = found.groups()
        for key, ours in _in_our_words(command, name, value):
            if ours is not None:
                ours = as_text(command, key, ours, sweep=sweep)
            spelling, before, written = given.get(key, (name, ours, argument))
            if spelling != name and _bare(before) != _bare(ours):
                raise InputError(
                    f"{written} and {argument} are two values for one setting; give one of them"
                )
            if spelling == name:  # else it was said already, in other words
                given[key] = (name, ours, argument)
                rewritten.append(f"{prefix}{key}" + ("" if ours is None else f"={ours}"))
    return rewritten


def _in_our_words(command: str, name: str, value: str | None) -> list[tuple[str, str | None]]:
    """Key and value; for the device of a Trainer, maybe two of them."""
    key = ALIASES[command].get(name, name)
    if key == name or value is None:
        return [(key, value)]
    if (name, key) == ("device", "trainer"):
        return _trainer_of(value)
    if (name, key) == ("trainer", "device"):
        return [(key, ",".join(map(_device_of, value.split(","))))]
    return [(key, value)]


def _trainer_of(value: str) -> list[tuple[str, str | None]]:
    """device=cuda:1 is trainer=gpu with trainer.devices=[1]; of a sweep, each of cpu,cuda."""
    kinds, number = [], None
    for device in map(_bare, value.split(",")):
        found = _DEVICE.fullmatch(device)
        if found is None:
            raise InputError(
                f"device is cpu, cuda, cuda:1 for the second GPU, or mps, not {device!r}"
            )
        if "," in value and found[1] is not None:
            raise InputError(
                f"device={value}: a sweep is over cpu and cuda alone; for GPUs by their number "
                "take trainer=gpu trainer.devices=[0],[1]"
            )
        kinds.append(device if device in ("cpu", "mps") else "gpu")
        number = found[1]
    which: list[tuple[str, str | None]] = [("trainer.devices", f"[{number}]")] if number else []
    return [("trainer", ",".join(kinds)), *which]


def _device_of(trainer: str) -> str:
    if _bare(trainer) not in ("cpu", "gpu", "mps"):
        raise InputError(
            f"rd-evaluate runs on one device: device=cpu, device=cuda, device=cuda:1 or "
            f"device=mps, not trainer={trainer}"
        )
    return {"gpu": "cuda"}.get(_bare(trainer), _bare(trainer))


def _bare(value: str | None) -> str:
    """Without the quotes around it: 'a b' and "a b" are one value."""
    return unquoted((value or "").strip())
