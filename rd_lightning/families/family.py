"""Model families: ordered members that share a tokenisation, and how to load them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, Literal

from torch import nn

from ..data.tokenizer import Tokenizer
from ..errors import InputError
from .esm2 import encode, esm_tokenizer
from .vocabulary import Translation, Vocabulary, translation

ENTRY_POINTS = "rd_lightning.families"
_COMMIT = re.compile("[0-9a-f]{40}")
Source = Literal["auto", "fair_esm", "hub"]


@dataclass(frozen=True)
class Repository:
    """What reading a model from a repository on the Hugging Face Hub needs, beside its name.

    Raises:
        InputError: code is to be trusted, but which code is open: the revision is no commit.
    """

    revision: str | None = None
    """Branch, tag or commit; None: the branch ``main``."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run; for a pinned revision alone."""
    prefix: str = ""
    """Text in front of every sequence."""
    as_x: str = ""
    """Residues that the model's authors write as X."""
    kind: str | None = None
    """The class of transformers; None: the one that the model's configuration names."""
    on_hub: bool = False
    """Whether the checkpoint is the name of a repository, where there is no such folder."""
    transformers: tuple[int, int] | None = None
    """The version, (major, minor), that the model's class came with."""

    def __post_init__(self) -> None:
        if self.trust_remote_code and not _COMMIT.fullmatch(self.revision or ""):
            raise InputError(
                "trust_remote_code=true runs code that comes with the model: pin it with "
                f"revision=COMMIT, all 40 digits; got revision={self.revision}"
            )


@dataclass(frozen=True)
class Member:
    """One model of a family, or one layer of it.

    Members of one ``checkpoint``, width and depth of which one names a layer are one model, which
    is loaded and run once for all of them.
    """

    name: str
    """Short and unique in the family: "650M"."""
    width: int
    """Of a residue embedding."""
    checkpoint: str
    """Name under which :attr:`Family.load` finds the weights."""
    num_layers: int
    """Of the model."""
    num_heads: int
    repository: Repository = field(default_factory=Repository)
    """Of the ``checkpoint``, if that names one."""
    origin: str | None = None
    """``family/member`` of a known family that it was taken from."""
    source: Source = "auto"
    """Of an ESM-2: where its weights are taken from."""
    layer: int | None = None
    """Whose output it is, from 0 (the embedding layer) to ``num_layers``; None: the last."""
    model: str | None = None
    """Name of the model whose layer it is; None: the member's own."""

    @property
    def depth(self) -> int:
        """Layers that are run for it."""
        return self.num_layers if self.layer is None else self.layer

    @property
    def is_inner(self) -> bool:
        """Whether it is a layer before the last, whose embeddings are not the model's own."""
        return self.depth < self.num_layers


@dataclass(frozen=True)
class Family:
    """Members from the smallest to the largest, and the three functions that run them.

    Examples:
        >>> from rd_lightning.families import Family, Member
        >>> small = Member("S", width=64, checkpoint="s.pt", num_layers=4, num_heads=4)
        >>> large = Member("L", width=128, checkpoint="l.pt", num_layers=8, num_heads=8)
        >>> family = Family("mine", (small, large), load=lambda member, folder: ...)
        >>> [member.name for member in family.up_to("L")]
        ['S', 'L']
    """

    name: str
    members: tuple[Member, ...]
    load: Callable[[Member, Path | None], nn.Module]
    """(member, folder the user named or None) to a new model, float32, on the CPU."""
    encode: Callable[..., Any] = encode
    """``encode(model, tokens, padded=...)`` to (batch, length, width), the last layer's; with
    ``layers=[...]``, where a member is a layer, to a list of such tensors, one a number: 0 is the
    output of the embedding layer, n that of layer n, without the final norm but for the last."""
    tokenizer: Callable[[], Tokenizer] = field(default=esm_tokenizer)
    vocabulary: Callable[[Member, Path | None], Vocabulary] | None = None
    """The tokens of a member, where they may be others than the family's. None: they are the
    family's."""
    stored: Callable[[Member, Path | None], nn.Module] | None = None
    """As :attr:`load`, but with the weights as they stand in the file, mapped into memory rather
    than read: no float32 copy is made of weights that are to be held in another dtype. None: there
    is no such function, and :attr:`load` is called."""
    embedded: Mapping[str, Any] | None = field(default=None, hash=False)
    """Of members whose embeddings are in files, what the files say of their origin, in which fits
    that are added must agree. None: there are models, which make the embeddings."""

    @property
    def has_models(self) -> bool:
        """Whether its members are models that can be run."""
        return self.embedded is None

    def translation(self, member: Member, folder: Path | None) -> Translation | None:
        """From the family's tokens to those of a member; None where they are the same.

        Args:
            folder: that the user named.
        """
        if self.vocabulary is None:
            return None
        return translation(self.tokenizer(), self.vocabulary(member, folder))

    def up_to(self, target: str | None) -> tuple[Member, ...]:
        """The members up to and including ``target``, the largest by default.

        Raises:
            InputError: there is no such member, or it is the first, which nothing precedes.
        """
        names = [member.name for member in self.members]
        target = names[-1] if target is None else target
        if target not in names:
            raise InputError(f"no member {target!r} in the family {self.name}: {', '.join(names)}")
        if len(names) == 1:
            raise InputError(
                f"{self.name} has one member, {names[0]}: there is nothing to distil it from; list "
                f"several, such as family.members=[esm2/150M,{names[0]}] or, with keep=, "
                f"[{names[0]}@20,{names[0]}]"
            )
        if target == names[0]:
            raise InputError(
                f"{target} is the smallest member of {self.name}: there is nothing to distil it "
                f"from; choose one of {', '.join(names[1:])}"
            )
        return self.members[: names.index(target) + 1]


_REGISTRY: dict[str, Family] = {}


def register_family(family: Family) -> Family:
    """Make a family known by its name, in this process; returns it.

    A package makes its own known everywhere with the entry point group ``rd_lightning.families``
    (``mine = "package.module:family"``).

    Examples:
        >>> from dataclasses import replace
        >>> from rd_lightning.families import MINI, get_family, register_family
        >>> family = register_family(replace(MINI, name="mine"))
        >>> get_family("mine") is family
        True
    """
    _REGISTRY[family.name] = family
    return family


def get_family(name: str) -> Family:
    """A family by name.

    Raises:
        InputError: there is none of that name.

    Examples:
        >>> from rd_lightning.families import get_family
        >>> [(member.name, member.width) for member in get_family("mini").members]
        [('50K', 32), ('200K', 64), ('800K', 128)]
    """
    if name not in _REGISTRY:
        for point in entry_points(group=ENTRY_POINTS, name=name):
            register_family(point.load())
    if name not in _REGISTRY:
        raise InputError(f"no family {name!r}; known are {', '.join(known_families())}")
    return _REGISTRY[name]


def known_families() -> list[str]:
    """Names of the families that :func:`get_family` gives."""
    return sorted({*_REGISTRY, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def is_registered(name: str) -> bool:
    """Whether :func:`get_family` knows it."""
    return name in _REGISTRY or bool(entry_points(group=ENTRY_POINTS, name=name))


def chain_text(names: Sequence[str], widths: Sequence[int]) -> str:
    """For people: "8M (320) -> 35M (480)"."""
    return " -> ".join(f"{name} ({width})" for name, width in zip(names, widths, strict=True))


def one_a_model(members: Iterable[Member]) -> dict[Member, tuple[Member, ...]]:
    """Members by the model that they are of, both in the order of the members.

    A model is a member as well, of the last layer; where no member is a layer, each is its own.
    """
    groups: dict[object, list[Member]] = {}
    for member in members:
        # A checkpoint without a name is of no file, and one of another shape is of another model.
        place = member.checkpoint or member.model or member.name
        files = place, member.repository, member.source, member.width, member.num_layers
        groups.setdefault(files, []).append(member)
    found: dict[Member, tuple[Member, ...]] = {}
    for group in groups.values():
        if all(member.layer is None and member.model is None for member in group):
            found |= {member: (member,) for member in group}
        else:
            first = next((m for m in group if m.layer is None), group[0])
            model = replace(first, name=first.model or first.name, layer=None, model=None)
            found[model] = tuple(group)
    return found


def check_layers(family: Family, members: Iterable[Member]) -> None:
    """Raise InputError if a member is a layer that the family cannot give, or that another is."""
    members = tuple(members)
    for group in one_a_model(members).values():
        first: dict[int, Member] = {}
        for member in group:
            if (same := first.setdefault(member.depth, member)) is not member:
                raise InputError(f"{same.name} and {member.name} are the same layer; name it once")
    for member in members:
        if member.layer is None:
            continue
        if not 0 <= member.layer <= member.num_layers:
            raise InputError(
                f"{member.name}: layer {member.layer} is not one of 0 to {member.num_layers}, "
                f"those of its model in the family {family.name}"
            )
        parameters = signature(family.encode).parameters.values()
        if not any(p.name == "layers" or p.kind is Parameter.VAR_KEYWORD for p in parameters):
            raise InputError(
                f"{member.name}: the family {family.name} gives the last layer alone (its encode "
                "takes no layers=...); choose members without a layer"
            )
