"""The tokens that one model has for residues, and from a family's tokens to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..data.fasta import RESIDUES
from ..data.tokenizer import Tokenizer
from ..errors import InputError
from .esm2 import esm_tokenizer

_STANDARD, _RARE = RESIDUES[:20], RESIDUES[20:]
_ESM_MASK = 32
"""Of ESM-2's tokens, which stand for those of every family."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """One token a residue, and what the model expects around them."""

    table: np.ndarray
    """(256,) int64: token of each byte; -1 where the byte is no residue."""
    before: tuple[int, ...]
    """Tokens in front of the residues: one for BERT's and ESM's kind, none for T5's."""
    after: tuple[int, ...]
    """Tokens behind them: one, or none as for most decoders."""
    padding: int
    unknown: int
    mask: int | None = None

    @property
    def largest(self) -> int:
        """The largest token."""
        return int(max(*self.before, *self.after, self.padding, self.table.max()))


class Translation(nn.Module):
    """From the tokens of a family to those of one of its models, residue by residue, and from the
    model's embeddings back to the family's positions.

    A family's tokens are those of its ``tokenizer()``: one special token, the residues, one special
    token, padding on the right. Where the model has no token in front, the first position of its
    embeddings is zero: see :attr:`has_begin`.

    Args:
        family: gives each residue a token of its own.
    """

    def __init__(self, family: Tokenizer, vocabulary: Vocabulary) -> None:
        super().__init__()
        before, after = vocabulary.before, vocabulary.after
        largest = max(family.begin, family.end, family.padding, int(family.table.max()), _ESM_MASK)
        table = torch.full((largest + 1,), vocabulary.unknown)
        if family == esm_tokenizer() and vocabulary.mask is not None:
            table[_ESM_MASK] = vocabulary.mask
        residues = np.flatnonzero(family.table >= 0)
        known = vocabulary.table[residues]
        table[torch.from_numpy(family.table[residues])] = torch.from_numpy(known)
        table[family.padding] = vocabulary.padding
        table[family.begin] = before[-1] if before else vocabulary.padding
        table[family.end] = after[0] if after else vocabulary.padding
        self.table: Tensor
        self.register_buffer("table", table, persistent=False)
        self.before, self.hides_end = before, not after

    @property
    def has_begin(self) -> bool:
        """Whether the model has a token in front of the residues."""
        return bool(self.before)

    def forward(self, tokens: Int[Tensor, "batch length"]) -> Int[Tensor, "batch other"]:
        """The model's tokens."""
        found = self.table[tokens]
        if not self.before:
            return found[:, 1:]
        first = found.new_tensor(self.before[:-1]).expand(len(found), -1)
        return torch.cat([first, found], dim=1) if first.shape[1] else found

    def back(
        self, embeddings: Float[Tensor, "batch other width"]
    ) -> Float[Tensor, "batch length width"]:
        """Embeddings at the family's positions."""
        if not self.before:
            return F.pad(embeddings, (0, 0, 1, 0))
        return embeddings[:, len(self.before) - 1 :]


def translation(family: Tokenizer, vocabulary: Vocabulary) -> Translation | None:
    """What turns the family's tokens into the model's; None where they are the same."""
    special = (vocabulary.before, vocabulary.after, vocabulary.padding)
    same = special == ((family.begin,), (family.end,), family.padding)
    if same and np.array_equal(vocabulary.table, family.table):
        return None
    return Translation(family, vocabulary)


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """Of a model that takes the tokens as they are."""
    mask = _ESM_MASK if tokenizer == esm_tokenizer() else None
    ends = (tokenizer.begin,), (tokenizer.end,)
    return Vocabulary(tokenizer.table, *ends, tokenizer.padding, tokenizer.padding, mask)


def residue_vocabulary(
    tokenizer: Any, name: str = "the tokenizer", *, prefix: str = "", as_x: str = ""
) -> Vocabulary:
    """The tokens of residues by a Hugging Face tokenizer.

    The tokens of a sequence equal ``tokenizer(prefix + sequence)["input_ids"]``, or the same of the
    letters with spaces between them for a tokenizer that wants words (ProtBert's, ProtT5's). Of X,
    B, U, Z and O those that it does not know are its unknown token.

    Args:
        name: for messages.
        prefix: text in front of every sequence, such as Ankh3's "[NLU]".
        as_x: letters that the model's authors write as X.

    Raises:
        InputError: it does not give one token a residue, or more than one behind them, or it has
            no token for padding.
    """
    # Every pair, so that a tokenizer that joins letters shows it; the rare ones apart, because
    # those that are unknown may count as one.
    letters = "".join(a + b for a in _STANDARD for b in _STANDARD) + "A".join(_RARE)
    found = next(_readings(tokenizer, letters, prefix), None)
    if found is None:
        raise InputError(
            f"{name}: not one token for each of the twenty amino acids with at most one special "
            "token behind them; only models with such a tokenisation can be a member"
        )
    if tokenizer.pad_token_id is None:
        raise InputError(f"{name}: it has no token for padding")
    before, middle, after = found
    token = dict(zip(letters, middle, strict=True))
    token.update(dict.fromkeys(as_x, token["X"]))
    table = np.full(256, -1, np.int64)
    for letter in RESIDUES:
        table[ord(letter)] = token[letter]
    padding, unknown = tokenizer.pad_token_id, tokenizer.unk_token_id
    unknown = padding if unknown is None else unknown
    return Vocabulary(table, tuple(before), tuple(after), padding, unknown, tokenizer.mask_token_id)


def _readings(
    tokenizer: Any, letters: str, prefix: str
) -> Iterator[tuple[list[int], list[int], list[int]]]:
    """Tokens before, of, and after the letters, where each has one: written together, or apart if
    together they are an unknown word."""
    together = tokenizer.encode(letters, add_special_tokens=False)
    for between in ("", " ") if tokenizer.unk_token_id in together else ("",):
        text = between.join(letters)
        whole: list[int] = tokenizer.encode(prefix + between * bool(prefix) + text)
        middle: list[int] = tokenizer.encode(text, add_special_tokens=False)
        first = _position(whole, middle)
        if first is None or not _one_each(tokenizer, letters, middle):
            continue
        before, after = whole[:first], whole[first + len(middle) :]
        standard = {
            token for letter, token in zip(letters, middle, strict=True) if letter in _STANDARD
        }
        if len(after) <= 1 and standard.isdisjoint((*before, *after)):
            yield before, middle, after


def _one_each(tokenizer: Any, letters: str, tokens: Sequence[int]) -> bool:
    """Whether each letter is one token, the same wherever it stands, and the twenty differ."""
    if len(tokens) != len(letters):
        return False
    token = dict(zip(letters, tokens, strict=True))
    known = {token[letter] for letter in _STANDARD}
    return (
        list(tokens) == [token[letter] for letter in letters]
        and len(known) == len(_STANDARD)
        and tokenizer.unk_token_id not in known
    )


def _position(whole: Sequence[int], part: Sequence[int]) -> int | None:
    """Where the part begins in the whole."""
    number = len(part)
    places = range(len(whole) - number + 1)
    return next((i for i in places if list(whole[i : i + number]) == list(part)), None)
