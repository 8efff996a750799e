"""The files of a model in a repository on the Hugging Face Hub: in the cache, downloaded, read."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ..errors import InputError
from ..runtime.hub_errors import hub_errors

_WEIGHTS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""Whole, and the index of parts; the second of repositories without safetensors, and read as
tensors alone."""
_SETTINGS = ["*.json", "vocab.txt", "*.model"]
_PATTERNS = (
    ["model.safetensors", "model-*-of-*.safetensors"],
    ["pytorch_model.bin", "pytorch_model-*-of-*.bin"],
)
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}"
_REPOSITORY = re.compile(rf"(?!.*(--|\.\.)){_PART}/{_PART}")


def is_repository(place: str) -> bool:
    """Whether a path can only be the name of a repository, "org/name": nothing on the disk has
    it."""
    return may_be_repository(place) and not Path(place).exists()


def may_be_repository(name: str) -> bool:
    """Whether a repository may have that name."""
    return _REPOSITORY.fullmatch(name) is not None


def cache_folder() -> Path:
    """Where huggingface_hub keeps what it downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def in_cache(repository: str, revision: str | None) -> Path | None:
    """The folder of a repository's files in the cache, if the weights are there, all of them."""
    from huggingface_hub import try_to_load_from_cache

    for whole, index in _WEIGHTS:
        for name in (whole, index):
            path = try_to_load_from_cache(repository, name, revision=revision)
            if isinstance(path, str):
                folder = Path(path).parent
                if all(file.is_file() for file in weight_files(folder)):
                    return folder
    return None


def downloaded(repository: str, revision: str | None, *, code: bool = False) -> Path:
    """The folder of a repository's files; downloaded first where they are not in the cache.
    Safetensors if the repository has them; never other formats beside them.

    Args:
        code: whether Python files are wanted as well.

    Raises:
        InputError: they cannot be downloaded.
    """
    if (found := in_cache(repository, revision)) is not None:
        return found
    from huggingface_hub import snapshot_download

    others = [*_SETTINGS, *(["*.py"] if code else [])]
    for patterns in _PATTERNS:
        with hub_errors(f"{repository} on the Hugging Face Hub", revision):
            folder = Path(
                snapshot_download(
                    repository, revision=revision, allow_patterns=[*others, *patterns]
                )
            )
        if any(file.is_file() for file in weight_files(folder)):
            return folder
    raise InputError(
        f"{repository}: this repository of the Hugging Face Hub has neither model.safetensors nor "
        "pytorch_model.bin"
    )


def weight_files(folder: Path) -> list[Path]:
    """Of a model in a folder: one, or the parts that an index names; empty where there is neither.

    Raises:
        InputError: the index is damaged.
    """
    indices = []
    for whole, index in _WEIGHTS:
        if (folder / whole).is_file():
            return [folder / whole]
        if (folder / index).is_file():
            indices.append(_parts(folder / index))
    # A repository may have both indices, of which one's parts were downloaded.
    here = [parts for parts in indices if all(part.is_file() for part in parts)]
    return next(iter(here or indices), [])


def _parts(index: Path) -> list[Path]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return sorted(index.parent / Path(name).name for name in names)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{index}: damaged ({error}); download it again") from error
