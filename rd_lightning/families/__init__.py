"""Model families: which models there are, how they are loaded and run."""

from .builtin import ESM2, MINI, load_esm2, load_mini, sample_fasta
from .configured import family_from_config
from .family import Family, Member, get_family, register_family

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
