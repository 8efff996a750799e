"""The frozen head: raw embeddings of a family in, nested (Matryoshka) embeddings out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError, whole_number
from ..families.family import chain_text
from ..runtime.files import write_text
from .block import Block
from .hub import CARD_FILE, PushToHub, local_folder
from .model_card import model_card
from .official import read_official
from .official_hub import REPOSITORY, official_name
from .pretrained import CONFIG_FILE, TENSORS_FILE, read_pretrained, write_pretrained
from .report import FitReport


class RDHead(PushToHub, nn.Module):
    """Reverse distillation of a model family (Catrina et al. 2026), frozen.

    ``head([h_1, ..., h_k])`` is z_k: the first d_1 columns are h_1 bit for bit, the first d_j are
    what the first j members alone give, bit for bit. There is nothing to train; gradients pass
    through to the inputs. Computed in the dtype of the buffers, outside of autocast: the inputs are
    cast to it, and the output has it.

    Of a fit with ``keep=`` the levels are of other widths than their members, and a first level
    that is narrower holds h_1's leading principal components in place of h_1. Of a fit with
    ``scale=`` the columns of a level are on one scale, and the first d_1 are an affine map of h_1
    (:mod:`rd_lightning.distillation.scale`). All else is the same.

    Args:
        dims: widths of the levels.
        blocks: of the second member and later ones; of the first too, where z_1 is not h_1 itself,
            as of a narrower level.
        member_dims: widths of the members, where they are not those of the levels.

    Attributes:
        names: of the members, smallest first.
        dims: the widths of the levels; without ``keep`` also of the members.
        member_dims: the widths of the members.
        report: the fit's figures and where the head comes from.

    Examples:
        >>> import torch
        >>> from rd_lightning import JointMoments, fit_chain
        >>> small, large, moments = torch.randn(500, 4), torch.randn(500, 6), JointMoments([4, 6])
        >>> _ = moments.update([small, large])
        >>> head = fit_chain(moments, names=["S", "L"])
        >>> torch.equal(head([small, large])[:, :4], head([small]))
        True
    """

    def __init__(
        self,
        names: Sequence[str],
        dims: Sequence[int],
        blocks: Sequence[Block],
        report: FitReport,
        *,
        member_dims: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.dims = tuple(int(d) for d in dims)
        self.member_dims = self.dims if member_dims is None else tuple(int(d) for d in member_dims)
        self.report = report
        self._first = self.num_levels - len(blocks)
        """Number of the first block: 0 where z_1 is not h_1 itself, else 1."""
        narrower = self.member_dims[:1] != self.dims[:1]
        if not (
            len(self.names) == len(self.dims) == len(self.member_dims)
            and self._first in ((0,) if narrower else (0, 1))
        ):
            raise InputError(
                f"{len(names)} names, {len(dims)} widths of levels, {len(self.member_dims)} of "
                f"members and {len(blocks)} blocks do not fit"
            )
        for k, block in enumerate(blocks, start=self._first):
            block.check(k, self.dims, self.member_dims)
            for name, tensor in block._asdict().items():
                self.register_buffer(f"{name}_{k}", tensor.detach().contiguous())

    @property
    def width(self) -> int:
        """Columns of the full output, d_K."""
        return self.dims[-1]

    @property
    def num_levels(self) -> int:
        """Number of members, K."""
        return len(self.dims)

    @property
    def first_is_raw(self) -> bool:
        """Whether z_1 is h_1 itself."""
        return self._first == 1

    @property
    def blocks(self) -> list[Block]:
        """Of the second level and later ones; of the first too, where z_1 is not h_1 itself."""
        numbers = range(self._first, self.num_levels)
        return [Block(*(self._tensor(name, k) for name in Block._fields)) for k in numbers]

    def forward(
        self,
        embeddings: Sequence[Float[Tensor, "... _"]] | Mapping[str, Float[Tensor, "... _"]],
    ) -> Float[Tensor, "... width"]:
        """z_k from the raw embeddings of the first k members, in order or by name.

        Any leading shape, the same for all. Equals the recursion
        ``z_k = [z_{k-1} | (h_k - mu_k - (z_{k-1} - mean z_{k-1}) B_k) V_k]``.

        Raises:
            InputError: not the first k members, or their shapes do not fit.
        """
        members = self._in_order(embeddings)
        return self._extend(self._first_level(members[0]), members[1:], 1)

    def extend(
        self, z: Float[Tensor, "... _"], embeddings: Sequence[Float[Tensor, "... _"]]
    ) -> Float[Tensor, "... _"]:
        """z_k from z_j and the raw embeddings of members j + 1, ..., k.

        Equals :meth:`forward` on all k members, whose first j gave ``z``; the columns of ``z`` come
        back as they are. Affine in its inputs, so it may be applied to means over residues.

        Raises:
            InputError: ``z`` is not of the width of a level, or the embeddings do not follow it.
        """
        first = self.level(z.shape[-1])
        expected = self.member_dims[first : first + len(embeddings)]
        if [h.shape for h in embeddings] != [(*z.shape[:-1], d) for d in expected]:
            shapes = [tuple(h.shape) for h in embeddings]
            raise InputError(
                f"after {self.names[first - 1]} come embeddings of widths "
                f"{self.member_dims[first:]} and leading shape {tuple(z.shape[:-1])}; got {shapes}"
            )
        return self._extend(z, embeddings, first)

    def _first_level(self, h: Tensor) -> Tensor:
        """z_1: h_1 itself, or an affine map of it."""
        if self.first_is_raw:
            return h
        with torch.autocast(h.device.type, enabled=False):
            return F.linear(
                h.to(self.dtype), self._tensor("projection", 0), self._tensor("bias", 0)
            )

    def _extend(self, z: Tensor, embeddings: Sequence[Tensor], first: int) -> Tensor:
        if not embeddings:
            return z.to(self.dtype)
        leading = z.shape[:-1]
        with torch.autocast(z.device.type, enabled=False):
            z = z.to(self.dtype).reshape(-1, z.shape[-1])
            for k, h in enumerate(embeddings, start=first):
                h = h.to(self.dtype).reshape(-1, h.shape[-1])
                added = F.linear(h, self._tensor("projection", k), self._tensor("bias", k))
                added = torch.addmm(added, z, self._tensor("mapping", k).mT)
                z = torch.cat([z, added], dim=-1)
        return z.reshape(*leading, z.shape[-1])

    def trainable_(self) -> RDHead:
        """Turn the matrices into parameters, to be trained further; returns self."""
        for name, tensor in list(self.named_buffers()):
            delattr(self, name)
            self.register_parameter(name, nn.Parameter(tensor.clone()))
        return self

    def digest(self) -> str:
        """BLAKE2b of names, widths and every number: equal for equal heads, whatever their file."""
        # The members' widths stand in the shapes of the projections.
        hasher = hashlib.blake2b(repr((self.names, self.dims)).encode(), digest_size=16)
        for name, tensor in sorted(self.state_dict().items()):
            hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            hasher.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return hasher.hexdigest()

    def _tensor(self, name: str, k: int) -> Tensor:
        return getattr(self, f"{name}_{k}")

    @property
    def dtype(self) -> torch.dtype:
        """Of the matrices and the output; float32 for a head without any."""
        return self.blocks[0].bias.dtype if self.blocks else torch.float32

    def _in_order(self, embeddings: Sequence[Tensor] | Mapping[str, Tensor]) -> list[Tensor]:
        if isinstance(embeddings, Mapping):
            names = self.names[: len(embeddings)]
            if set(embeddings) != set(names):
                raise InputError(
                    f"expected the first members of {list(self.names)}, got {list(embeddings)}"
                )
            members = [embeddings[name] for name in names]
        else:
            members = list(embeddings)
        if not 1 <= len(members) <= len(self.dims):
            raise InputError(f"expected 1 to {len(self.dims)} embeddings, got {len(members)}")
        for h, name, width in zip(members, self.names, self.member_dims, strict=False):
            if h.shape[-1] != width or h.shape[:-1] != members[0].shape[:-1]:
                shapes = [tuple(m.shape) for m in members]
                raise InputError(
                    f"expected (..., {width}) for {name}, all with one leading shape; got {shapes}"
                )
        return members

    def level(self, name_or_width: str | int) -> int:
        """Number of members, k, of a level given by name ("35M") or by its width (480).

        Raises:
            InputError: there is no such level.
        """
        values: Sequence[str | int] = self.names if isinstance(name_or_width, str) else self.dims
        if name_or_width not in values:
            raise InputError(
                f"no level {name_or_width!r}; the levels are {chain_text(self.names, self.dims)}"
            )
        return values.index(name_or_width) + 1

    def truncate(self, name_or_width: str | int) -> RDHead:
        """The head up to a level; its output is a prefix of this one's, bit for bit."""
        k = self.level(name_or_width)
        blocks = self.blocks[: k - self._first]
        report, members = self.report.truncated(k), self.member_dims[:k]
        return RDHead(self.names[:k], self.dims[:k], blocks, report, member_dims=members)

    def extra_repr(self) -> str:
        levels = chain_text(self.names, self.dims)
        if self.member_dims != self.dims:
            levels += f" of members of {', '.join(map(str, self.member_dims))}"
        scale = "" if self.report.scale == "none" else f", scale={self.report.scale}"
        return f"{levels}, regression={self.report.regression}{scale}, dtype={self.dtype}"

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write ``head.safetensors`` and ``config.json`` (names, widths, the report)."""
        write_pretrained(
            folder, self.names, self.dims, self.member_dims, self.state_dict(), self.report
        )

    def save_for_hub(self, folder: str | os.PathLike, repo_id: str) -> None:
        """Write the files of :meth:`save_pretrained` and the model card, ``README.md``."""
        self.save_pretrained(folder)
        trained, widths = any(True for _ in self.parameters()), self.member_dims
        card = model_card(
            self.names, self.dims, self.report, repo_id, member_dims=widths, trained=trained
        )
        write_text(Path(folder) / CARD_FILE, card)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, **hub: Any) -> RDHead:
        """Read what :meth:`save_pretrained` or :meth:`push_to_hub` wrote, bit for bit.

        Args:
            folder: or, where there is no such folder, a repository of the Hugging Face Hub,
                ``"org/name"``.
                ``"official:650M"`` is the paper's head, see :meth:`from_official`.
            hub: ``revision``, ``token``, ``cache_dir``, ``force_download``, ``local_files_only``;
                see :func:`rd_lightning.head.hub.local_folder`.

        Raises:
            InputError: a file is missing, damaged or does not fit; the repository cannot be read.
        """
        if named := official_name(folder):
            hub = {"revision": named.revision, **hub}
            return cls.from_official(named.repository, named.target, **hub)
        path = local_folder(folder, (TENSORS_FILE, CONFIG_FILE), **hub)
        names, dims, members, tensors, report = read_pretrained(path)
        first = int("projection_0" not in tensors and members[:1] == dims[:1])
        try:
            blocks = [
                Block(*(tensors[f"{name}_{k}"] for name in Block._fields))
                for k in range(first, len(dims))
            ]
            head = cls(names, dims, blocks, report, member_dims=members)
        except (KeyError, TypeError, InputError) as error:
            raise InputError(f"{folder}: the files do not fit each other ({error})") from error
        if extra := tensors.keys() - head.state_dict().keys():
            raise InputError(f"{folder}: the files do not fit each other (unused {min(extra)})")
        return head

    @classmethod
    def from_official(
        cls,
        files_or_dir: str | os.PathLike | Sequence[str | os.PathLike] = REPOSITORY,
        target: str | None = None,
        *,
        kind: str | None = None,
        **hub: Any,
    ) -> RDHead:
        """A head from the scalers (``rd-scaler-*.npz``) of the package reverse-distillation 0.1.0.

        ``RDHead.from_official(target="650M")`` downloads those of the paper, no more than it takes.
        Equals its ``rdScalerGPUOptimized.step`` chained as its model chains it, to float32
        rounding; formula, report and errors: :func:`rd_lightning.head.official.read_official`.

        Warns:
            UserWarning: a stage was fitted on raw embeddings, not on those it is fed.

        Raises:
            InputError: the files are not one whole chain of the package's scalers, or cannot be
                downloaded.
        """
        names, dims, blocks, report = read_official(files_or_dir, target, kind, **hub)
        return cls(names, dims, [Block(*block) for block in blocks], report)


def reach(head: RDHead, level: str | None, width: int | None) -> tuple[int, int]:
    """(number of members to run, columns to give); all where neither is named.

    Raises:
        InputError: both are named; no such level; more columns than the head has.
    """
    if level is not None and width is not None:
        raise InputError(f"name a level ({level}) or a width ({width}), not both")
    if level is not None:
        return head.level(level), head.dims[head.level(level) - 1]
    if width is None:
        return head.num_levels, head.width
    if (columns := whole_number(width)) is None or not 1 <= columns <= head.width:
        raise InputError(f"width is a whole number from 1 to {head.width}, not {width!r}")
    return next(k for k, d in enumerate(head.dims, start=1) if d >= columns), columns
