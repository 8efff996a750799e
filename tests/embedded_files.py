"""Files of residue embeddings as a user may have them: a protein a dataset, a file a member."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch

from rd_lightning.data.scan import digest64
from rd_lightning.data.windows import Window
from rd_lightning.families import Family
from rd_lightning.families.backbone import load_backbones
from rd_lightning.formats import Description, Embedded, writer_for

Records = Sequence[tuple[str, str]]


def raw_embeddings(
    family: Family, records: Records, number: int | None = None
) -> list[dict[str, torch.Tensor]]:
    """By member and id (L, d): each sequence by itself through the models."""
    members = family.members[:number]
    backbones, tokenizer = load_backbones(family, members), family.tokenizer()
    found: list[dict[str, torch.Tensor]] = [{} for _ in members]
    for id, sequence in records:
        tokens = torch.from_numpy(tokenizer.encode([sequence.encode()]))
        with torch.no_grad():
            embedded = backbones(tokens, padded=False, num_tokens=tokens.numel())
        for by_id, rows in zip(found, embedded, strict=True):
            by_id[id] = rows[0, 1:-1].clone()
    return found


def flat_files(
    folder: Path,
    embeddings: dict[str, dict[str, torch.Tensor]],
    dtype: str = "float32",
) -> dict[str, Path]:
    """A flat HDF5 a member."""
    paths = {}
    for name, by_id in embeddings.items():
        paths[name] = folder / f"{name}.{dtype}.h5"
        with h5py.File(paths[name], "w") as file:
            for id, rows in by_id.items():
                file[id] = rows.numpy().astype(dtype)
    return paths


def own_files(
    folder: Path, embeddings: dict[str, dict[str, torch.Tensor]], records: Records
) -> dict[str, Path]:
    """A file of rd-embed a member, which knows the sequences' digests."""
    paths, sequences = {}, dict(records)
    for name, by_id in embeddings.items():
        paths[name] = folder / f"{name}.own.h5"
        width = next(iter(by_id.values())).shape[1]
        lengths = np.array([len(rows) for rows in by_id.values()])
        metadata = {"width": width, "levels": [name], "dims": [width], "poolings": ["residue"]}
        about = Description(
            ("residue",), (name,), (width,), width, torch.float32, len(by_id), lengths, metadata
        )
        with writer_for("hdf5")(paths[name], about) as writer:
            for i, (id, rows) in enumerate(by_id.items()):
                digest = digest64(sequences[id].encode())
                writer.write(Embedded(id, i, len(rows), digest, id, {"residue": rows}))
    return paths


def rows_of(
    embeddings: Sequence[dict[str, torch.Tensor]], ids: Sequence[str]
) -> list[torch.Tensor]:
    """By member (n, d): the residues of some proteins."""
    return [torch.cat([by_id[id] for id in ids]) for by_id in embeddings]


def rows_of_windows(block: torch.Tensor, windows: Sequence[Window]) -> list[torch.Tensor]:
    """Of a batch's block, by window."""
    return list(block.split([length for _, _, length in windows]))
