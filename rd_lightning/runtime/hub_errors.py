"""What the client of the Hugging Face Hub raises, in one line with the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InputError, reason

_LOG_IN = "log in with `hf auth login` or pass token=..."


@contextmanager
def hub_errors(where: str, revision: str | None) -> Iterator[None]:
    """What the client raises, as an InputError without the client's own traceback."""
    try:
        yield
    # requests, httpx and hf_xet each raise their own, by version of the client; no common base.
    except Exception as error:
        raise InputError(f"{where}: {_reason(error, revision)}") from None


def _reason(error: Exception, revision: str | None) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, LocalEntryNotFoundError):  # says only that the cache did not help either
        error = error.__cause__ if isinstance(error.__cause__, Exception) else error
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError):
        return f"access is by request; ask for it on the repository's page, then {_LOG_IN}"
    if isinstance(error, RevisionNotFoundError):
        return f"no revision {revision or 'main'!r}; name a branch, tag or commit of it"
    if isinstance(error, RepositoryNotFoundError):
        return f"no such repository, or none that you may use; check the name, {_LOG_IN}"
    if isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled)):
        return (
            "not in the cache, and the network is not to be used; leave out local_files_only=True "
            "and HF_HUB_OFFLINE=1"
        )
    if status in (401, 403):
        return f"not allowed (HTTP {status}); {_LOG_IN}, one that may do this"
    line = reason(error) if str(error).strip() else "no reason given"
    advice = "" if isinstance(error, ValueError) else "; check the network and try again"
    return f"{type(error).__name__}: {line}{advice}"
