import weakref

import lightning as L
import numpy as np
import pytest
import torch

from rd_lightning import FastaDataModule, FrozenDDPStrategy, RDModule, fit_chain
from rd_lightning.cli.command import quiet_libraries
from rd_lightning.distillation.moments import JointMoments
from rd_lightning.errors import InputError
from rd_lightning.families.backbone import load_backbones
from rd_lightning.families.esm2 import esm_tokenizer
from rd_lightning.fitting import module as module_file
from rd_lightning.fitting import weights as weights_file
from rd_lightning.fitting.checkpoint import FitCheckpoint
from rd_lightning.fitting.state import FitState

from ..conftest import random_sequences


def trainer(**options) -> L.Trainer:
    defaults = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return L.Trainer(**{**defaults, **options})


def run(module: RDModule, data: FastaDataModule, **options) -> RDModule:
    with quiet_libraries():
        trainer(**options).fit(module, datamodule=data)
    return module


@pytest.fixture
def sequences():
    return random_sequences(80, 0)


@pytest.fixture
def data(fasta, sequences):
    return FastaDataModule(fasta(sequences), tokens_per_batch=300, max_residues=50, heldout=0.2)


def all_rows(family, data: FastaDataModule, side: bool) -> list[torch.Tensor]:
    """Raw embeddings by fair-esm itself, window by window, of the fit (False) or held-out side."""
    from rd_lightning.data.batch import make_batch

    models = [family.load(m, None).eval() for m in family.members]
    rows = [[] for _ in models]
    for b in range(len(data.plan)):
        if (data.plan.group[b] == -1) != side:
            continue
        for window in data.plan.windows(b):
            batch = make_batch(data.store, data.tokenizer, [window], number=0, group=0)
            for k, model in enumerate(models):
                n = model.num_layers
                with torch.no_grad():
                    found = model(batch.tokens, repr_layers=[n])["representations"][n]
                rows[k].append(found[0, 1:-1])
    return [torch.cat(r) for r in rows]


def test_the_fit_equals_moments_of_fair_esms_embeddings(family, data, sequences):
    module = run(RDModule(family, accumulate="float64"), data)
    fit, heldout = (all_rows(family, data, side) for side in (False, True))
    assert module.moments.num_rows + module.heldout_moments.num_rows == sum(map(len, sequences))
    for found, rows in ((module.moments, fit), (module.heldout_moments, heldout)):
        expected = JointMoments([8, 12, 16], precision="float64").update(rows)
        assert found.num_rows == expected.num_rows
        error = (found.covariance - expected.covariance).norm() / expected.covariance.norm()
        assert error < 1e-6  # float32 forward passes of other shapes
    assert module.head.names == ("A", "B", "C")
    assert module.head.report.num_heldout_residues == module.heldout_moments.num_rows
    stage = module.head.report.stages[0]
    assert -1 < stage.r2_heldout <= 1


def test_the_head_is_that_of_its_moments(family, data):
    module = run(RDModule(family, num_components=5), data)
    again = fit_chain(
        module.moments, names=["A", "B", "C"], num_components=5, heldout=module.heldout_moments
    )
    for (_, a), (_, b) in zip(module.head.named_buffers(), again.named_buffers(), strict=True):
        assert torch.equal(a, b)


def test_one_epoch_is_enough_even_if_more_are_asked_for(family, data, sequences):
    module = run(RDModule(family), data, max_epochs=5)
    assert module.moments.num_rows + module.heldout_moments.num_rows == sum(map(len, sequences))


def test_a_smaller_target_runs_fewer_models(family, data):
    module = run(RDModule(family, "B"), data)
    assert module.state.identity["weights"].keys() == {"A", "B"}
    assert module.head.dims == (8, 12)


def test_the_models_are_gone_before_the_chain_is_solved(family, data, monkeypatch):
    """On a GPU the solve needs their room, and Lightning copies what is left to the host."""
    loaded, left = [], []

    def load(*args, **options):
        made = load_backbones(*args, **options)
        loaded.extend(weakref.ref(p) for p in made.parameters())
        return made

    def solve(*args, **kwargs):
        left.append(sum(ref() is not None for ref in loaded))
        return fit_chain(*args, **kwargs)

    monkeypatch.setattr(weights_file, "load_backbones", load)
    monkeypatch.setattr(module_file, "fit_chain", solve)
    module = run(RDModule(family), data)
    assert loaded and left == [0]
    assert module.backbones is None and module.head is not None


def test_a_checkpoint_has_the_room_that_the_batches_had(family, data, tmp_path, monkeypatch):
    """What a device's allocator keeps of it is given back before the states are summed."""
    done, summed_on_host = [], FitState.summed_on_host

    def summed(self, *, keep=True):
        done.append("summed")
        return summed_on_host(self, keep=keep)

    monkeypatch.setattr(FitState, "summed_on_host", summed)
    monkeypatch.setattr(module_file, "free_memory", lambda device: done.append("freed"))
    run(RDModule(family), data, callbacks=[FitCheckpoint(tmp_path / "c", every_minutes=0)])
    assert done.count("summed") > 2
    assert [done[at - 1] for at, what in enumerate(done) if what == "summed"] == (
        ["freed"] * done.count("summed")
    )


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_the_state_stays_float64(family, data, precision):
    module = run(RDModule(family), data, precision=precision)
    assert module.moments.covariance.dtype == torch.float64
    assert module.head.dtype == torch.float32
    assert module.head.report.context["precision"] == precision
    module.half()
    assert module.moments.covariance.dtype == torch.float64


def test_bf16_mixed_is_close_to_float32(family, fasta, sequences):
    covariances = []
    for precision in ("32-true", "bf16-mixed"):
        data = FastaDataModule(fasta(sequences), heldout=0.0)
        covariances.append(run(RDModule(family), data, precision=precision).moments.covariance)
    assert 0 < (covariances[1] - covariances[0]).norm() / covariances[0].norm() < 0.02


def test_the_report_knows_where_it_comes_from(family, data):
    context = run(RDModule(family), data).head.report.context
    assert context["family"] == "tiny"
    assert set(context["weights"]) == {"A", "B", "C"}
    assert context["fasta_digest"] == data.store.summary.digest
    assert context["versions"]["torch"].startswith("2.")
    assert context["residues_per_second"] > 0


def nan_family(family):
    """The second member gives NaN where the third residue is a tryptophan."""
    from dataclasses import replace

    tryptophan = 22

    def encode(model, tokens, *, padded=True):
        x = family.encode(model, tokens, padded=padded).clone()
        if x.shape[-1] == 12:
            x[tokens[:, 3] == tryptophan, 3, 5] = torch.nan
        return x

    return replace(family, encode=encode)


SPOILED = [("good", "ACDEFGHIKL" * 8), ("spoiled/1", "ACWEFGHIKL" * 8), ("fine", "LKIHGFEDCA" * 3)]


def test_nan_names_the_record(family, fasta):
    data = FastaDataModule(fasta(SPOILED), heldout=0.0)
    with pytest.raises(InputError, match=r"spoiled/1 \(record 2\).*on_nonfinite=skip") as caught:
        run(RDModule(nan_family(family)), data)
    assert "good" not in str(caught.value)


def test_nan_rows_can_be_left_out(family, fasta):
    clean = run(RDModule(family), FastaDataModule(fasta(SPOILED), heldout=0.0))
    module = run(
        RDModule(nan_family(family), on_nonfinite="skip"),
        FastaDataModule(fasta(SPOILED), heldout=0.0),
    )
    assert module.moments.num_rows == clean.moments.num_rows - 1
    assert module.head.report.context["num_nonfinite_residues"] == 1
    assert torch.isfinite(module.moments.covariance).all()


def nan_begins(family, batches: int):
    """Every residue of the first batches is NaN, as it is run."""
    from dataclasses import replace

    first: set[bytes] = set()

    def encode(model, tokens, *, padded=True):
        key = tokens.numpy().tobytes()
        if len(first) < batches:
            first.add(key)
        x = family.encode(model, tokens, padded=padded) + 1000
        return x * torch.nan if key in first else x

    return replace(family, encode=encode)


def test_the_shift_is_that_of_the_first_batch_with_a_finite_row(family, data):
    """A shift of 0 would cost columns of mean 1000 three digits of seven, twice."""
    module = run(RDModule(nan_begins(family, 3), on_nonfinite="skip", accumulate="float32"), data)
    moments = module.moments
    assert moments.shift is not None
    assert (moments.shift - moments.mean).abs().max() < 10 * moments.covariance.diagonal().max()
    assert (moments.shift > 900).all()


def test_no_finite_row_at_all_is_said(family, data):
    module = RDModule(nan_begins(family, 10**6), on_nonfinite="skip")
    with pytest.raises(InputError, match="no residue has finite embeddings"):
        run(module, data)


def test_tokens_of_another_family_are_refused(family, fasta, sequences):
    from dataclasses import replace

    own = esm_tokenizer()
    other = replace(own, table=np.where(own.table >= 4, 27 - own.table, own.table))
    for given, of in ((other, family), (None, replace(family, tokenizer=lambda: other))):
        data = FastaDataModule(fasta(sequences), tokenizer=given)
        with pytest.raises(InputError, match=r"gives other tokens than the family tiny reads: .*"):
            run(RDModule(of), data)
    same = FastaDataModule(fasta(sequences), tokenizer=replace(own, table=own.table.copy()))
    assert run(RDModule(family), same).head is not None


def test_too_few_residues(family, fasta):
    with pytest.raises(InputError, match="12 residues cannot determine 16 directions of C"):
        run(RDModule(family), FastaDataModule(fasta(["ACDEFGHIKLMN"]), heldout=0.0))


def test_lightnings_own_ddp_is_refused_with_the_way_round(family):
    module = RDModule(family)

    class Plain:
        from lightning.pytorch.strategies import DDPStrategy

        strategy = DDPStrategy()

    module._trainer = Plain()
    with pytest.raises(InputError, match="FrozenDDPStrategy"):
        module.setup("fit")
    Plain.strategy = FrozenDDPStrategy()
    module.setup("fit")


def test_options_are_checked_at_once(family, data):
    with pytest.raises(InputError, match="has 8 inputs"):
        RDModule(family, num_components=9)
    with pytest.raises(InputError, match="ridge"):
        RDModule(family, regression="ridge")
    module = RDModule(family, num_components="heldout")
    data._settings["heldout"] = 0.0
    with pytest.raises(InputError, match="none is held out"):
        run(module, data)
    assert module.moments.num_rows == 0
    with pytest.raises((InputError, TypeError), match="on_nonfinite|type"):
        RDModule(family, on_nonfinite="ignore")
    with pytest.raises(InputError, match="no member 'Z'"):
        RDModule(family, "Z")
