"""Models of Hugging Face: read without their code, run for the embeddings of their layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import InputError
from .esm2 import esm_tokenizer
from .family import Member
from .inner_layers import InnerLayers
from .transformers_library import import_transformers, quiet, reading, where_to_look
from .vocabulary import Vocabulary, residue_vocabulary, vocabulary_of

_UNUSED = ("pooler", "contact_head", "esm.contact_head", "lm_head")
"""Parts that no embedding goes through; a checkpoint may lack them."""
_ROTARY = "rotary_embeddings"
"""Of an ``EsmModel``: of each layer, and from transformers 5 on of the model."""
_T5 = ("t5", "mt5", "umt5")
"""Encoder-decoders of which the encoder alone is loaded."""


def place_of(member: Member, folder: Path | None) -> str:
    """Where a member's files are: a folder, or the name of a repository on the Hub.

    Args:
        folder: that the user named; in it by the whole name of the repository, or by its last part.
    """
    if folder is None:
        return member.checkpoint
    whole, last = folder / member.checkpoint, folder / Path(member.checkpoint).name
    return str(last if last.exists() and not whole.exists() else whole)


def load(member: Member, folder: Path | None) -> nn.Module:
    """A model of Hugging Face, float32, on the CPU and in eval mode, without its pooling layer and
    without heads; of T5's kind the encoder alone. Attention is by
    ``scaled_dot_product_attention`` where the class has it.

    Args:
        member: its ``checkpoint`` is a path below ``folder``; without a folder, a path or the name
            of a repository on the Hub, which is downloaded, at the member's ``revision``, unless it
            is in Hugging Face's cache.

    Raises:
        InputError: there is no such model, a weight is missing, or its embeddings are of another
            width than the member's. Code that comes with a model is run for a member with
            ``trust_remote_code`` alone.
    """
    place = place_of(member, folder)
    settings = read_settings(place, member)
    # Parts without weights get random ones, which may not move the caller's generator.
    with reading(place, "model"), torch.random.fork_rng(devices=[]):
        model, found = _from_pretrained(
            _class_of(member, settings).from_pretrained,
            place,
            **where_to_look(place, member.repository),
            config=settings,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # refused below, by the whole name
            output_loading_info=True,
        )
    for key in found["mismatched_keys"]:  # a name, or by version a name and two shapes
        raise InputError(f"{place}: {key} is of another shape than config.json says")
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(_UNUSED))
    if missing:
        raise InputError(f"{place}: {len(missing)} weight(s) are missing, such as {missing[0]}")
    width, num_layers, _ = shape_of(settings, place)
    if width != member.width:
        raise InputError(other_width(place, width, member.width))
    if num_layers != member.num_layers:
        raise InputError(f"{place}: it has {num_layers} layers, not {member.num_layers}")
    for part in ("pooler", "contact_head"):
        if hasattr(model, part):
            setattr(model, part, None)
    if settings.model_type == "esm" and getattr(model, _ROTARY, None) is not None:
        model.register_state_dict_post_hook(_rotary_in_each_layer)
    return model.eval()


def _rotary_in_each_layer(
    model: nn.Module, state: dict[str, Tensor], prefix: str, metadata: object
) -> None:
    """Names of an ``EsmModel``'s weights as in transformers 4, in that order, so that a checkpoint
    has one digest in all versions."""
    name = f"{_ROTARY}.inv_freq"
    found = list(state.items())
    shared = state.get(prefix + name)
    state.clear()
    for key, tensor in found:
        if key == prefix + name:
            continue
        state[key] = tensor
        before, inner, _ = key.partition("attention.self.value.bias")
        if inner and shared is not None and key.startswith(prefix):
            state[f"{before}attention.self.{name}"] = shared


def _from_pretrained(read: Callable[..., Any], place: str, **options: Any) -> Any:
    try:
        return read(place, attn_implementation="sdpa", **options)
    except ValueError as error:
        if "scaled_dot_product_attention" not in str(error):
            raise
        return read(place, **options)


def encode(
    model: Any,
    tokens: Int[Tensor, "batch length"],
    *,
    padded: bool = True,
    layers: Sequence[int] | None = None,
) -> Float[Tensor, "batch length width"] | list[Float[Tensor, "batch length width"]]:
    """The last hidden state of every token, or the hidden states of several layers.

    Equals ``model(input_ids, attention_mask).last_hidden_state``, and of ``layers``
    ``model(..., output_hidden_states=True).hidden_states[n]``. Of an ``EsmModel`` with ESM-2's
    weights it equals :func:`rd_lightning.families.esm2.encode` at every position that is not
    padding, <mask> and ESM-2's rescaling for it included: the share of <mask> is taken of the
    tokens that are not padding, as in fair-esm.

    Args:
        tokens: the model's own, padded on the right with ``model.config.pad_token_id``.
        padded: whether any token is padding. False skips the attention mask.
        layers: numbers from 0 (the embedding layer) to the number of layers (the last, after the
            final norm). No layer above the largest is run.

    Returns:
        A tensor, or with ``layers`` a list of one for each.

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
    if layers is None:
        return _last_hidden_state(model, tokens, attended)
    with InnerLayers(model, layers) as inner:
        inner.last = _last_hidden_state(model, tokens, attended)
    return inner.embeddings()


def _last_hidden_state(model: Any, tokens: Tensor, attended: Tensor | None) -> Tensor:
    if model.config.model_type != "esm" or hasattr(model, "rotary_embeddings"):
        return model(input_ids=tokens, attention_mask=attended).last_hidden_state
    # Not the forward of transformers 4's EsmModel, which leaves the mask out here and so counts
    # padding in the rescaling.
    x = model.embeddings(input_ids=tokens, attention_mask=attended)
    mask = None if attended is None else model.get_extended_attention_mask(attended, tokens.shape)
    return model.encoder(x, attention_mask=mask)[0]


def read_settings(place: str, member: Member) -> Any:
    """The configuration of a model, without its weights.

    Raises:
        InputError: it cannot be read, or needs a newer version of transformers.
    """
    needs = member.repository.transformers
    transformers = import_transformers(needs, f"the weights of {member.name}" if needs else "")
    kind, config = member.repository.kind, transformers.AutoConfig
    if kind is not None:  # some published configurations do not say which class they are for
        config = getattr(transformers, kind).config_class
    with reading(place, "configuration"):
        return config.from_pretrained(place, **where_to_look(place, member.repository))


def _class_of(member: Member, settings: Any) -> Any:
    transformers = import_transformers()
    if member.repository.kind is not None:
        return getattr(transformers, member.repository.kind)
    return transformers.T5EncoderModel if settings.model_type in _T5 else transformers.AutoModel


def shape_of(settings: Any, place: str) -> tuple[int, int, int]:
    """Width, number of layers and number of heads that a configuration tells.

    Raises:
        InputError: it is of a model that gives no embedding of each token by itself.
    """
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    both = getattr(settings, "is_encoder_decoder", False) and settings.model_type not in _T5
    if both or not all(hasattr(settings, name) for name in names):
        raise InputError(f"{place}: a {settings.model_type} is not an encoder or a decoder alone")
    width, num_layers, num_heads = (getattr(settings, name) for name in names)
    return width, num_layers, num_heads


def other_width(place: str, found: int, expected: object) -> str:
    return f"{place}: its embeddings have {found} columns, not {expected}"


def read_vocabulary(member: Member, folder: Path | None) -> Vocabulary:
    """The tokens of a member, by the tokenizer beside its weights; of an ESM without one, ESM-2's.

    Raises:
        InputError: there is no tokenizer, it does not give each residue a token, or it does not fit
            the model.
    """
    place = place_of(member, folder)
    settings = read_settings(place, member)
    found = _vocabulary(place, member, settings)
    if settings.pad_token_id != found.padding or found.largest >= settings.vocab_size:
        raise InputError(
            f"{place}: its tokenizer does not fit its model, which pads with "
            f"{settings.pad_token_id} and knows {settings.vocab_size} tokens"
        )
    return found


def _vocabulary(place: str, member: Member, settings: Any) -> Vocabulary:
    auto_tokenizer = import_transformers().AutoTokenizer
    try:
        with reading(place, "tokenizer"):
            where = where_to_look(place, member.repository)
            tokenizer = auto_tokenizer.from_pretrained(place, **where)
    except InputError:
        if settings.model_type in ("esm", "esmc") and settings.vocab_size in (33, 64):
            ids = (settings.pad_token_id, settings.mask_token_id)
            if ids == (1, 32):
                return vocabulary_of(esm_tokenizer())
        raise
    with quiet():
        text = member.repository
        return residue_vocabulary(tokenizer, place, prefix=text.prefix, as_x=text.as_x)


def _num_positions(model: Any) -> int | None:
    """Most tokens that a model with learned positions takes; None for any number."""
    embeddings = getattr(model, "embeddings", model)
    positions = getattr(embeddings, "position_embeddings", getattr(embeddings, "wpe", None))
    if not isinstance(positions, nn.Embedding):
        return None
    # Where padding has a position, counting begins after it.
    before = 0 if positions.padding_idx is None else positions.padding_idx + 1
    return positions.num_embeddings - before
