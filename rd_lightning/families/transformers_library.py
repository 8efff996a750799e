"""The optional library transformers: its versions, and its errors in one line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..errors import InputError, reason
from .family import Repository

_LEAST = (4, 57)
"""The oldest version that is tested."""
_ADVICE = 'pip install -U "rd-lightning[transformers]"'


def import_transformers(needs: tuple[int, int] | None = None, why: str = "") -> Any:
    """The library; imported here because it is optional, and slow to import.

    Args:
        needs: version, (major, minor), if it is to be newer than the oldest that is supported.
        why: what needs that version, for the message.

    Raises:
        InputError: it is not installed, or is older.
    """
    try:
        import transformers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(f"Hugging Face encoders need transformers: {_ADVICE}") from error
    _check_version(transformers.__version__, needs, why)
    return transformers


def check_transformers(needs: tuple[int, int] | None = None, why: str = "") -> None:
    """As :func:`import_transformers`, without importing it: before anything is downloaded."""
    try:
        found = version("transformers")
    except PackageNotFoundError as error:
        raise InputError(f"Hugging Face encoders need transformers: {_ADVICE}") from error
    _check_version(found, needs, why)


def _check_version(found: str, needs: tuple[int, int] | None, why: str) -> None:
    major, minor, *_ = found.split(".")
    least = max(needs or _LEAST, _LEAST)
    if (int(major), int(minor)) < least:
        raise InputError(
            f"{why or 'Hugging Face encoders'} need transformers {least[0]}.{least[1]} or newer, "
            f"not {found}: {_ADVICE}"
        )


def where_to_look(place: str, repository: Repository) -> dict[str, Any]:
    """Arguments of ``from_pretrained``. Without the Hub, only its cache: transformers would try for
    half a minute, and warn.

    Args:
        place: a folder, or the name of a repository on the Hub.
    """
    trusted = repository.trust_remote_code
    found: dict[str, Any] = {"trust_remote_code": trusted}
    if Path(place).exists():
        return found
    if repository.revision is not None:
        found["revision"] = repository.revision
        if trusted:
            found["code_revision"] = repository.revision
    if not _hub_answers(int(time.monotonic() // 60)):
        found["local_files_only"] = True
    return found


@lru_cache(maxsize=1)
def _hub_answers(minute: int) -> bool:
    from huggingface_hub import constants, utils

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        session = utils.get_session()  # pyright: ignore[reportPrivateImportUsage]
        return bool(session.head(constants.ENDPOINT, timeout=5).status_code)
    except Exception:  # requests and httpx each raise their own; no common base
        return False


@contextmanager
def reading(place: str, what: str) -> Iterator[None]:
    """Whatever transformers raises is bad input, said in one line.

    Args:
        what: "model", "configuration" or "tokenizer".
    """
    try:
        with quiet():
            yield
    except Exception as error:
        raise InputError(
            f"{place}: not a readable {what} of Hugging Face; name a folder that save_pretrained "
            f"wrote, or a repository on the Hub ({reason(error)})"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' advice and progress bars, for the time of a call."""
    logging = import_transformers().utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
