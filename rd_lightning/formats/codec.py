"""Scalar quantisation of nested vectors: 8, 4 or 1 bits a column, a prefix staying a prefix."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, check_choice, reason, whole_number

CodeKind = Literal["int8", "int4", "binary"]
CODE_KINDS: tuple[CodeKind, ...] = get_args(CodeKind)
COLUMNS_PER_BYTE: dict[CodeKind, int] = {"int8": 1, "int4": 2, "binary": 8}
STEPS: dict[CodeKind, float] = {"int8": 1 / 16, "int4": 3 / 8, "binary": math.sqrt(2 / math.pi)}
"""``scale`` over a column's standard deviation; it clips at 8 deviations (int8) and 3 (int4).

On a Gaussian, uniform quantisers of 255, 16 and 2 levels have the least mean squared error at
0.0309, 0.3352 and 0.7979 (J. Max, "Quantizing for minimum distortion", IRE Transactions on
Information Theory, 1960, table II, whose step of two levels is twice that, their distance; 255 by
the same equation). Columns of embeddings have longer tails, where clipping costs more than a wider
step: docs/codec.md has the figures. Of a Gaussian's variance the steps in use lose 0.0003, 0.0125
and 0.3634, the best ones 0.0001, 0.0115 and 0.3634."""
_LARGEST = 127


@dataclass(frozen=True, eq=False, repr=False)
class Codec:
    """Codes of vectors, each column by itself: ``decode(encode(x)) = centre + scale q``.

        int8:    q = -127, ..., 127, the nearest to (x - centre) / scale    int8, a column a byte
        int4:    q = -7.5, -6.5, ..., 7.5, the nearest; stored as q + 7.5   uint8, 2 columns a byte
        binary:  q = 1 where x >= centre, else -1; stored as 1 and 0        uint8, 8 columns a byte

    Within a byte the first column has the most significant bits, as in ``numpy.packbits``; bits
    behind the last column are 0. Where x is inside the outermost levels, |x - decoded| <= scale / 2
    of int8 and int4, up to float32 rounding; what is outside gets the outermost level. int4 has 16
    levels and so none at the centre: 15, with one there, have 12% more error on a Gaussian.

    Nested: the code of a vector's first w columns is ``prefix(code, w)``, bit for bit: the first
    ``num_bytes(w)`` bytes of its code, in whose last byte the bits behind column w are 0. Where w
    fills its bytes (every w of int8, even w of int4, multiples of 8 of binary) it is these bytes as
    they are.

    A column of scale 0, which was constant, decodes to its centre.

    Args:
        kind: "int8", "int4" or "binary".
        centre: (D,) float32, in the unit of the vectors.
        scale: (D,) float32, of the same unit, at least 0.

    Raises:
        InputError: no such kind; the arrays are not of one width, or not finite; a scale below 0.

    Examples:
        >>> import numpy as np
        >>> from rd_lightning import Codec
        >>> z = np.random.default_rng(0).normal(3, 2, (1000, 10)).astype(np.float32)
        >>> codec = Codec.of_columns("int4", z.mean(0), z.std(0))
        >>> codes = codec.encode(z)
        >>> codes.shape, codec.decode(codes).shape
        ((1000, 5), (1000, 10))
        >>> np.array_equal(codec.prefix(codes, 7), codec.truncate(7).encode(z[:, :7]))
        True
        >>> round(float(np.square(z - codec.decode(codes)).mean() / z.var()), 2)
        0.01
    """

    kind: CodeKind
    centre: np.ndarray
    scale: np.ndarray

    def __post_init__(self) -> None:
        check_choice("a codec's kind", self.kind, CODE_KINDS)
        for name in ("centre", "scale"):
            with np.errstate(over="ignore"):  # said below
                array = np.array(getattr(self, name), np.float32)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if self.centre.ndim != 1 or not self.width or self.centre.shape != self.scale.shape:
            raise InputError(
                "centre and scale of a codec are of one width, at least 1; got shapes "
                f"{self.centre.shape} and {self.scale.shape}"
            )
        wrong = ~np.isfinite(self.centre) | ~np.isfinite(self.scale) | (self.scale < 0)
        if wrong.any():
            raise InputError(
                f"centre or scale of column {wrong.argmax() + 1} is not a float32 number, or the "
                "scale is below 0; make them of vectors that are finite"
            )

    def __repr__(self) -> str:
        return f"Codec({self.kind}, {self.width} columns)"

    @classmethod
    def of_columns(cls, kind: CodeKind, mean: Any, deviation: Any) -> Codec:
        """The codec for columns of that mean and standard deviation: ``centre`` is the mean,
        ``scale`` the deviation times 1/16 (int8), 3/8 (int4) or sqrt(2 / pi) (binary: the mean
        distance from the mean of a Gaussian), see :data:`STEPS`.

        Args:
            mean, deviation: (D,) arrays or tensors, in the unit of the vectors.

        Raises:
            InputError: as of :class:`Codec`.
        """
        check_choice("a codec's kind", kind, CODE_KINDS)
        mean, deviation = (_numbers(x, np.float64) for x in (mean, deviation))
        return cls(kind, mean, STEPS[kind] * deviation)

    @property
    def width(self) -> int:
        """Columns, D."""
        return len(self.centre)

    @property
    def dtype(self) -> np.dtype:
        """Of the codes: int8, or uint8 where several columns share a byte."""
        return np.dtype(np.int8 if self.kind == "int8" else np.uint8)

    def num_bytes(self, width: int | None = None) -> int:
        """Of the code of the first ``width`` columns; by default of all."""
        return code_bytes(self.kind, self._width(width))

    def encode(self, x: np.ndarray | Tensor) -> np.ndarray:
        """(..., num_bytes()) codes of vectors (..., D) of any float dtype, cast to float32 first.

        Raises:
            InputError: they are of another width, or hold NaN or infinity.
        """
        x = _numbers(x, np.float32)
        if x.shape[-1:] != (self.width,):
            raise InputError(f"expected vectors of {self.width} columns, got shape {x.shape}")
        if not np.isfinite(x).all():
            raise InputError("NaN or infinity in a vector, which has no code; leave it out")
        if self.kind == "binary":
            return np.packbits(x >= self.centre, axis=-1)
        with np.errstate(over="ignore"):  # far outside: clipped
            q = np.divide(x - self.centre, self.scale, out=np.zeros_like(x), where=self.scale > 0)
        if self.kind == "int8":
            return np.clip(np.rint(q), -_LARGEST, _LARGEST).astype(np.int8)
        return _pack(np.clip(np.floor(q) + 8, 0, 15).astype(np.uint8))

    def decode(self, codes: np.ndarray | Tensor, width: int | None = None) -> np.ndarray:
        """(..., width) float32 of codes (..., bytes).

        Args:
            codes: of this codec, or of one that this is a prefix of.
            width: the first so many columns, of codes of at least these; by default all.

        Raises:
            InputError: the codes are of another dtype, or of fewer columns.
        """
        width = self._width(width)
        stored = self._codes(codes, width)
        centre, scale = self.centre[:width], self.scale[:width]
        if self.kind == "int8":
            q = stored.astype(np.float32)
        elif self.kind == "int4":
            nibbles = np.stack([stored >> 4, stored & 15], axis=-1)
            q = nibbles.reshape(*stored.shape[:-1], -1)[..., :width].astype(np.float32) - 7.5
        else:
            q = np.unpackbits(stored, axis=-1, count=width).astype(np.float32) * 2 - 1
        q *= scale
        q += centre
        return q

    def prefix(self, codes: np.ndarray | Tensor, width: int) -> np.ndarray:
        """Codes of the first ``width`` columns; equals ``truncate(width).encode(x[..., :width])``
        for the codes of x, bit for bit.

        Raises:
            InputError: as of :meth:`decode`.
        """
        found = self._codes(codes, self._width(width)).copy()
        last = found.view(np.uint8)[..., -1]
        last &= self._last_mask(width)
        return found

    def truncate(self, width: int) -> Codec:
        """The codec of the first ``width`` columns."""
        width = self._width(width)
        return Codec(self.kind, self.centre[:width], self.scale[:width])

    def continued(self, wider: Codec) -> Codec:
        """This codec for its own columns, and ``wider`` for those behind them."""
        parts = zip((self.centre, self.scale), (wider.centre, wider.scale), strict=True)
        return Codec(self.kind, *(np.concatenate([a, b[self.width :]]) for a, b in parts))

    def joined(self, first: np.ndarray, codes: np.ndarray, width: int) -> np.ndarray:
        """Codes (..., num_bytes()) whose first ``width`` columns are those of ``first``, and the
        others those of ``codes``."""
        found, last, mask = codes.copy(), self.num_bytes(width) - 1, self._last_mask(width)
        found[..., :last] = first[..., :last]
        shared, of_first = (a.view(np.uint8)[..., last] for a in (found, first))
        shared &= 0xFF ^ mask
        shared |= of_first & mask
        return found

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, without loss; see :meth:`from_dict`."""
        return {
            "kind": self.kind,
            "centre": self.centre.tolist(),
            "scale": self.scale.tolist(),
        }

    @classmethod
    def from_dict(cls, about: Any) -> Codec:
        """What :meth:`to_dict` gave.

        Raises:
            InputError: it is not that.
        """
        try:
            return cls(about["kind"], *(np.array(about[key], "f4") for key in ("centre", "scale")))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not a codec ({reason(error)})") from error

    def digest(self) -> str:
        """BLAKE2b of the kind and every number: codes of two files compare where it is equal."""
        hasher = hashlib.blake2b(self.kind.encode(), digest_size=16)
        for array in (self.centre, self.scale):
            hasher.update(array.astype("<f4").tobytes())
        return hasher.hexdigest()

    def _width(self, width: int | None) -> int:
        if width is None:
            return self.width
        if (columns := whole_number(width)) is None or not 1 <= columns <= self.width:
            raise InputError(f"width is a whole number from 1 to {self.width}, not {width!r}")
        return columns

    def _codes(self, codes: np.ndarray | Tensor, width: int) -> np.ndarray:
        """Their first bytes, which hold so many columns."""
        array = codes.detach().cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)
        size = self.num_bytes(width)
        if array.dtype != self.dtype or array.ndim == 0 or array.shape[-1] < size:
            raise InputError(
                f"expected codes of {self.dtype} with at least {size} bytes a vector, got "
                f"{array.dtype} of shape {array.shape}"
            )
        return array[..., :size]

    def _last_mask(self, width: int) -> int:
        """Which bits of the last byte belong to the first ``width`` columns."""
        columns = COLUMNS_PER_BYTE[self.kind]
        unused = -width % columns * (8 // columns)
        return 0xFF << unused & 0xFF


def code_bytes(kind: CodeKind, width: int) -> int:
    """Of the code of ``width`` columns."""
    return -(-width // COLUMNS_PER_BYTE[kind])


def _pack(nibbles: np.ndarray) -> np.ndarray:
    """Two columns a byte, the first in its upper half; behind an odd last one, zeros."""
    if nibbles.shape[-1] % 2:
        nibbles = np.concatenate([nibbles, np.zeros_like(nibbles[..., :1])], axis=-1)
    return nibbles[..., ::2] << 4 | nibbles[..., 1::2]


def _numbers(x: Any, dtype: Any) -> np.ndarray:
    """An array of that dtype; what it cannot hold becomes infinite, which is refused after."""
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        x = (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    with np.errstate(over="ignore"):
        return np.asarray(x, dtype)
