"""Reverse distillation of protein language models: one streaming pass, one frozen head."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .distillation.moments import JointMoments
    from .distillation.scale import scale_levels
    from .distillation.solve import fit_chain
    from .embedding.model import RDModel
    from .fitting.datamodule import FastaDataModule
    from .fitting.embedded import EmbeddingsDataModule
    from .fitting.module import RDModule
    from .formats.codec import Codec
    from .head.head import RDHead
    from .runtime.ddp import FrozenDDPStrategy

__all__ = [
    "Codec",
    "EmbeddingsDataModule",
    "FastaDataModule",
    "FrozenDDPStrategy",
    "JointMoments",
    "RDHead",
    "RDModel",
    "RDModule",
    "fit_chain",
    "scale_levels",
]

# Loaded when first asked for: torch and Lightning take seconds, a typo in a command should not.
_HOME = {
    "Codec": "formats.codec",
    "EmbeddingsDataModule": "fitting.embedded",
    "FastaDataModule": "fitting.datamodule",
    "FrozenDDPStrategy": "runtime.ddp",
    "JointMoments": "distillation.moments",
    "RDHead": "head.head",
    "RDModel": "embedding.model",
    "RDModule": "fitting.module",
    "fit_chain": "distillation.solve",
    "scale_levels": "distillation.scale",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
