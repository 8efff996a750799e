"""A family from a configuration: a known one, or members of one's own choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import InputError, whole_number
from .download import with_source
from .family import Family, Member, Repository, check_layers, get_family, is_registered
from .hugging_face import (
    encode,
    load,
    other_width,
    place_of,
    read_settings,
    read_vocabulary,
    shape_of,
)
from .vocabulary import Vocabulary, vocabulary_of

_EXAMPLE = "'family.members=[esm2/650M,{name:mine,path:DIR}]'"
_KEYS = ("name", "of", "path", "layer", "width", "revision", "trust_remote_code")


def family_from_config(config: Mapping[str, Any]) -> Family:
    """The family that a configuration describes: a known one by its ``name``, or the ``members``
    that it lists, smallest first.

    A member is a word or a mapping:

    * ``8M``: of the family ``name``; ``esmc/600M``: of another known family, then called
      ``esmc-600M``; with ``@20`` behind it the 20th layer of that model.
    * ``{name: mine, path: DIR}``: a folder that ``save_pretrained`` wrote or the name of a
      repository on the Hub, with its ``revision`` and, to be checked, its ``width``; with
      ``weights``, the paths are below that folder. Code that comes with a model is run only with
      ``trust_remote_code: true`` and a commit as ``revision``.
    * ``{name: mine, of: esm2/8M, layer: 3}``: as a word, by another name.

    ``source`` says where the weights of ESM-2 come from, see
    :func:`rd_lightning.families.download.take`.

    Returns:
        Without ``members``, ``get_family(config["name"])``. Of paths only the models'
        configurations are read here.

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
    name, members, source = config["name"], config.get("members"), config.get("source") or "auto"
    if members is None:
        return with_source(get_family(name), source)
    folder = None if config.get("weights") is None else Path(config["weights"])
    entries = _entries(members)
    chosen = [_chosen(entry, name, folder) for entry in entries]
    names = [member.name for member, _ in chosen]
    if len(set(names)) != len(names):
        raise InputError(f"the names of family.members must differ; got {', '.join(names)}")
    family = with_source(_put_together(name, chosen, folder), source)
    check_layers(family, family.members)
    return family


def _entries(members: Any) -> list[dict[str, Any]]:
    """The list of a configuration, each member as a mapping."""
    if not isinstance(members, Sequence) or isinstance(members, str) or len(members) < 2:
        raise InputError(f"family.members lists at least two models, smallest first: {_EXAMPLE}")
    entries = []
    for member in members:
        if isinstance(member, str):
            entries.append({"of": member})
        elif isinstance(member, Mapping) and "name" in member and set(member) <= set(_KEYS):
            entries.append(
                {"of": member["name"], **member} if "path" not in member else dict(member)
            )
        else:
            raise InputError(
                f"a member of family.members is a word such as esm2/650M, or has name and any of "
                f"{', '.join(_KEYS[1:])}, not {member}"
            )
    return entries


def _chosen(
    entry: Mapping[str, Any], family: str, folder: Path | None
) -> tuple[Member, Family | None]:
    """A member, and the known family that loads it; None of a path."""
    if "path" in entry:
        return _of_path(entry, folder), None
    if others := set(entry) & {"width", "revision", "trust_remote_code"}:
        raise InputError(
            f"family.members: {min(others)} is for members with a path; {entry['of']} is of a "
            "known family"
        )
    word, at, inner = str(entry["of"]).partition("@")
    origin, slash, model = word.rpartition("/")
    source = get_family(origin if slash else family)
    found = next((member for member in source.members if member.name == model), None)
    if found is None:
        known = ", ".join(member.name for member in source.members)
        raise InputError(
            f"family.members: no member {model!r} in the family {source.name}: {known}"
        )
    default = f"{origin}-{model}{at}{inner}" if slash else str(entry["of"])
    name = str(entry.get("name", default))
    layer = entry.get("layer")
    if at:
        layer = _layer(inner, entry["of"], found.num_layers) if layer is None else layer
    found = replace(found, name=name, origin=f"{source.name}/{model}")
    of_model = model if source.name == family else f"{source.name}-{model}"
    of_model = None if layer is None else of_model
    return replace(_at_layer(found, layer), model=of_model), source


def _layer(text: str, word: object, highest: int) -> int:
    if not text.isdecimal():
        raise InputError(
            f"family.members: {word}: a layer is a whole number from 0 to {highest}, not {text!r}"
        )
    return int(text)


def _at_layer(member: Member, layer: object) -> Member:
    if layer is None:
        return member
    number = whole_number(layer)
    if number is None or not 0 <= number <= member.num_layers:
        raise InputError(
            f"family.members: {member.name}: a layer is a whole number from 0 to "
            f"{member.num_layers}, not {layer!r}"
        )
    return replace(member, layer=number)


def _of_path(entry: Mapping[str, Any], folder: Path | None) -> Member:
    trusted = entry.get("trust_remote_code", False)
    if not isinstance(trusted, bool):
        raise InputError(f"family.members: trust_remote_code is true or false, not {trusted!r}")
    revision = entry.get("revision")
    revision = None if revision is None else str(revision)
    repository = Repository(revision, trusted, on_hub=True)
    member = Member(str(entry["name"]), 0, str(entry["path"]), 0, 0, repository=repository)
    place = place_of(member, folder)
    width, num_layers, num_heads = shape_of(read_settings(place, member), place)
    if entry.get("width", width) != width:
        raise InputError(other_width(place, width, entry["width"]))
    member = replace(member, width=width, num_layers=num_layers, num_heads=num_heads)
    return _at_layer(member, entry.get("layer"))


def _put_together(
    name: str, chosen: Sequence[tuple[Member, Family | None]], folder: Path | None
) -> Family:
    members, sources = tuple(member for member, _ in chosen), [source for _, source in chosen]
    first = sources[0]
    if first is not None and all(source is first for source in sources):
        return replace(first, members=members)
    if is_registered(name):  # it would be taken for that family alone
        name = "+".join(dict.fromkeys(source.name if source else "paths" for source in sources))
    if not any(sources):
        return Family(
            name,
            members,
            lambda member, other: load(member, folder if other is None else other),
            encode=encode,
            vocabulary=lambda m, other: read_vocabulary(m, folder if other is None else other),
        )
    mixed = _Mixed({_files(member): source for member, source in chosen}, folder)
    return Family(
        name,
        members,
        partial(mixed.load, stored=False),
        encode=mixed.encode,
        stored=partial(mixed.load, stored=True),
        vocabulary=mixed.vocabulary,
    )


def _files(member: Member) -> object:
    """What the layers of one model have in common."""
    return member.origin, member.checkpoint, member.repository


class _Mixed:
    """Members of several families, or of paths, each loaded and run as its own family does.

    Args:
        sources: by :func:`_files`; None for a path.
        folder: in which the paths are.
    """

    def __init__(self, sources: Mapping[object, Family | None], folder: Path | None) -> None:
        self._sources, self._folder = sources, folder
        self._encode: dict[type, Callable[..., Any]] = {}
        """By class, so that copies of a model are run as well."""

    def load(self, member: Member, folder: Path | None, *, stored: bool) -> nn.Module:
        source = self._sources[_files(member)]
        if source is None:
            model, run = load(member, self._folder if folder is None else folder), encode
        else:
            read = source.stored if stored and source.stored else source.load
            model, run = read(member, folder), source.encode
        if self._encode.setdefault(type(model), run) is not run:
            raise InputError(
                f"family.members: {member.name} is a {type(model).__name__} as another member is, "
                "but of a family that runs it by another function"
            )
        return model

    def encode(self, model: nn.Module, tokens: Tensor, **options: Any) -> Any:
        return self._encode.get(type(model), encode)(model, tokens, **options)

    def vocabulary(self, member: Member, folder: Path | None) -> Vocabulary:
        source = self._sources[_files(member)]
        if source is None:
            return read_vocabulary(member, self._folder if folder is None else folder)
        if source.vocabulary is None:
            return vocabulary_of(source.tokenizer())
        return source.vocabulary(member, folder)
