"""Tasks in FASTA: FLIP's folders, biotrainer's headers, and a class as the header's second word."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...data.fasta import COMPRESSED, SUFFIXES, read_records
from ...errors import InputError
from .records import LEFT_OUT, PARTS, Entry, Source, check_same_ids, check_unique, cleaned

SEQUENCES, LABELS, MASK = "sequences", "labels", "mask"
"""Names of the files of a FLIP folder, without their endings."""
_ATTRIBUTE = re.compile(r"(\w+)=(\S*)")


class Header(NamedTuple):
    """A record of FASTA with its header taken apart."""

    id: str
    where: str
    attributes: dict[str, str]
    """By upper-case name."""
    words: list[str]
    """Those that are no attributes."""
    letters: str


def headers(path: str | os.PathLike) -> Iterator[Header]:
    """The records of a file whose headers are ``id NAME=value ... word ...``, in any order.

    Raises:
        InputError: see :func:`rd_lightning.data.fasta.read_records`; or a target has a space.
    """
    for record in read_records(path, ids="header"):
        first, *rest = record.id.split() or [""]
        where = f"{path}: record {record.number} ({first})"
        attributes, words, before = {}, [], ""
        for word in rest:
            match = _ATTRIBUTE.fullmatch(word)
            if match is None:
                words.append(word)
                if before == "TARGET":
                    raise InputError(
                        f"{where}: {word!r} follows TARGET={attributes['TARGET']}; a target has no "
                        "space: write _ for it"
                    )
                continue
            before = match[1].upper()
            attributes[before] = match[2]
        yield Header(first, where, attributes, words, record.letters)


def file_of(folder: str | os.PathLike, name: str) -> Path | None:
    """``name.fasta`` of a folder, under any ending of FASTA, maybe compressed."""
    for suffix in SUFFIXES:
        for packed in ("", *COMPRESSED):
            path = Path(folder) / f"{name}{suffix}{packed}"
            if path.is_file():
                return path
    return None


def is_flip(folder: str | os.PathLike) -> bool:
    """Whether a folder is one task."""
    return any(file_of(folder, name) is not None for name in (SEQUENCES, LABELS))


def read_folder(folder: str | os.PathLike, mask: str | os.PathLike | None = None) -> Source:
    """A FLIP folder: sequences.fasta, labels.fasta and maybe mask.fasta, matched by id.

    A record of labels.fasta holds one letter a residue, or the protein's target as ``TARGET=`` in
    its header. A folder with one of the two files alone holds targets and sequences in it.

    Raises:
        InputError: a file cannot be used, or two do not hold the same ids.
    """
    mask = mask if mask is not None else file_of(folder, MASK)
    files = [file_of(folder, name) for name in (SEQUENCES, LABELS)]
    sequences, labels = files
    if sequences is None or labels is None:
        only = sequences or labels
        assert only is not None
        return read_fasta(only, mask)
    letters = {h.id: (h.where, h.letters) for h in _unique(sequences)}
    found = _unique(labels)
    check_same_ids(sequences, letters, labels, [h.id for h in found])
    of_proteins = any("TARGET" in h.attributes for h in found)
    entries = []
    for header in found:
        sequence = cleaned(*letters[header.id])
        if not of_proteins and not header.letters:
            raise InputError(
                f"{header.where}: no labels; give a letter a residue, or TARGET= in the header"
            )
        target = header.attributes.get("TARGET") if of_proteins else header.letters
        entries.append(_entry(header, sequence, target))
    entries = _masked(labels, entries, mask)
    return Source(os.fspath(folder), entries, letter_a_residue=not of_proteins)


def read_fasta(path: str | os.PathLike, mask: str | os.PathLike | None = None) -> Source:
    """One file with sequences and targets.

    biotrainer's headers are ``>id TARGET=... SET=... MASK=...``, in any order, the target a word, a
    number, a letter a residue, or values a residue with ``;`` between. Without TARGET= the
    header's second word is the class, and a further word may name the part, as in DeepLoc's files
    (``>id Nucleus-U test``).

    Raises:
        InputError: the file cannot be used, or no record has a target.
    """
    found = _unique(path)
    with_attribute = any("TARGET" in h.attributes for h in found)
    if not with_attribute and not any(h.words for h in found):
        raise InputError(
            f"{path}: no record has a target; write >id TARGET=..., or the class as the second "
            "word of the header"
        )
    entries = []
    for header in found:
        target = header.attributes.get("TARGET")
        if not with_attribute:
            target = header.words[0] if header.words else None
            for word in header.words[1:]:
                if word.lower() in PARTS:
                    header.attributes.setdefault("SET", word)
        entries.append(_entry(header, cleaned(header.where, header.letters), target))
    return Source(os.fspath(path), _masked(path, entries, mask))


def _unique(path: str | os.PathLike) -> list[Header]:
    found = list(headers(path))
    check_unique([h.id for h in found], [h.where for h in found])
    return found


def _entry(header: Header, sequence: str, target: str | None) -> Entry:
    get = header.attributes.get
    split = get("SET")
    if target is None and (split or "").lower() not in LEFT_OUT:
        raise InputError(
            f"{header.where}: no target; write TARGET=nan, or SET=nan, to leave the protein out"
        )
    return Entry(header.id, header.where, sequence, target, split, get("VALIDATION"), get("MASK"))


def _masked(
    path: str | os.PathLike, entries: list[Entry], mask: str | os.PathLike | None
) -> list[Entry]:
    """With the masks of a file, by id."""
    if mask is None:
        return entries
    if not os.path.isfile(mask):
        raise InputError(f"{mask}: no such file; give the mask's path, or leave mask out")
    masks = {h.id: h.letters for h in _unique(mask)}
    check_same_ids(path, [e.id for e in entries], mask, masks)
    return [entry._replace(mask=masks[entry.id]) for entry in entries]
