"""Hugging Face encoders as members of a family, and such a family from a configuration alone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..data.fasta import RESIDUES
from ..data.tokenizer import Tokenizer
from ..errors import InputError, reason
from .esm2 import esm_tokenizer
from .family import Family, Member, get_family

# Parts that no embedding goes through; a checkpoint may lack them.
_UNUSED = ("pooler", "contact_head")
_EXAMPLE = "'family.members=[{name:8M,path:facebook/esm2_t6_8M_UR50D},{name:35M,path:DIR}]'"


def family_from_config(config: Mapping[str, Any]) -> Family:
    """The family that a configuration describes: its members if it lists any, else a known name.

    Args:
        config: ``name``, and of Hugging Face encoders ``members``, smallest first, each with its
            ``name``, its ``path`` (a folder or the name of a repository on the Hub) and, to be
            checked, its ``width``; with ``weights``, the paths are below that folder. Without
            ``members`` equals ``get_family(config["name"])``.

    Returns:
        A family whose members are loaded by :func:`load`, run by :func:`encode` and share the
        tokeniser of :func:`residue_tokenizer`. Only the models' configurations are read here.

    Raises:
        InputError: there is no family of that name, a member is not as described or cannot be
            read, or transformers is not installed.

    Examples:
        >>> from transformers import EsmConfig, EsmModel
        >>> for name, width in [("S", 8), ("L", 16)]:
        ...     config = EsmConfig(
        ...         vocab_size=33, hidden_size=width, num_hidden_layers=1, num_attention_heads=2,
        ...         intermediate_size=8, pad_token_id=1, mask_token_id=32,
        ...     )
        ...     EsmModel(config).save_pretrained(name)
        >>> members = [{"name": "S", "path": "S"}, {"name": "L", "path": "L"}]
        >>> family = family_from_config({"name": "mine", "members": members})
        >>> [(member.name, member.width) for member in family.members]
        [('S', 8), ('L', 16)]
    """
    if "members" not in config:
        return get_family(config["name"])
    folder = None if config.get("weights") is None else Path(config["weights"])
    entries = _entries(config["members"])
    settings = [_read_settings(_place(entry["path"], folder)) for entry in entries]
    members = tuple(map(_member, entries, settings))

    @cache
    def tokenizer() -> Tokenizer:
        places = [_place(member.checkpoint, folder) for member in members]
        return _shared_tokenizer(places, settings)

    return Family(
        config["name"],
        members,
        load=lambda member, other: load(member, folder if other is None else other),
        encode=encode,
        tokenizer=tokenizer,
    )


def load(member: Member, folder: Path | None) -> nn.Module:
    """A Hugging Face encoder, float32, in eval mode, with attention by
    ``scaled_dot_product_attention``, without its pooling layer and without heads.

    Args:
        member: its ``checkpoint`` is a path below ``folder``; without a folder, a path or the name
            of a repository on the Hub, which is downloaded unless it is in Hugging Face's cache.

    Raises:
        InputError: there is no such model, a weight is missing, or its embeddings are of another
            width than the member's. Code that comes with a model is never run.
    """
    auto_model, place = _transformers().AutoModel, _place(member.checkpoint, folder)
    # Parts without weights get random ones, which may not move the caller's generator.
    with _reading(place, "model"), torch.random.fork_rng(devices=[]):
        model, found = auto_model.from_pretrained(
            place,
            **_where(place),
            attn_implementation="sdpa",
            dtype=torch.float32,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # refused below, by the whole name
            output_loading_info=True,
        )
    for key in found["mismatched_keys"]:  # a name, or by version a name and two shapes
        raise InputError(f"{place}: {key} is of another shape than config.json says")
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(_UNUSED))
    if missing:
        raise InputError(f"{place}: {len(missing)} weight(s) are missing, such as {missing[0]}")
    if model.config.hidden_size != member.width:
        raise InputError(_other_width(place, model.config.hidden_size, member.width))
    for part in _UNUSED:
        if hasattr(model, part):
            setattr(model, part, None)
    return model.eval()


def encode(
    model: Any, tokens: Int[Tensor, "batch length"], *, padded: bool = True
) -> Float[Tensor, "batch length width"]:
    """The last hidden state of every token.

    Of an ``EsmModel`` with ESM-2's weights it equals :func:`rd_lightning.families.esm2.encode` at
    every position that is not padding, <mask> and ESM-2's rescaling for it included: the share of
    <mask> is taken of the tokens that are not padding, as in fair-esm.

    Args:
        tokens: padded on the right with ``model.config.pad_token_id``.
        padded: whether any token is padding. False skips the attention mask.

    Raises:
        InputError: there are more tokens than the model has positions for.
    """
    num_positions = _num_positions(model)
    if num_positions is not None and tokens.shape[1] > num_positions:
        raise InputError(
            f"this {type(model).__name__} has positions for {num_positions} tokens, not for "
            f"{tokens.shape[1]}; cut sequences into windows: max_residues={num_positions - 2}"
        )
    attended = tokens.ne(model.config.pad_token_id) if padded else None
    if model.config.model_type != "esm":
        return model(input_ids=tokens, attention_mask=attended).last_hidden_state
    # Not EsmModel.forward, which leaves the mask out here and so counts padding in the rescaling.
    x = model.embeddings(input_ids=tokens, attention_mask=attended)
    mask = None if attended is None else model.get_extended_attention_mask(attended, tokens.shape)
    return model.encoder(x, attention_mask=mask)[0]


def residue_tokenizer(tokenizer: Any, name: str = "the tokenizer") -> Tokenizer:
    """A Hugging Face tokenizer as a table of residues.

    Equals ``tokenizer(sequence)["input_ids"]``, or the same of the letters with spaces between
    them for one that wants words (ProtBert's). Of X, B, U, Z and O those that it does not know are
    its unknown token.

    Args:
        name: for messages.

    Raises:
        InputError: it does not give one token a residue, one special token before and one after,
            or it has no token for padding.
    """
    standard, rare = RESIDUES[:20], RESIDUES[20:]
    # Every pair, so that a tokenizer that joins letters shows it; the rare ones apart, because
    # those that are unknown may count as one.
    text = "".join(a + b for a in standard for b in standard) + "A".join(rare)
    tokens = tokenizer.encode(text)
    if len(tokens) != len(text) + 2 and tokenizer.unk_token_id in tokens:
        tokens = tokenizer.encode(" ".join(text))  # the whole was an unknown word
    middle = tokens[1:-1]
    token = dict(zip(text, middle, strict=False))
    known = {token.get(letter) for letter in standard}
    if (
        middle != [token.get(letter) for letter in text]
        or len(known) < len(standard)
        or not known.isdisjoint((tokens[0], tokens[-1], tokenizer.unk_token_id))
    ):
        raise InputError(
            f"{name}: not one token for each of the twenty amino acids, one special token before "
            "the sequence and one after; only encoders with such a tokenisation can be a family"
        )
    if tokenizer.pad_token_id is None:
        raise InputError(f"{name}: it has no token for padding")
    table = np.full(256, -1, np.int64)
    for letter in RESIDUES:
        table[ord(letter)] = token[letter]
    return Tokenizer(table, tokens[0], tokens[-1], tokenizer.pad_token_id)


def _entries(members: Any) -> list[dict[str, Any]]:
    """The list of a configuration, checked."""
    if not isinstance(members, Sequence) or isinstance(members, str) or len(members) < 2:
        raise InputError(f"family.members lists at least two encoders, smallest first: {_EXAMPLE}")
    for member in members:
        if not isinstance(member, Mapping) or not (
            {"name", "path"} <= set(member) <= {"name", "path", "width"}
        ):
            raise InputError(
                f"a member of family.members has name, path and, if you like, width, not {member}"
            )
    entries = [dict(member) for member in members]
    names = [str(entry["name"]) for entry in entries]
    if len(set(names)) != len(names):
        raise InputError(f"the names of family.members must differ; got {', '.join(names)}")
    return entries


def _member(entry: Mapping[str, Any], settings: Any) -> Member:
    shape = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    if settings.is_encoder_decoder or not all(hasattr(settings, name) for name in shape):
        raise InputError(f"{entry['path']}: a {settings.model_type} is not an encoder")
    width, num_layers, num_heads = (getattr(settings, name) for name in shape)
    if entry.get("width", width) != width:
        raise InputError(_other_width(entry["path"], width, entry["width"]))
    return Member(str(entry["name"]), width, str(entry["path"]), num_layers, num_heads)


def _other_width(place: str, found: int, expected: object) -> str:
    return f"{place}: its embeddings have {found} columns, not {expected}"


def _place(path: str, folder: Path | None) -> str:
    return str(path) if folder is None else str(folder / path)


def _read_settings(place: str) -> Any:
    """The configuration of a model, without its weights."""
    auto_config = _transformers().AutoConfig
    with _reading(place, "configuration"):
        return auto_config.from_pretrained(place, **_where(place), trust_remote_code=False)


def _shared_tokenizer(places: Sequence[str], settings: Sequence[Any]) -> Tokenizer:
    """That of the first model; raises InputError unless it serves the others."""
    found = [_tokenizer_of(*each) for each in zip(places, settings, strict=True)]
    first = found[0]
    for place, other, of in zip(places, found, settings, strict=True):
        ids = (other.begin, other.end, other.padding)
        if other != first:
            raise InputError(f"{place}: it gives other tokens than {places[0]}")
        if of.pad_token_id != first.padding or max(*ids, first.table.max()) >= of.vocab_size:
            raise InputError(
                f"{place}: its tokenizer does not fit its model, which pads with "
                f"{of.pad_token_id} and knows {of.vocab_size} tokens"
            )
    return first


def _tokenizer_of(place: str, settings: Any) -> Tokenizer:
    auto_tokenizer = _transformers().AutoTokenizer
    try:
        with _reading(place, "tokenizer"):
            options = {**_where(place), "trust_remote_code": False}
            tokenizer = auto_tokenizer.from_pretrained(place, **options)
    except InputError:
        of_esm = (settings.model_type, settings.vocab_size) == ("esm", 33)
        if of_esm and (settings.pad_token_id, settings.mask_token_id) == (1, 32):
            return esm_tokenizer()
        raise
    with _quiet():
        return residue_tokenizer(tokenizer, place)


def _num_positions(model: Any) -> int | None:
    """Most tokens that a model with learned positions takes; None for any number."""
    embeddings = getattr(model, "embeddings", None)
    positions = getattr(embeddings, "position_embeddings", None)
    if not isinstance(positions, nn.Embedding):
        return None
    # Where padding has a position, counting begins after it.
    before = 0 if positions.padding_idx is None else positions.padding_idx + 1
    return positions.num_embeddings - before


def _transformers() -> Any:
    """Here, not above: it is optional, and slow to import."""
    advice = 'pip install "rd-lightning[transformers]"'
    try:
        import transformers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(f"Hugging Face encoders need transformers: {advice}") from error
    major, minor, *_ = transformers.__version__.split(".")
    # 4.56 is the first whose EsmModel uses scaled_dot_product_attention.
    if int(major) != 4 or int(minor) < 56:
        raise InputError(
            f"Hugging Face encoders need transformers from 4.56 to below 5, not "
            f"{transformers.__version__}: {advice}"
        )
    return transformers


def _where(place: str) -> dict[str, Any]:
    """Without the Hub, only the cache: transformers would try for half a minute, and warn."""
    if Path(place).exists() or _hub_answers(int(time.monotonic() // 60)):
        return {}
    return {"local_files_only": True}


@lru_cache(maxsize=1)
def _hub_answers(minute: int) -> bool:
    from huggingface_hub import constants, utils

    try:
        session = utils.get_session()  # pyright: ignore[reportPrivateImportUsage]
        return bool(session.head(constants.ENDPOINT, timeout=5).status_code)
    except Exception:  # requests and httpx each raise their own; no common base
        return False


@contextmanager
def _reading(place: str, what: str) -> Iterator[None]:
    """Whatever transformers raises is bad input, said in one line."""
    try:
        with _quiet():
            yield
    except Exception as error:
        raise InputError(
            f"{place}: not a readable {what} of Hugging Face; name a folder that save_pretrained "
            f"wrote, or a repository on the Hub ({reason(error)})"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' advice, for the time of a call."""
    logging = _transformers().utils.logging
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
