"""Reverse distillation of protein language models: one streaming pass, one frozen head."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data import FastaDataModule
    from .head import RDHead
    from .model import RDModel
    from .module import RDModule
    from .moments import JointMoments
    from .solve import fit_chain
    from .strategy import FrozenDDPStrategy

__all__ = [
    "FastaDataModule",
    "FrozenDDPStrategy",
    "JointMoments",
    "RDHead",
    "RDModel",
    "RDModule",
    "fit_chain",
]

# Loaded when first asked for: torch and Lightning take seconds, a typo in a command should not.
_HOME = {
    "FastaDataModule": "data",
    "FrozenDDPStrategy": "strategy",
    "JointMoments": "moments",
    "RDHead": "head",
    "RDModel": "model",
    "RDModule": "module",
    "fit_chain": "solve",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
