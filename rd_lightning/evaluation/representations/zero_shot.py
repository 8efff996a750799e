"""Zero-shot scores of variants: masked marginals of the largest member."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from ...data.tokenizer import Tokenizer
from ...errors import InputError
from ...families.backbone import Backbone, Backbones
from ...families.language_model import LanguageModel, language_model
from ...runtime.files import read_tensors, write_tensors
from ...runtime.memory import with_room
from ...runtime.provenance import digest_of
from ..assays.assay import Assay

ZERO_SHOT, SUFFIX = "zero_shot", "+zs"
AUGMENTED = ("raw", "rd")
"""Representations that are also scored with the zero-shot score as one more column."""
_KIND = "masked marginals"


class ZeroShot(NamedTuple):
    """Of one assay."""

    level: str
    """The member that gives the scores."""
    scores: Float64[Tensor, " n"]


def with_zero_shot(names: Sequence[str]) -> list[str]:
    """What is scored beside these representations."""
    return [*(f"{name}{SUFFIX}" for name in names if name in AUGMENTED), ZERO_SHOT]


def check_zero_shot(assay: Assay) -> None:
    """Raise InputError if the wild type and the mutations are not known."""
    if assay.wild_type is None or assay.positions is None:
        raise InputError(
            f"{assay.name}: zero_shot=true needs mutants of one wild type; give their column or "
            "wild_type=..., or leave it out: zero_shot=false"
        )


class MaskedMarginals:
    """Masked marginals of a family's largest member (Meier et al. 2021, their eq. 1).

    With M the mutated positions of a variant, x the wild type and x' the variant,

        score = sum over i in M of  log p(x'_i | x without M) - log p(x_i | x without M)

    where all positions of M are masked at once: one forward pass for each distinct M. 0 for the
    wild type. Higher is fitter; nothing is trained. For single mutants equals ProteinGym's scores
    by ``masked-marginals``; of several mutations the effect of each is given the others masked.

    Args:
        backbones: the last member is used.
        folder: with the weights, see :func:`rd_lightning.families.language_model.language_model`.
        identity: what the numbers depend on beside the sequences.
        cache: folder; what was computed before is read from there.

    Raises:
        InputError: the member has no language-model head.
    """

    def __init__(
        self,
        backbones: Backbones,
        tokenizer: Tokenizer,
        identity: Mapping[str, Any],
        *,
        folder: Path | None,
        cache: Path,
        tokens_per_batch: int,
    ) -> None:
        self.member = backbones.members[-1]
        model: Any = backbones[backbones.key_of[self.member]]  # which torch types as Module
        self.backbone: Backbone = model
        self.device = next(self.backbone.parameters()).device
        found = language_model(backbones.family, self.member, folder)
        self.language_model = LanguageModel(found.head.to(self.device), found.mask)
        self.tokenizer, self.identity, self.cache = tokenizer, identity, cache
        self.tokens_per_batch = tokens_per_batch

    def score(self, assay: Assay, on_batch: Callable[[], None] = lambda: None) -> ZeroShot:
        """Read or computed; ``on_batch`` is called after each batch."""
        check_zero_shot(assay)
        content = {"kind": _KIND, "member": self.member.name, "wild_type": assay.wild_type}
        content |= {**self.identity, "sequences": assay.sequences}
        path = self.cache / f"{digest_of(content, num_bytes=16)}.safetensors"
        if path.exists():
            return ZeroShot(self.member.name, read_tensors(path, _KIND)[0]["scores"])
        scores = self._computed(assay, on_batch)
        if not scores.isfinite().all():
            raise InputError(f"{assay.name}: NaN or infinity in zero-shot scores; fix the weights")
        write_tensors(path, {"scores": scores}, {"kind": _KIND, "assay": assay.name})
        return ZeroShot(self.member.name, scores)

    def _computed(self, assay: Assay, on_batch: Callable[[], None]) -> Tensor:
        assert assay.wild_type is not None and assay.positions is not None
        wild = torch.from_numpy(self.tokenizer.encode([assay.wild_type.encode()]))[0]
        masked = [m for m in dict.fromkeys(assay.positions) if m]
        size = max(1, self.tokens_per_batch // len(wild))
        found: dict[tuple[int, ...], Tensor] = {(): torch.zeros(0, 0)}
        for first in range(0, len(masked), size):
            chosen = masked[first : first + size]
            found |= zip(chosen, self._log_probabilities(wild, chosen), strict=True)
            on_batch()
        table = torch.from_numpy(self.tokenizer.table)
        scores = torch.zeros(len(assay), dtype=torch.float64)
        for row, (sequence, places) in enumerate(
            zip(assay.sequences, assay.positions, strict=True)
        ):
            for log_p, place in zip(found[places], places, strict=True):
                new, old = (int(table[ord(s[place - 1])]) for s in (sequence, assay.wild_type))
                scores[row] += log_p[new].double() - log_p[old].double()
        return scores

    @torch.no_grad()
    def _log_probabilities(self, wild: Tensor, masked: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """(its positions, tokens) on the CPU of each set of masked positions."""
        tokens = wild.repeat(len(masked), 1)
        rows = [row for row, places in enumerate(masked) for _ in places]
        columns = [place for places in masked for place in places]  # token 0 is <cls>
        tokens[rows, columns] = self.language_model.mask
        tokens = tokens.to(self.device)

        def run() -> Tensor:
            hidden = self.backbone(tokens, padded=False, num_tokens=tokens.numel())
            return self.language_model.log_probabilities(hidden[rows, columns])

        return list(with_room(run, self.device).cpu().split([len(places) for places in masked]))
