"""Codes of vectors: nested, within their bounds, of the least error."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from rd_lightning import Codec
from rd_lightning.errors import InputError
from rd_lightning.formats.codec import CODE_KINDS, COLUMNS_PER_BYTE, STEPS

kinds = pytest.mark.parametrize("kind", CODE_KINDS)
LEVELS = {"int8": 255, "int4": 16, "binary": 2}


def sample(rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Columns of means and deviations that differ by orders of magnitude."""
    generator = np.random.default_rng(seed)
    deviation = 10.0 ** generator.uniform(-3, 3, width)
    mean = deviation * generator.normal(0, 3, width)
    return (mean + deviation * generator.normal(size=(rows, width))).astype(np.float32)


def codec_of(kind: str, z: np.ndarray) -> Codec:
    wide = z.astype(np.float64)
    return Codec.of_columns(kind, wide.mean(0), wide.std(0))


@kinds
@given(
    width=st.integers(1, 40),
    rows=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
    far=st.sampled_from([1.0, 10.0]),
)
def test_a_prefix_of_the_code_is_the_code_of_the_prefix(kind, width, rows, seed, far):
    """At every width, also those that end inside a byte, and where values are clipped."""
    z = sample(rows + 1, width, seed)
    codec = codec_of(kind, z)
    x = codec.centre + far * (z[:rows] - codec.centre)
    codes = codec.encode(x)
    for w in range(1, width + 1):
        own = codec.truncate(w).encode(x[:, :w])
        assert own.shape == (rows, codec.num_bytes(w))
        assert np.array_equal(own, codec.prefix(codes, w))
        assert np.array_equal(codec.truncate(w).decode(own), codec.decode(codes, w))
        assert np.array_equal(codec.decode(codes, w), codec.decode(codes)[:, :w])
        whole = w % COLUMNS_PER_BYTE[kind] == 0
        if whole or w == width:
            assert np.array_equal(own, codes[:, : codec.num_bytes(w)])
        if not whole:
            unused = -w % COLUMNS_PER_BYTE[kind] * (8 // COLUMNS_PER_BYTE[kind])
            assert not (own[:, -1] & (2**unused - 1)).any(), "bits behind the last column are 0"


@kinds
def test_the_layout_of_bytes_is_as_said(kind):
    codec = Codec(kind, np.zeros(3), np.ones(3))
    x = np.array([1.2, -0.3, -300.0], np.float32)
    expected = {
        "int8": [1, 0, -127],
        "int4": [0x9 << 4 | 0x7, 0x0],  # q = 1.5, -0.5, -7.5
        "binary": [0b10000000],
    }[kind]
    codes = codec.encode(x)
    assert codes.tolist() == expected
    assert codes.dtype == codec.dtype
    decoded = {"int8": [1, 0, -127], "int4": [1.5, -0.5, -7.5], "binary": [1, -1, -1]}[kind]
    assert codec.decode(codes).tolist() == decoded


@pytest.mark.parametrize("kind", ["int8", "int4"])
@given(
    width=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_inside_the_levels_the_error_is_half_a_step_at_most(kind, width, seed):
    """And in float32 five roundings: of x - centre, the quotient, and of the product and sum of
    decoding, each of at most eps / 2 of the largest number in it, and of the step's own."""
    generator = np.random.default_rng(seed)
    deviation = 10.0 ** generator.uniform(-3, 3, width)
    codec = Codec.of_columns(kind, deviation * generator.normal(0, 3, width), deviation)
    half = LEVELS[kind] / 2
    x = (codec.centre + codec.scale * generator.uniform(-half, half, (50, width))).astype("f4")
    error = np.abs(codec.decode(codec.encode(x)).astype("f8") - x)
    largest = np.abs(codec.centre) + half * codec.scale.astype("f8")
    assert (error <= codec.scale.astype("f8") / 2 + 3 * np.finfo("f4").eps * largest).all()
    beyond = codec.centre + codec.scale * np.float32(half) * np.float32([[-9], [9]])
    outermost = (LEVELS[kind] - 1) / 2
    ends = (codec.decode(codec.encode(beyond)) - codec.centre) / codec.scale
    rounding = 2 * np.finfo("f4").eps * (outermost + largest / codec.scale)
    assert (np.abs(ends - [[-outermost], [outermost]]) <= rounding).all()


def gaussian_error(step: float, number: int) -> float:
    """E (X - Q(X))^2 of a standard Gaussian and so many levels that far apart, in closed form: the
    integral over each cell of (x - y)^2."""
    level = step * (np.arange(number) - (number - 1) / 2)
    edges = np.concatenate([[-np.inf], (level[1:] + level[:-1]) / 2, [np.inf]])
    mass, first = np.diff(norm.cdf(edges)), -np.diff(norm.pdf(edges))
    second = mass - np.diff(np.where(np.isfinite(edges), edges, 0) * norm.pdf(edges))
    return float((second - 2 * level * first + level**2 * mass).sum())


@pytest.mark.parametrize(
    ("number", "step", "error"),
    # Max 1960, table II: equally spaced levels, step (r_i) and mean squared error.
    [(2, 1.596, 0.3634), (15, 0.3534, 0.01289), (16, 0.3352, 0.01154), (36, 0.1703, 0.002848)],
)
def test_the_closed_form_gives_the_published_errors(number, step, error):
    """Printed with four digits: half of the last is the bound."""
    assert gaussian_error(step, number) == pytest.approx(error, rel=5e-4)


BEST = {"int8": 0.0308700832, "int4": 0.3352006104, "binary": STEPS["binary"]}
"""Multiples of the deviation of least error on a Gaussian."""


def error_of(kind: str, multiple: float) -> float:
    return gaussian_error(multiple * (2 if kind == "binary" else 1), LEVELS[kind])


@kinds
def test_the_best_steps_are_those_of_least_error(kind):
    """Neighbouring steps have a larger one: by Taylor's theorem a step 0.1% away adds about
    1e-6 / 2 of the curvature, which is far above float64's rounding."""
    least = error_of(kind, BEST[kind])
    assert least < error_of(kind, 1.001 * BEST[kind])
    assert least < error_of(kind, 0.999 * BEST[kind])


def test_the_steps_in_use_cost_a_gaussian_little():
    """What STEPS says, to the digit."""
    used = {kind: round(error_of(kind, step), 4) for kind, step in STEPS.items()}
    best = {kind: round(error_of(kind, step), 4) for kind, step in BEST.items()}
    assert used == {"int8": 0.0003, "int4": 0.0125, "binary": 0.3634}
    assert best == {"int8": 0.0001, "int4": 0.0115, "binary": 0.3634}
    assert all(STEPS[kind] >= BEST[kind] for kind in CODE_KINDS), "they clip less"
    clip = {kind: STEPS[kind] * LEVELS[kind] / 2 for kind in ("int8", "int4")}
    assert clip == {"int8": 255 / 32, "int4": 3}


@kinds
def test_the_error_on_gaussian_columns_is_that_of_the_closed_form(kind):
    """The mean of n squared errors e^2 differs from its expectation by less than five standard
    errors, sqrt(E e^4 / n); E e^4 is taken from the sample."""
    x = np.random.default_rng(1).normal(size=(20_000, 50)).astype("f4")
    codec = Codec.of_columns(kind, np.zeros(50), np.ones(50))
    squared = np.square(x - codec.decode(codec.encode(x)).astype("f8"))
    expected = error_of(kind, STEPS[kind])
    assert abs(squared.mean() - expected) < 5 * np.sqrt(np.square(squared).mean() / squared.size)


@kinds
def test_constant_columns_decode_to_themselves(kind):
    z = np.repeat(np.float32([[3.25, -1e30, 0.0]]), 4, axis=0)
    codec = codec_of(kind, z)
    assert not codec.scale.any()
    assert np.array_equal(codec.decode(codec.encode(z)), z)
    assert np.isfinite(codec.decode(codec.encode(z + 1))).all()


@kinds
def test_extreme_values_are_clipped_not_wrapped(kind):
    codec = Codec(kind, np.zeros(2), np.array([2.0**-90, 1]))  # no product is rounded
    x = np.float32([[3e38, 3e38], [-3e38, -3e38]])
    outermost = {"int8": 127, "int4": 7.5, "binary": 1}[kind]
    assert (codec.decode(codec.encode(x)) / codec.scale == [[outermost], [-outermost]]).all()


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_tensors_are_taken_as_arrays_are(kind, dtype):
    z = torch.from_numpy(sample(6, 11)).clamp(-1e3, 1e3).to(dtype).reshape(2, 3, 11)
    codec = codec_of(kind, z.float().numpy().reshape(6, 11))
    codes = codec.encode(z)
    assert np.array_equal(codes, codec.encode(z.float().numpy()))
    assert codes.shape == (2, 3, codec.num_bytes())
    assert np.array_equal(codec.decode(torch.from_numpy(codes)), codec.decode(codes))


@kinds
@given(old=st.integers(1, 20), more=st.integers(1, 20), seed=st.integers(0, 999))
def test_columns_are_added_behind_codes(kind, old, more, seed):
    """Those that are there keep their bits, also in a byte that both share."""
    z = sample(5, old + more, seed)
    first = codec_of(kind, z[:, :old])
    codec = first.continued(codec_of(kind, z + 1))
    assert np.array_equal(codec.truncate(old).centre, first.centre)
    before, others = first.encode(z[:, :old]), codec.encode(-z)
    found = codec.joined(before, others, old)
    assert np.array_equal(codec.prefix(found, old), before)
    assert np.array_equal(codec.decode(found)[:, old:], codec.decode(others)[:, old:])


@kinds
def test_json_holds_every_bit(kind):
    codec = codec_of(kind, sample(9, 30))
    found = Codec.from_dict(json.loads(json.dumps(codec.to_dict())))
    assert found.digest() == codec.digest()
    assert np.array_equal(found.scale, codec.scale)
    assert np.array_equal(found.centre, codec.centre)
    assert codec.truncate(29).digest() != codec.digest()


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_one_line():
    codec = Codec("int4", np.zeros(5), np.ones(5))
    with pytest.raises(InputError, match="kind is int8, int4 or binary, not 'int2'"):
        Codec("int2", np.zeros(1), np.ones(1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"of one width, at least 1; got shapes \(2,\) and \(1,\)"):
        Codec("int8", np.zeros(2), np.ones(1))
    with pytest.raises(InputError, match="centre or scale of column 2 is not a float32 number"):
        Codec("int8", np.zeros(2), np.array([1, -1]))
    with pytest.raises(InputError, match="centre or scale of column 1 is not a float32 number"):
        Codec.of_columns("int8", [1e300], [1])
    with pytest.raises(InputError, match="NaN or infinity in a vector"):
        codec.encode(np.float32([1, 2, np.nan, 3, 4]))
    with pytest.raises(InputError, match=r"expected vectors of 5 columns, got shape \(4,\)"):
        codec.encode(np.zeros(4, np.float32))
    with pytest.raises(InputError, match="expected codes of uint8 with at least 3 bytes a vector"):
        codec.decode(np.zeros(2, np.uint8))
    with pytest.raises(InputError, match="expected codes of uint8"):
        codec.decode(np.zeros(3, np.int8))
    for width in (0, 6, True, 2.0):
        with pytest.raises(InputError, match="width is a whole number from 1 to 5"):
            codec.truncate(width)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="not a codec"):
        Codec.from_dict({"kind": "int8", "centre": [0]})
