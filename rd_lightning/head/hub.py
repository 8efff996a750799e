"""The Hugging Face Hub: files of a repository by its name, and a folder into a repository.

Nothing of huggingface_hub is imported before a repository is asked for.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..families.hub_files import is_repository
from ..runtime.hub_errors import hub_errors
from .pretrained import RUN_HEAD

CARD_FILE = "README.md"
_HUB = "Hugging Face Hub"


def local_folder(
    name: str | os.PathLike,
    files: Sequence[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """The folder of that name if there is one, else that of a downloaded repository.

    Of a run's folder that does not hold the files itself, the folder ``head`` in it.

    A string of the form ``"org/name"`` that names nothing on the disk is taken for a repository:
    ``files`` and its model card are downloaded into huggingface_hub's cache, all of one commit. A
    ``Path``, or a string of another form, is a folder whether it is there or not.

    Args:
        files: without which the repository is not what is looked for.
        revision: branch, tag or commit; by default the branch ``main``.
        token: for a private or gated repository; by default that of ``hf auth login``.
        cache_dir: in place of huggingface_hub's cache.
        force_download: even where the cache has the files.
        local_files_only: read the cache only.

    Raises:
        InputError: no folder and no repository of that name, no such revision, a file is not in
            it, or it cannot be downloaded.
    """
    if not isinstance(name, str) or not is_repository(name):
        folder = Path(name)
        inner = folder / RUN_HEAD
        return inner if not _has(folder, files) and _has(inner, files) else folder
    folder = downloaded(
        name,
        [*files, CARD_FILE],
        where=f"{name}: no such folder",
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        force_download=force_download,
        local_files_only=local_files_only,
    )
    for file in files:
        if not (folder / file).is_file():
            raise InputError(
                f"{name}: the repository on the {_HUB}, or its copy in the cache, has no {file}; "
                f"a head is a repository with {' and '.join(files)}"
            )
    return folder


def downloaded(
    repository: str,
    files: Sequence[str],
    *,
    where: str,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """The folder, named by the commit, of a repository in huggingface_hub's cache, with those of
    ``files`` that it has; options as of :func:`local_folder`.

    Args:
        where: what was looked for, for the message.

    Raises:
        InputError: no such repository or revision, or it cannot be downloaded.
    """
    from huggingface_hub import snapshot_download

    with hub_errors(f"{where}; on the {_HUB}", revision):
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                token=token,
                cache_dir=None if cache_dir is None else Path(cache_dir),
                force_download=force_download,
                local_files_only=local_files_only,
                allow_patterns=list(files),
            )
        )


def files_of_repository(
    repository: str, revision: str, *, token: str | bool | None, local_files_only: bool
) -> list[str] | None:
    """Names of all files of a commit; None where the Hub cannot be asked."""
    from huggingface_hub import HfApi

    if local_files_only:
        return None
    try:
        return HfApi(token=token).list_repo_files(repository, revision=revision)
    # Without a network, or offline; requests, httpx and the client raise their own.
    except Exception:
        return None


def _has(folder: Path, files: Sequence[str]) -> bool:
    return all((folder / file).is_file() for file in files)


class PushToHub:
    """Gives :meth:`push_to_hub` to a class that says what travels in :meth:`save_for_hub`.

    In place of huggingface_hub's ``ModelHubMixin``, with the same options: that one takes
    0.6 s to import, passes the fields of ``config.json`` on to ``__init__``, and hides why the file
    could not be downloaded.
    """

    def save_for_hub(self, folder: str | os.PathLike, repo_id: str) -> None:
        """Write into an empty folder all that the repository will hold."""
        raise NotImplementedError

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload a head of rd_lightning",
        private: bool | None = None,
        token: str | bool | None = None,
        branch: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Upload ``head.safetensors``, ``config.json`` and a model card, in one commit.

        The repository is made where there is none. Its own model card (``README.md``) is replaced.
        ``config.json`` holds the whole report: file name and digest of the sequences, counts, the
        id of the longest sequence.

        Args:
            repo_id: ``"org/name"``; a name alone is put under the account that is logged in.
            private: of a repository that is made; by default as the account has it.
            token: by default that of ``hf auth login``.
            branch: an existing one; by default ``main``.
            create_pr: propose the commit as a pull request.

        Returns:
            The address of the commit, or of the pull request.

        Raises:
            InputError: it cannot be uploaded; nothing of it is there then, but for an empty
                repository.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        where = f"{repo_id}: cannot be uploaded to the {_HUB}"
        with hub_errors(where, branch):
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            self.save_for_hub(folder, repo_id)
            with hub_errors(where, branch):
                done = api.upload_folder(
                    repo_id=repo_id,
                    folder_path=folder,
                    commit_message=commit_message,
                    revision=branch,
                    create_pr=create_pr,
                )
        return done.pr_url or done.commit_url
