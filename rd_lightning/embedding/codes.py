"""The codecs of an output: from its own vectors, from an earlier file, or from moments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..display.console import residue_progress
from ..errors import InputError
from ..formats import open_vectors
from ..formats.base import ENERGY, PER_RESIDUE, Pooling
from ..formats.codec import CODE_KINDS, Codec, CodeKind
from ..head.head import RDHead

if TYPE_CHECKING:
    from ..formats.reader import Reader
    from .spool import Spool
    from .topup import TopUp

_ROWS = 4096
_MOMENTS_FILE = "moments.safetensors"


class OutputCodes:
    """Which codes an output holds, and where their scales come from: each pooling's own, but
    energy's, which stays float32.

    Args:
        kind: None for an output without codes.
        scales: an earlier file, or moments, whose codecs :meth:`take` is then given; None: the
            vectors of the output.
        head, width: that give the columns.
        topup: of a file with codes, whose columns keep their scales.

    Raises:
        InputError: the output holds no codes, and scales are named; the file holds none of this
            kind, is of another head or of fewer columns, or lacks a pooling; moments are named for
            other poolings than "residue"; the file that is topped up has lost its scales.
    """

    def __init__(
        self,
        kind: CodeKind | None,
        scales: str | None,
        poolings: Iterable[Pooling],
        head: RDHead,
        width: int,
        topup: TopUp | None = None,
    ) -> None:
        self.kind: CodeKind | None = kind
        self.scales, self.head, self.width, self.topup = scales, head, width, topup
        self.poolings: list[Pooling] = [p for p in poolings if p != ENERGY and kind is not None]
        """Those that become codes."""
        self._given: dict[str, Codec] = {}
        if kind is None:
            if scales is not None:
                raise InputError(f"scales={scales} is of codes: dtype={' | '.join(CODE_KINDS)}")
            return
        if topup:
            self._checked(topup.file.path, topup.codecs, topup.width)
        if self.moments is not None:
            if wrong := [p for p in self.poolings if p != "residue"]:
                raise InputError(
                    f"scales={scales}: moments are of residues, and {wrong[0]} vectors vary "
                    "otherwise; leave scales out, or name a file of such codes: scales=emb.h5"
                )
        elif scales is not None:
            with open_vectors(scales) as file:
                self.take(self._checked(file.path, file.codecs, width))
                self._check_head(file)

    @property
    def moments(self) -> Path | None:
        """The moments that are named, by their file or a fit's folder; None where none are."""
        return None if self.scales is None else moments_file(self.scales)

    def take(self, codecs: Mapping[str, Codec]) -> None:
        """These it is that are used, cut to the columns of the output."""
        self._given = {pooling: codec.truncate(self.width) for pooling, codec in codecs.items()}

    @property
    def measured(self) -> list[Pooling]:
        """Poolings whose scales are those of the output's own vectors."""
        return [p for p in self.poolings if p not in self._given]

    @property
    def fact(self) -> str:
        """For people: where the scales come from."""
        source = "of these vectors" if self.measured else f"of {self.scales}"
        if self.topup:
            source += f"; of columns 1 to {self.topup.width}, those of {self.topup.file.path}"
        return source

    def codecs(self, spool: Spool, sequences: np.ndarray) -> dict[str, Codec]:
        """By pooling, once all vectors are there.

        Args:
            sequences: all that are embedded, each distinct one once, whichever of them an output
                holds: so every part of an output gets the same.
        """
        found = dict(self._given)
        for pooling in self.measured:
            assert self.kind is not None
            statistics = column_statistics(_blocks(spool, pooling, sequences.tolist()))
            found[pooling] = Codec.of_columns(self.kind, *statistics)
        if self.topup:
            kept = self.topup.codecs
            found = {pooling: kept[pooling].continued(codec) for pooling, codec in found.items()}
        return found

    def _checked(self, path: Path, codecs: Mapping[str, Codec], width: int) -> dict[str, Codec]:
        assert self.kind is not None
        return codecs_of(path, codecs, self.kind, self.poolings, width)

    def _check_head(self, file: Reader) -> None:
        """Raise InputError unless head and file are of one head, as far as both reach."""
        levels, names = tuple(file.levels), self.head.names
        shared = min(len(levels), len(names))
        same = shared and levels[:shared] == names[:shared]
        digest = file.metadata.get("head_digest")
        if not same or self.head.truncate(names[shared - 1]).digest() != digest:
            raise InputError(
                f"{file.path} was made with another head, whose columns have other scales; leave "
                "scales out, or name a file of this head"
            )


def moments_file(scales: str) -> Path | None:
    """The moments that ``scales`` names, by their file or a fit's folder; None for other files."""
    path = Path(scales)
    inside = path / _MOMENTS_FILE
    return path if path.suffix == ".safetensors" else inside if inside.is_file() else None


def codecs_of(
    path: Path,
    codecs: Mapping[str, Codec],
    kind: CodeKind,
    poolings: Iterable[str],
    width: int,
) -> dict[str, Codec]:
    """A file's codecs of these poolings.

    Raises:
        InputError: it lacks one, or has one of another kind or of fewer columns.
    """
    found = {}
    for pooling in poolings:
        codec = codecs.get(pooling)
        if codec is None or codec.kind != kind:
            raise InputError(
                f"{path} holds no {kind} codes of {pooling} vectors, so no scales of them; name a "
                "file that does"
            )
        if codec.width < width:
            raise InputError(
                f"{path} has scales of {codec.width} columns, and {width} are needed; name a file "
                "of as many"
            )
        found[pooling] = codec
    return found


def column_statistics(blocks: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(mean, standard deviation) of the columns of all rows, (D,) float64, in one pass: the mean
    and squares of each block about its own mean are added, so that no digits are lost.

    Equals ``rows.mean(0), rows.std(0)`` of all rows in float64, to rounding; the same bits for the
    same blocks in the same order.

    Args:
        blocks: of rows (n, D), any float dtype.

    Raises:
        InputError: there are no rows.
    """
    count, mean, squares = 0, np.zeros(1), np.zeros(1)
    for block in blocks:
        rows = block.astype(np.float64)
        own, total = rows.mean(axis=0), count + len(rows)
        difference = own - mean
        squares = squares + np.square(rows - own).sum(axis=0)
        squares += np.square(difference) * (count * len(rows) / total)
        mean = mean + difference * (len(rows) / total)
        count = total
    if not count:
        raise InputError("no vectors to take the scales of codes from; name a file: scales=emb.h5")
    return mean, np.sqrt(squares / count)


def _blocks(spool: Spool, pooling: Pooling, sequences: list[int]) -> Iterator[np.ndarray]:
    """Their vectors, in order."""
    with residue_progress() as progress:
        task = progress.add_task(f"scales of {pooling}", total=len(sequences), unit="sequences")
        for start in range(0, len(sequences), _ROWS):
            some = sequences[start : start + _ROWS]
            if pooling not in PER_RESIDUE:
                yield np.stack([spool.read(pooling, sequence).numpy() for sequence in some])
            else:
                for sequence in some:
                    rows = spool.read(pooling, sequence).numpy()
                    yield from (rows[i : i + _ROWS] for i in range(0, len(rows), _ROWS))
            progress.update(task, completed=start + len(some))
