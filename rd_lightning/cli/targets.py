"""What a configuration may make: a ``_target_`` names code that would run."""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Iterator
from typing import Any

from ..errors import InputError

PACKAGES = ("datetime", "lightning", "rd_lightning", "torch")
"""Whose classes a configuration may make."""
ALLOW = "RD_ALLOW_TARGETS"
"""Environment variable with names of further packages, separated by commas; of these, anything. Not
a setting, which a configuration could bring along."""


def check_targets(config: Any) -> None:
    """Raise InputError unless every ``_target_`` of a resolved configuration is a class of
    PACKAGES, or of a package that the user allows (:data:`ALLOW`)."""
    for target in _targets(config):
        _check_target(target)


def _targets(node: Any) -> Iterator[Any]:
    """Of every ``_target_`` in a configuration."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from _targets(each)


def _check_target(target: Any) -> None:
    """Raise InputError for what could run code of the configuration's choice."""
    package = str(target).partition(".")[0]
    if package and package in [name.strip() for name in os.environ.get(ALLOW, "").split(",")]:
        return
    if package in PACKAGES:
        try:
            found = pkgutil.resolve_name(target)
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(f"_target_={target}: there is no such class") from error
        # Where it is defined, as torch.os.system is not torch's; and functions such as torch.load
        # or torch.hub.load would run code.
        if isinstance(found, type) and found.__module__.partition(".")[0] in PACKAGES:
            return
    raise InputError(
        f"_target_={target} is refused: a configuration may make classes of {', '.join(PACKAGES)} "
        f"alone; if you trust it, allow its package: {ALLOW}={package}"
    )
