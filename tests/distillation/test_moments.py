import itertools
import math

import jaxtyping
import numpy as np
import pytest
import torch

from rd_lightning import JointMoments
from rd_lightning.distillation import moments as module
from rd_lightning.distillation.kernels import finite_rows
from rd_lightning.distillation.tiling import CHUNK, Tiling
from rd_lightning.errors import InputError

from ..conftest import SEEDS, family_rows
from ..ranks import Ranks

DIMS = [5, 9, 14]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def rounding(num_rows: int, dtype: torch.dtype = torch.float32) -> float:
    """Error of a sum of so many products of two columns, in whatever order a processor adds them.

    In units of the columns' root mean squares. Added one after another, each addition errs by at
    most eps / 2 of the sum so far; with errors of independent signs, spread evenly, this gives a
    standard deviation of eps / 2 * sqrt(num_rows) / 3, of which these are six. Kernels that add in
    blocks err less.
    """
    return math.sqrt(num_rows) * torch.finfo(dtype).eps


def norm_ratio(covariance: torch.Tensor) -> float:
    """From :func:`rounding` of each entry to that of the whole, by :func:`relative`.

    The matrix of products of the columns' root mean squares has the trace as its Frobenius norm.
    """
    return (covariance.trace() / covariance.norm()).item()


def splits(num_rows: int, seed: int) -> list[slice]:
    """A random split of the rows; some parts empty, some of one row."""
    generator = torch.Generator().manual_seed(seed)
    cuts = torch.randint(0, num_rows + 1, (9,), generator=generator).sort().values.tolist()
    edges = [0, *cuts, *cuts[-1:], min(cuts[-1] + 1, num_rows), num_rows]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def part(blocks, rows: slice):
    return [b[rows] for b in blocks]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("panel", [3, 256])
def test_any_split_and_order_equals_torch_cov(monkeypatch, seed, panel):
    monkeypatch.setattr(module, "tiling", lambda width, device: Tiling(panel, CHUNK))
    blocks = family_rows(700, DIMS, seed, mean=2)
    joint = torch.cat(blocks, dim=1)
    parts = splits(700, seed)
    for order in (parts, parts[::-1]):
        moments = JointMoments(DIMS)
        for rows in order:
            moments.update(part(blocks, rows))
        assert moments.num_rows == 700
        assert relative(moments.covariance, torch.cov(joint.T)) < 1e-12
        assert relative(moments.mean, joint.mean(0)) < 1e-12
        assert np.allclose(moments.scatter, np.cov(joint.T) * 699, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_any_merge_tree_equals_torch_cov(seed):
    blocks = family_rows(600, DIMS, seed, mean=3)
    leaves = [JointMoments(DIMS).update(part(blocks, rows)) for rows in splits(600, seed)]
    generator = torch.Generator().manual_seed(seed)
    while len(leaves) > 1:
        i, j = torch.randperm(len(leaves), generator=generator)[:2].tolist()
        merged = leaves[i].clone().merge_(leaves[j])
        leaves = [leaf for k, leaf in enumerate(leaves) if k not in (i, j)] + [merged]
    joint = torch.cat(blocks, dim=1)
    assert leaves[0].num_rows == 600
    assert relative(leaves[0].covariance, torch.cov(joint.T)) < 1e-12
    assert relative(leaves[0].mean, joint.mean(0)) < 1e-12


def test_more_rows_than_a_chunk():
    blocks = family_rows(2 * CHUNK + 17, DIMS, 0)
    joint = torch.cat(blocks, dim=1)
    assert relative(JointMoments(DIMS).update(blocks).covariance, torch.cov(joint.T)) < 1e-12
    narrow = JointMoments(DIMS).update([b.float() for b in blocks])
    exact = torch.cov(joint.T)
    assert relative(narrow.covariance, exact) < rounding(CHUNK) * norm_ratio(exact)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_large_mean_costs_no_accuracy(precision, seed):
    """Mean 10^4 deviations: what is lost is the rounding of sums about the shift alone."""
    blocks = family_rows(3000, DIMS, seed, noise=1.0)
    deviation = torch.cat(blocks, 1).std(0)
    far = [b + 1e4 * b.std(0) for b in blocks]
    if precision == "float32":
        far = [b.float() for b in far]
    moments = JointMoments(DIMS, precision=precision)
    for rows in splits(3000, seed):
        moments.update(part(far, rows))
    exact = torch.cov(torch.cat([b.double() for b in far], 1).T)
    scale = torch.outer(deviation, deviation)
    assert moments.shift is not None
    about_shift = (moments.about(moments.shift).diagonal() / deviation**2).max().item()
    bound = 1e-11 if precision == "float64" else rounding(3000) * about_shift
    assert about_shift < 3
    assert ((moments.covariance - exact) / scale).abs().max() < bound


def test_raw_float32_sums_would_lose_what_the_shift_keeps():
    """The control of the test above: without the shift the bound is missed by far."""
    (block,) = family_rows(3000, [4], 0, noise=1.0)
    far = (block + 1e4 * block.std(0)).float()
    raw = (far.T @ far).double() / 2999 - torch.outer(far.mean(0), far.mean(0)).double()
    exact = torch.cov(far.double().T)
    assert ((raw - exact) / exact.diagonal().mean()).abs().max() > 1e-2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_any_float_dtype_is_cast_up_first(dtype):
    blocks = [b.to(dtype) for b in family_rows(200, DIMS, 0)]
    exact = torch.cov(torch.cat([b.double() for b in blocks], 1).T)
    assert (
        relative(JointMoments(DIMS, precision="float64").update(blocks).covariance, exact) < 1e-12
    )
    moments = JointMoments(DIMS).update(blocks)
    assert relative(moments.covariance, exact) < rounding(200) * norm_ratio(exact)
    assert moments.covariance.dtype == torch.float64


@pytest.mark.parametrize("outside", ["autocast", "tf32"])
def test_outside_settings_change_no_bit(outside):
    blocks = [b.float() for b in family_rows(300, DIMS, 0)]
    plain = JointMoments(DIMS).update(blocks)
    before = torch.get_float32_matmul_precision()
    try:
        if outside == "tf32":
            torch.set_float32_matmul_precision("medium")
            other = JointMoments(DIMS).update(blocks)
        else:
            with torch.autocast("cpu", torch.bfloat16):
                other = JointMoments(DIMS).update(blocks)
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(plain.covariance, other.covariance)


def test_the_callers_tensors_are_left_alone():
    blocks = family_rows(50, DIMS, 0)
    copies = [b.clone() for b in blocks]
    JointMoments(DIMS).update(blocks)
    assert all(torch.equal(a, b) for a, b in zip(blocks, copies, strict=True))


def test_rows_not_kept_never_reach_the_state():
    blocks = family_rows(100, DIMS, 0)
    keep = torch.ones(100, dtype=torch.bool)
    keep[[0, 17, 99]] = False
    clean = JointMoments(DIMS).update([b[keep] for b in blocks])
    blocks[1][0, 3] = torch.nan
    blocks[0][17, 0] = torch.inf
    blocks[2][99] = -torch.inf
    finite = finite_rows(blocks)
    assert torch.equal(finite, keep)
    moments = JointMoments(DIMS).update(blocks, row_mask=finite)
    assert moments.num_rows == 97
    assert relative(moments.covariance, clean.covariance) < 1e-12
    assert relative(moments.mean, clean.mean) < 1e-12


def test_empty_updates_and_states():
    moments = JointMoments(DIMS)
    assert moments.num_rows == 0
    moments.update([torch.zeros(0, d) for d in DIMS])
    with pytest.raises(InputError, match="at least 1 row"):
        _ = moments.mean
    moments.update([torch.ones(1, d) for d in DIMS])
    assert moments.mean.tolist() == [1.0] * 28
    with pytest.raises(InputError, match="at least 2 row"):
        _ = moments.covariance
    empty = JointMoments(DIMS)
    assert moments.clone().merge_(empty).num_rows == 1
    assert torch.equal(empty.merge_(moments).mean, moments.mean)


@pytest.mark.parametrize("seed", SEEDS)
def test_save_and_load_are_bit_identical(tmp_path, seed):
    blocks = family_rows(300, DIMS, seed)
    moments = JointMoments(DIMS).update(part(blocks, slice(0, 200)))
    moments.save(tmp_path / "m.safetensors")
    loaded = JointMoments.load(tmp_path / "m.safetensors")
    assert torch.equal(loaded.covariance, moments.covariance)
    assert torch.equal(loaded.mean, moments.mean)
    for each in (moments, loaded):
        each.update(part(blocks, slice(200, 300)))
    # BLAS may sum in another order where memory is aligned otherwise: two sums of 100 products.
    bound = 2 * rounding(100, torch.float64) * norm_ratio(moments.covariance)
    assert relative(loaded.covariance, moments.covariance) < bound


def test_an_empty_state_is_saved_too(tmp_path):
    JointMoments(DIMS).save(tmp_path / "m")
    loaded = JointMoments.load(tmp_path / "m")
    assert loaded.num_rows == 0
    blocks = family_rows(10, DIMS, 0)
    assert relative(loaded.update(blocks).mean, torch.cat(blocks, 1).mean(0)) < 1e-12


def test_a_state_of_the_wrong_shape_is_refused(tmp_path):
    from rd_lightning.runtime.files import write_tensors

    header = {"kind": "moments", "dims": [2], "precision": "auto"}
    for wrong, shift, state in [("shift", 3, 7), ("states", 2, 3)]:
        bad = {"shift": torch.zeros(shift).double(), "states": torch.zeros(1, state).double()}
        write_tensors(tmp_path / "m", bad, header)
        with pytest.raises(InputError, match=f"{wrong} is not float64 of shape"):
            JointMoments.load(tmp_path / "m")
    write_tensors(tmp_path / "m", {"shift": torch.zeros(2).double()}, header)
    with pytest.raises(InputError, match="'states' is missing"):
        JointMoments.load(tmp_path / "m")


@pytest.mark.parametrize(
    "shapes",
    [[(4, 5), (4, 9)], [(4, 5), (4, 9), (4, 13)], [(4, 5), (4, 9), (3, 14)], [(5,), (9,), (14,)]],
)
def test_blocks_that_do_not_fit_are_refused(shapes):
    with pytest.raises((InputError, TypeError), match="expected blocks|type"):
        JointMoments(DIMS).update([torch.zeros(s) for s in shapes])


def test_widths_that_cannot_be_or_differ():
    with pytest.raises(InputError, match="widths"):
        JointMoments([])
    with pytest.raises(InputError, match="widths"):
        JointMoments([3, 0])
    with pytest.raises(InputError, match="cannot merge"):
        JointMoments([3]).merge_(JointMoments([4]))


def test_the_shift_is_fixed_once():
    moments = JointMoments(DIMS).update(family_rows(10, DIMS, 0))
    with pytest.raises(InputError, match="fixed"):
        moments.set_shift_(torch.zeros(28))


def test_the_shift_waits_for_the_first_kept_row():
    """Columns of large mean: about a shift of 0 their float32 products would lose the digits."""
    blocks = [b + 1000 for b in family_rows(400, DIMS, 0)]
    blocks[1][:100] = torch.nan
    kept = finite_rows(blocks)
    moments = JointMoments(DIMS)
    moments.update([b[:100] for b in blocks], row_mask=kept[:100])
    assert moments.shift is None and moments.num_rows == 0
    moments.update([b[100:] for b in blocks], row_mask=kept[100:])
    joint = torch.cat([b[100:] for b in blocks], 1)
    assert moments.num_rows == 300
    # Float32 in, as embeddings are: the shift is the mean's, so what is left are deviations.
    assert (moments.shift - joint.mean(0)).abs().max() < 1e-3 * joint.std(0).max()
    assert relative(moments.covariance, torch.cov(joint.T)) < 1e-12


def test_a_far_shift_is_refused_and_changes_nothing():
    blocks = family_rows(200, DIMS, 0, mean=1)
    exact = torch.cov(torch.cat(blocks, 1).T)
    moments = JointMoments(DIMS).update(blocks)
    before = moments.clone()
    with pytest.raises(InputError, match="would lose half of the digits"):
        moments.reshift_(torch.full((28,), 1e6))
    assert torch.equal(moments.covariance, before.covariance)
    near = moments.mean + 1000 * exact.diagonal().sqrt()
    assert before.shift is not None
    moments.reshift_(near).reshift_(before.shift)
    # Each way errs by eps of products that are 1000^2 variances, a few times over.
    scale = torch.outer(exact.diagonal().sqrt(), exact.diagonal().sqrt())
    bound = 8 * 1000**2 * torch.finfo(torch.float64).eps
    assert ((moments.covariance - exact).abs() / scale).max() < bound


@pytest.mark.parametrize("swapped", [False, True])
def test_a_merge_keeps_the_shift_that_is_near_the_data(swapped):
    """One state's shift is 10^5 off, where its own products have 10 digits less."""
    blocks = family_rows(300, DIMS, 1)
    exact = torch.cov(torch.cat(blocks, 1).T)
    few = JointMoments(DIMS).set_shift_(torch.full((28,), 1e5)).update([b[:2] for b in blocks])
    many = JointMoments(DIMS).update([b[2:] for b in blocks])
    shift = many.shift
    merged = few.merge_(many) if swapped else many.merge_(few)
    assert shift is not None and merged.shift is not None
    assert torch.equal(merged.shift, shift)
    # Of the rows about the far shift two of 300 are left: their error is eps * 1e10 * 2 / 300.
    bound = 8 * torch.finfo(torch.float64).eps * 1e10 * 2 / 300
    assert (merged.covariance - exact).abs().max() < bound


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: ([x.numpy() for x in b], None), "floating-point numbers; got a numpy.ndarray"),
        (lambda b: ((x for x in b), None), "expected a list of tensors, .*; got a generator"),
        (lambda b: ([x.long() for x in b], None), "floating-point numbers; got .* of torch.int64"),
        (lambda b: ([x.to(torch.complex64) for x in b], None), "got .* of torch.complex64"),
        (lambda b: ([x.bool() for x in b], None), "got .* of torch.bool"),
        (lambda b: (torch.cat(b, 1), None), "expected a list of tensors"),
        (lambda b: (dict(enumerate(b)), None), "expected a list of tensors"),
        (lambda b: ([*b[:2], None], None), "got a NoneType"),
        (lambda b: (b, torch.ones(1, dtype=torch.bool)), r"row_mask of shape \(4,\), .*\(1,\)"),
        (lambda b: (b, torch.ones(5, dtype=torch.bool)), r"row_mask of shape \(4,\)"),
        (lambda b: (b, torch.ones(4, 1, dtype=torch.bool)), r"row_mask of shape \(4,\)"),
        (lambda b: (b, torch.ones(4)), "row_mask as a tensor of truth values; got"),
        (lambda b: (b, [True] * 4), "row_mask as a tensor of truth values; got a list"),
        (lambda b: ([b[0].to("meta"), *b[1:]], None), "on one device"),
        (lambda b: ([], None), "expected blocks of shapes"),
    ],
)
def test_one_rule_for_what_is_taken(change, message, monkeypatch):
    # The annotations are checked while tests run; here the checks of the code are.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    blocks, row_mask = change([torch.ones(4, d) for d in DIMS])
    for moments in (JointMoments(DIMS), JointMoments(DIMS).update(family_rows(9, DIMS, 0))):
        before = moments.num_rows
        with pytest.raises(InputError, match=message):
            moments.update(blocks, row_mask=row_mask)
        assert moments.num_rows == before


def test_widths_are_whole_numbers_of_any_kind(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for dims in (np.array(DIMS), torch.tensor(DIMS), [torch.tensor(d) for d in DIMS]):
        moments = JointMoments(dims)
        assert moments.dims == tuple(DIMS) and all(type(d) is int for d in moments.dims)
    for wrong in ([2.0], ["2"], [True], [None]):
        with pytest.raises(InputError, match="widths"):
            JointMoments(wrong)


@pytest.mark.parametrize("seed", SEEDS)
def test_second_moments_about_another_mean(seed):
    blocks = family_rows(50, [3, 4], seed, mean=2)
    rows = torch.cat(blocks, 1)
    mean = torch.arange(7, dtype=torch.float64)
    found = JointMoments([3, 4]).update(blocks).about(mean)
    assert torch.allclose(found, (rows - mean).T @ (rows - mean) / 50, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shared", [False, True])
def test_ranks_add_up_to_all_rows(shared, monkeypatch):
    """One rank without rows; shifts of the ranks' own, or one for all. The mean is near that of the
    rank with more rows."""
    blocks = family_rows(150, DIMS, 0, mean=3)
    for block in blocks:
        block[:100] += 20
    parts = [slice(0, 0), slice(0, 100), slice(100, 150)]
    joint = torch.cat(blocks, 1)

    def on(rank: int) -> JointMoments:
        moments = JointMoments(DIMS)
        if shared:
            moments.set_shift_(joint.mean(0))
        return moments.update(part(blocks, parts[rank])).all_reduce_()

    for moments in Ranks(3, monkeypatch).run(on):
        assert moments.num_rows == 150
        assert relative(moments.covariance, torch.cov(joint.T)) < 1e-12
        assert relative(moments.mean, joint.mean(0)) < 1e-12
        nearest = joint.mean(0) if shared else joint[:100].mean(0)
        assert torch.equal(moments.shift, nearest.float().double())


def test_ranks_without_rows_have_none_together(monkeypatch):
    found = Ranks(2, monkeypatch).run(lambda rank: JointMoments(DIMS).all_reduce_())
    assert [moments.num_rows for moments in found] == [0, 0]


def test_one_member_of_one_column():
    (rows,) = family_rows(30, [1], 0, mean=2)
    moments = JointMoments([1]).update([rows])
    assert torch.allclose(moments.covariance, rows.var(0)[None], rtol=1e-12)


def test_the_bytes_of_the_state_and_its_shift():
    moments = JointMoments(DIMS).to("cpu").set_shift_(torch.zeros(28))
    assert moments.num_bytes == 8 * (28**2 + 2 * 28 + 1)
    assert moments.num_bytes == moments.state.nbytes + moments.origin.nbytes


def test_a_computed_covariance_is_not_kept():
    """It takes as much memory as the state."""
    moments = JointMoments(DIMS).update(family_rows(9, DIMS, 0))
    moments.compute()
    assert moments._computed is None
    kept = JointMoments(DIMS, compute_with_cache=True).update(family_rows(9, DIMS, 0))
    kept.compute()
    assert kept._computed is not None


@pytest.mark.parametrize(
    ("precision", "dtypes", "exact"),
    [
        ("auto", [torch.float32, torch.float32], False),
        ("auto", [torch.float32, torch.float64], True),
        ("float64", [torch.float32, torch.float32], True),
        ("float32", [torch.float64, torch.float64], False),
    ],
)
def test_the_arithmetic_of_an_update(precision, dtypes, exact):
    """Rows far apart in size, so that products in float32 lose digits that float64's keep."""
    blocks = [b.to(t) for b, t in zip(family_rows(500, [5, 9], 0), dtypes, strict=True)]
    moments = JointMoments([5, 9], precision=precision).update(blocks)
    expected = torch.cov(torch.cat([b.double() for b in blocks], 1).T)
    error = relative(moments.covariance, expected)
    assert error < 1e-13 if exact else 1e-10 < error < rounding(500) * norm_ratio(expected)


def test_one_row_has_no_variance_to_be_far_from_and_two_have():
    """A shift is judged by the variance, of which two rows are the fewest."""
    blocks = family_rows(2, DIMS, 0)
    far = torch.full((28,), 1e6)
    one = JointMoments(DIMS).update([b[:1] for b in blocks]).reshift_(far)
    assert torch.equal(one.shift, far.double())
    with pytest.raises(InputError, match="would lose half of the digits"):
        JointMoments(DIMS).update(blocks).reshift_(far)


@pytest.mark.parametrize(("mine", "theirs"), [(90, 30), (30, 90), (61, 60), (60, 61)])
def test_a_merge_keeps_the_shift_nearest_to_the_mean_of_all(mine, theirs):
    """That of the state with more rows, however the two lie."""
    for step in (10.0, -10.0):
        one = JointMoments([3]).update(family_rows(mine, [3], 0))
        two = JointMoments([3]).update([family_rows(theirs, [3], 1)[0] + step])
        expected = one.shift if mine > theirs else two.shift
        assert torch.equal(one.merge_(two).shift, expected)
        assert one.num_rows == mine + theirs


def test_a_synchronised_state_is_not_reduced_again():
    moments = JointMoments(DIMS).update(family_rows(9, DIMS, 0))
    moments._is_synced = True
    with pytest.raises(InputError, match=r"call unsync\(\) before all_reduce_"):
        moments.all_reduce_()


def test_a_shift_says_where_the_state_is():
    moments = JointMoments(DIMS).set_shift_(torch.zeros(28, device="meta"))
    assert moments.allocated and moments.device.type == moments.origin.device.type == "meta"
