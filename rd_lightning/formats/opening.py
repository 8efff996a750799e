"""Opening an embedding file or folder of any kind."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError, check_choice
from .reader import Reader

LAYOUTS = ("uniprot", "flat")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_KINDS = "HDF5 (.h5), Parquet, AnnData (.h5ad), CSV, TSV, .npz, or a folder of .npy or .pt files"


def open_vectors(
    path: str | os.PathLike, *, layout: str | None = None, columns: Sequence[str] | None = None
) -> Reader:
    """Open embeddings that rd-embed or another tool wrote, whatever the format.

    Files of rd-embed in any of its formats; HDF5 with a dataset a protein, at the root or in
    groups, as of UniProt, bio_embeddings, biotrainer and protspace (an attribute ``original_id``
    is the id, where there is one); fair-esm's folders of ``.pt``; Parquet with a column of ids and
    one of lists; AnnData with a dense ``X``; CSV or TSV with the id first; ``.npz`` with an array
    of ids and one of vectors. The content decides, of CSV, TSV and ``.npz`` the suffix.

    Args:
        layout: of HDF5 that has both datasets and groups at its root: "flat" reads the datasets,
            "uniprot" the groups.
        columns: of another tool's Parquet or ``.npz``: names of the ids and of the vectors; by
            default the only ones that can be meant.

    Raises:
        InputError: there is no such file, it is of no known kind, it holds no embeddings, its
            records differ in shape, or ids are not unique.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder) / "x.csv"
        ...     _ = file.write_text("id,1,2,3\\nP12345,0.5,1,2\\nQ9NZK7,0,1,0.25\\n")
        ...     with open_vectors(file) as reader:
        ...         print(reader.ids, reader.vectors("mean", 0, 2, width=2).tolist())
        ['P12345', 'Q9NZK7'] [[0.5, 1.0], [0.0, 1.0]]
    """
    path = Path(path)
    if layout is not None:
        check_choice("layout", layout, LAYOUTS)
    of_names = isinstance(columns, (list, tuple)) and all(isinstance(c, str) for c in columns)
    if columns is not None and not (of_names and len(columns) == 2):
        raise InputError(f"columns are two names, of the ids and of the vectors, not {columns!r}")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    reader = _opened(path, layout, columns)
    if reader is None:
        raise InputError(f"{path}: no embedding file that is known: {_KINDS}")
    return reader


def _opened(path: Path, layout: str | None, columns: Sequence[str] | None) -> Reader | None:
    # Here, not above: each kind loads its own libraries.
    if path.is_dir():
        from .read_folders import open_folder

        return open_folder(path)
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    suffix = path.suffix.lower()
    if start == _HDF5:
        from .read_hdf5 import open_hdf5

        return open_hdf5(path, layout)
    if suffix in (".h5", ".hdf5", ".hdf", ".h5ad"):
        raise InputError(f"{path}: not HDF5, or cut short; download or make it again")
    if start[:4] == b"PAR1" or suffix == ".parquet":
        from .read_parquet import ParquetReader

        return ParquetReader(path, columns)
    if suffix in (".csv", ".tsv", ".txt"):
        from .read_text import TextReader

        return TextReader(path)
    if suffix == ".npz":
        from .read_folders import NPZReader

        return NPZReader(path, columns)
    return None
