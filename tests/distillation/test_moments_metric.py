"""JointMoments as a torchmetrics.Metric: dtypes, copies, collections, Lightning, processes."""

import copy
import gc
import pickle
import weakref

import lightning as L
import pytest
import torch
from torchmetrics import MetricCollection

from rd_lightning import JointMoments
from rd_lightning.errors import InputError

from ..conftest import SEEDS, family_rows

DIMS = [3, 5]


def cov(*parts):
    return torch.cov(torch.cat([torch.cat(p, 1) for p in parts]).T)


def close(a, b) -> bool:
    return torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.half(),
        lambda m: m.bfloat16(),
        lambda m: m.float(),
        lambda m: m.set_dtype(torch.float16),
        lambda m: m.to(torch.bfloat16),
        lambda m: m.to("cpu", torch.float16),
        lambda m: torch.nn.ModuleDict({"m": m}).half(),
        lambda m: torch.nn.ModuleDict({"m": m}).to(torch.bfloat16),
    ],
)
@pytest.mark.parametrize("with_rows", [False, True])
def test_the_state_stays_float64(change, with_rows):
    blocks = family_rows(40, DIMS, 0)
    moments = JointMoments(DIMS)
    if with_rows:
        moments.update([b[:20] for b in blocks])
    change(moments)
    moments.update([b[20:] if with_rows else b for b in blocks])
    assert moments.dtype == moments.state.dtype == moments.origin.dtype == torch.float64
    assert close(moments.compute(), cov(blocks))


def test_the_default_dtype_changes_nothing():
    blocks = family_rows(40, DIMS, 0)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.bfloat16)
        moments = JointMoments(DIMS).update(blocks)
    finally:
        torch.set_default_dtype(before)
    assert moments.state.dtype == torch.float64
    assert close(moments.compute(), cov(blocks))


def test_memory_is_taken_when_it_is_needed_and_given_back():
    moments = JointMoments(DIMS)
    assert not moments.allocated
    torch.nn.ModuleDict({"m": moments}).to("cpu")
    assert not moments.allocated
    assert moments.to("cpu").allocated
    moments.reset()
    assert not moments.allocated and moments.shift is None and moments.num_rows == 0
    assert close(moments.update(family_rows(9, DIMS, 0)).compute(), cov(family_rows(9, DIMS, 0)))


def test_a_metric_that_nobody_holds_is_freed_at_once():
    gc.disable()
    try:
        moments = JointMoments(DIMS).update(family_rows(9, DIMS, 0))
        moments(family_rows(9, DIMS, 0))
        twin = moments.clone()
        dead = [weakref.ref(moments), weakref.ref(twin), weakref.ref(twin.state)]
        del moments, twin
        assert [ref() for ref in dead] == [None] * 3
    finally:
        gc.enable()


def test_moved_to_another_device_and_back():
    moments = JointMoments(DIMS).to("meta")
    assert moments.state.device.type == moments.origin.device.type == "meta"
    assert moments.state.dtype == torch.float64


@pytest.mark.parametrize("with_rows", [False, True])
def test_state_dict_round_trip(with_rows):
    moments = JointMoments(DIMS)
    blocks = family_rows(40, DIMS, 0, mean=5)
    if with_rows:
        moments.update(blocks)
    assert not moments.state_dict()
    moments.persistent(True)
    parent = torch.nn.ModuleDict({"m": moments})
    saved = parent.state_dict()
    assert list(saved) == ["m.state", "m.origin"]
    other = torch.nn.ModuleDict({"m": JointMoments(DIMS)})
    other.load_state_dict(saved)
    loaded = other["m"]
    assert torch.equal(loaded.state, moments.state)
    assert torch.equal(loaded.origin, moments.origin)
    loaded.update(blocks)
    assert torch.equal(saved["m.state"], moments.state)  # the dictionary is not written into
    assert close(loaded.compute(), cov(blocks, blocks) if with_rows else cov(blocks))
    if with_rows:
        with pytest.raises(RuntimeError, match=r"m\.state: expected"):
            torch.nn.ModuleDict({"m": JointMoments([2])}).load_state_dict(saved)


@pytest.mark.parametrize("seed", SEEDS)
def test_forward_gives_the_batch_and_adds_it(seed):
    blocks = family_rows(90, DIMS, seed, mean=4)
    parts = [[b[i : i + 30] for b in blocks] for i in (0, 30, 60)]
    moments = JointMoments(DIMS)
    for part in parts:
        assert close(moments(part), cov(part))
    assert torch.equal(moments.origin.float(), torch.cat(parts[0], 1).mean(0).float())
    assert moments.num_rows == 90 and moments.update_count == 3
    assert close(moments.compute(), cov(blocks))
    with pytest.raises(InputError, match="expected blocks"):
        moments([b[:, :2] for b in blocks])
    with pytest.raises(InputError, match="at least 2"):
        moments([b[:1] for b in blocks])
    assert moments.num_rows == 90


def test_states_made_while_validating_are_updated_while_training():
    blocks = family_rows(30, DIMS, 0)
    moments = JointMoments(DIMS)
    with torch.inference_mode():
        moments.update(blocks)
        moments(blocks)
    assert close(moments.update(blocks).compute(), cov(blocks, blocks, blocks))


@pytest.mark.parametrize("how", [copy.deepcopy, JointMoments.clone, "pickle"])
def test_copies_share_nothing(how):
    blocks = family_rows(30, DIMS, 0)
    moments = JointMoments(DIMS, precision="float64").update(blocks)
    twin = pickle.loads(pickle.dumps(moments)) if how == "pickle" else how(moments)
    twin.update([b + 1 for b in blocks])
    assert (moments.num_rows, twin.num_rows, twin.precision) == (30, 60, "float64")
    assert close(moments.compute(), cov(blocks))
    assert close(twin.compute(), cov(blocks, [b + 1 for b in blocks]))


def test_a_copy_of_a_part_of_a_tensor_is_of_that_part():
    moments = JointMoments(DIMS).update(family_rows(30, DIMS, 0))
    moments.state = torch.stack([moments.state] * 3)[1]
    assert moments.clone().state.untyped_storage().nbytes() == 8 * len(moments.state)


def test_torchmetrics_merge_state_brings_shifts_together():
    blocks = family_rows(60, DIMS, 0, mean=3)
    parts = [[b[:20] for b in blocks], [b[20:] for b in blocks]]
    for as_dict in (False, True):
        one, other = (JointMoments(DIMS).update(p) for p in parts)
        one.merge_state(other.metric_state if as_dict else other)
        assert close(one.compute(), cov(blocks))
    with pytest.raises(InputError, match="cannot merge"):
        JointMoments([2]).merge_state(one)


def test_in_a_collection():
    blocks, mask = family_rows(40, DIMS, 0), torch.arange(40) < 30
    metrics = MetricCollection({"a": JointMoments(DIMS), "b": JointMoments(DIMS)})
    for _ in range(3):
        metrics.update(blocks, row_mask=mask, other=1)
    kept = [b[:30] for b in blocks]
    found = metrics.compute()
    assert set(found) == {"a", "b"}
    assert all(close(value, cov(kept, kept, kept)) for value in found.values())
    metrics.reset()
    assert metrics["a"].num_rows == metrics["b"].num_rows == 0


def test_options_that_cannot_be():
    with pytest.raises(InputError, match="dist_sync_fn"):
        JointMoments(DIMS, dist_sync_fn=lambda x, group: [x])


class Watched(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(5, 1)
        self.moments = JointMoments(DIMS)

    def training_step(self, batch, _):
        self.moments.update(batch)
        return self.layer(batch[1].to(self.layer.weight.dtype)).square().mean()

    def on_train_epoch_end(self):
        self.log("variance", self.moments.compute().trace())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_in_a_lightning_module(tmp_path, precision):
    blocks = [b.float() for b in family_rows(30, DIMS, 0)]
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*blocks), batch_size=10)
    model = Watched()
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, data)
    assert model.moments.num_rows == 30
    assert model.moments.state.dtype == torch.float64
    given = [b.bfloat16() if precision == "bf16-true" else b for b in blocks]
    expected = cov([b.double() for b in given]).trace()
    assert trainer.callback_metrics["variance"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert not [name for name in model.state_dict() if "moments" in name]


def compute_in_processes(rank: int, port: int, folder: str) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    sizes = []

    def counted(function):
        def call(tensor, *args, **kwargs):
            sizes.append(
                sum(t.numel() for t in tensor) if isinstance(tensor, list) else tensor.numel()
            )
            return function(tensor, *args, **kwargs)

        return call

    for name in ("all_reduce", "all_gather", "broadcast", "all_gather_into_tensor"):
        setattr(dist, name, counted(getattr(dist, name)))
    blocks = family_rows(50, DIMS, 0, mean=3)
    mine = [b[:20] if rank else b[20:] for b in blocks]
    moments = JointMoments(DIMS).update(mine)
    before = moments.state
    found = moments.compute()
    large = [size for size in sizes if size > 8 * 8]
    back = moments.state is before and moments.num_rows == len(mine[0])
    on_step = JointMoments(DIMS, dist_sync_on_step=True)
    step = on_step(mine)
    lonely = JointMoments(DIMS)
    if rank:
        lonely.update(mine)
    alone = lonely.compute()
    freed = not JointMoments(DIMS).allocated and lonely.allocated == bool(rank)
    moments.sync()
    synced = moments.num_rows
    moments.unsync()
    moments.all_reduce_()
    torch.save(
        [found, large, back, step, on_step.num_rows, alone, freed, synced, moments.num_rows],
        f"{folder}/{rank}",
    )
    dist.destroy_process_group()


def test_two_processes_equal_one_with_one_large_collective(tmp_path, free_port):
    torch.multiprocessing.spawn(compute_in_processes, args=(free_port, str(tmp_path)), nprocs=2)
    blocks = family_rows(50, DIMS, 0, mean=3)
    for rank, own in enumerate((30, 20)):
        found, large, back, step, rows, alone, freed, synced, reduced = torch.load(
            tmp_path / str(rank), weights_only=True
        )
        assert close(found, cov(blocks)) and close(step, cov(blocks))
        assert large == [8 * 8 + 8 + 1]
        assert back and freed and rows == own
        assert close(alone, cov([b[:20] for b in blocks]))
        assert synced == reduced == 50
