"""Model families: which models there are, how they are loaded and run."""

from .family import (
    ESM2,
    MINI,
    Family,
    Member,
    get_family,
    load_esm2,
    load_mini,
    register_family,
    sample_fasta,
)
from .hugging_face import family_from_config

__all__ = [
    "ESM2",
    "MINI",
    "Family",
    "Member",
    "family_from_config",
    "get_family",
    "load_esm2",
    "load_mini",
    "register_family",
    "sample_fasta",
]
