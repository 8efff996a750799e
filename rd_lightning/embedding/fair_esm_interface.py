"""What code that was written for fair-esm asks of a model beside its forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InputError
from ..families.esm2 import esm_tokenizer
from ..families.family import Family

if TYPE_CHECKING:
    from esm.data import Alphabet, BatchConverter


class FairESMInterface:
    """Alphabet and batch converter of ESM-2, for models of a family that reads its tokens."""

    family: Family

    @property
    def alphabet(self) -> Alphabet:
        """fair-esm's, as ESM-2's own loader returns it beside the model.

        Raises:
            InputError: the family reads other tokens than ESM-2.
        """
        from esm.data import Alphabet

        if self.family.tokenizer() != esm_tokenizer():
            raise InputError(
                f"the family {self.family.name} reads other tokens than fair-esm's alphabet gives; "
                "use model.embed(sequences), or the tokens of model.family.tokenizer()"
            )

        return Alphabet.from_architecture("ESM-1b")

    def batch_converter(self, truncation_length: int | None = None) -> BatchConverter:
        """fair-esm's: ``labels, strings, tokens = model.batch_converter()([("id", "MKT")])``."""
        return self.alphabet.get_batch_converter(truncation_length)  # pyright: ignore[reportArgumentType]
