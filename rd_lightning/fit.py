"""rd-fit: a FASTA file in, or files of embeddings; a reverse-distilled head out."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .cli.command import (
    is_given,
    is_main_process,
    is_sweep,
    output_folder,
    plain,
    quiet_libraries,
    run_command,
)
from .errors import InputError, Terminated

if TYPE_CHECKING:
    from lightning import Trainer
    from omegaconf import DictConfig

    from .display.console import Console
    from .families import Family
    from .fitting.checkpoint import FitCheckpoint
    from .fitting.module import RDModule
    from .fitting.planned import PlannedDataModule
    from .fitting.state import FitState


def main() -> None:
    """The command."""
    run_command("fit", fit)


@quiet_libraries()
def fit(config: DictConfig) -> None:
    """Plan, say what will be done, stream, solve, write."""
    # Here, not above: torch and Lightning take seconds, --help and a typo should not.
    from .pages.bundle import check_report

    check_report(config.report)
    if config.data.claim is not None and not config.preflight:
        return _work(config)
    module, data = _make(config)
    if data.part_of > 1 and not is_given("out") and not is_sweep():
        raise InputError(
            f"data.part={config.data.part}: name the folder of this part, out=DIR; parts that run "
            "side by side may not share one"
        )
    with output_folder(config) as folder:
        _fit_in(folder, config, module, data)


def _work(config: DictConfig) -> None:
    """One of several workers, each of which takes parts until none is left."""
    from .cli.trainer import make_trainer
    from .display.console import plain_console
    from .fitting.claim import check_num_parts, check_same_fit, claimed_parts

    folder = Path(str(config.data.claim))
    if config.data.part is not None or config.resume is not None or is_given("out") or is_sweep():
        raise InputError(
            "data.claim has parts, folders and checkpoints of its own; leave out "
            "data.part, out, resume and -m"
        )
    module, data = _make(config)
    trainer = make_trainer(config.trainer, root=folder)
    if trainer.world_size > 1:
        raise InputError("data.claim: a worker is one process; start one a device, each by itself")
    plan = data.scan(trainer.strategy.root_device.type)
    num_parts = check_num_parts(config.data.claim_parts, len(plan))
    part = replace(data.part(0), of=num_parts, num_batches=0)
    facts = {**module.identity_under(trainer), **asdict(part)}
    check_same_fit(folder, facts)
    config.resume = "auto"
    for number, part_folder in claimed_parts(folder, num_parts):
        used = module.used_backbones
        module, share = _make(config, f"{number}/{num_parts}")
        share.store, share.plan = data.store, data.plan
        module.backbones = next(iter(used), None)  # loaded once
        _fit_in(part_folder, config, module, share)
    done = f"all {num_parts} parts are done; add them up: rd-merge {folder}/*"
    plain_console().print(done, soft_wrap=True)


def _fit_in(folder: Path, config: DictConfig, module: RDModule, data: PlannedDataModule) -> None:
    from .cli.trainer import make_trainer
    from .families.download import download_missing
    from .fitting.checkpoint import FitCheckpoint
    from .fitting.output import CHECKPOINT
    from .runtime.ddp import first_decides

    saving = FitCheckpoint(folder / CHECKPOINT, config.checkpoint_minutes)
    trainer = make_trainer(config.trainer, saving, root=folder)
    todo: Literal["nothing", "solve", "stream"] = "nothing" if config.preflight else "stream"
    problem = None

    def prepare() -> None:
        nonlocal todo
        if is_main_process():
            todo = _todo(folder, config, module, data, trainer)
        else:
            data.scan(trainer.strategy.root_device.type)
        if todo == "stream":
            download_missing(module.models, module.weights)

    if todo == "stream" or is_main_process():
        try:
            data.scan_once(trainer, prepare)
        except Exception as error:  # whatever it is, the others must not wait for this process
            problem = error
    if config.preflight:
        if problem is not None:
            raise problem
        return
    todo = first_decides(trainer, todo, problem)
    if todo == "stream" or (todo == "solve" and is_main_process()):
        _stream_and_write(folder, config, module, data, trainer, saving)


def _todo(
    folder: Path, config: DictConfig, module: RDModule, data: PlannedDataModule, trainer: Trainer
) -> Literal["nothing", "solve", "stream"]:
    """Scan, say what is left to do, check it; on the first process alone, whose folder it is."""
    from .data.scan import SKIPPED
    from .display.console import plain_console, print_facts
    from .display.skipped import write_skipped
    from .embedding.preflight import memory_fact
    from .fitting.checkpoint import check_resumed
    from .fitting.output import check_same_options, is_complete, resumed_state
    from .fitting.preflight import check_rooms, preflight_facts
    from .fitting.weights import fit_placement

    console = plain_console()
    complete = is_complete(folder, config.resume, is_part=data.part_of > 1)
    earlier = resumed_state(config.resume, folder)
    if earlier is not None:
        module.resume_from, data.batches_done = earlier, earlier.parts[0].batches_done
    device = trainer.strategy.root_device
    data.scan(device.type)
    assert data.store is not None
    assert data.plan is not None
    facts = preflight_facts(module, data, trainer)
    if module.models:
        settings = data.plan.settings
        module.placement = fit_placement(module.members, module.offload, trainer, settings)
        facts.append(("memory", memory_fact(module.placement, module.offload)))
    print_facts(console, facts)
    if earlier is not None:
        # What is known before the weights are loaded; the module compares those too.
        known = module.identity_under(trainer)
        known.pop("compile", None)  # the compiler may fail, and the run go on without
        check_resumed(earlier, known, module.dims, data.part(data.batches_done))
    if complete:
        check_same_options(folder, module.solve_options)
        console.print(f"complete already: {folder}", soft_wrap=True)
        return "nothing"
    if config.preflight:
        _more_preflight(console, module, data, trainer, folder)
    if skipped := write_skipped(data.store, folder / SKIPPED):
        console.print(f"skipped records: {skipped}", soft_wrap=True)
    check_rooms(module, data, folder)
    if config.preflight:
        return "nothing"
    return "solve" if earlier is not None and earlier.parts[0].complete else "stream"


def _stream_and_write(
    folder: Path,
    config: DictConfig,
    module: RDModule,
    data: PlannedDataModule,
    trainer: Trainer,
    saving: FitCheckpoint,
) -> None:
    """The state is kept until all is written, whatever happens, and a message says where."""
    from .display.console import plain_console
    from .fitting.output import write_state
    from .pages.bundle import wants_page
    from .runtime.ddp import processes_end_together
    from .runtime.os_errors import explained

    earlier = module.resume_from
    try:
        if earlier is not None and earlier.parts[0].complete:
            saving.saved = saving.path
            _solve_only(module, data, earlier)
        else:
            with processes_end_together(trainer):
                trainer.fit(module, datamodule=data)
        if not trainer.is_global_zero:
            return
        if not module.state.parts:
            raise InputError("the trainer ended before the stream began; leave out max_epochs=0")
        page = module.head is not None and wants_page(config.report)
        write_state(module.state, module.head, folder, _asked_for(config), page=page)
    except OSError as error:
        raise InputError(f"{explained(error)}; {saving.fate}") from error
    except InputError as error:
        if saving.saved is None or "resume=" in str(error):
            raise
        raise InputError(f"{error}; {saving.fate}") from error
    except Terminated as error:
        if saving.saved is not None and "resume=" not in error.message:
            error.message += f"; {saving.fate}"
        raise
    if saving.saved is not None:
        saving.saved.unlink(missing_ok=True)
    saving.path.unlink(missing_ok=True)
    _say_what_was_done(plain_console(), folder, config, module, data)


def _say_what_was_done(
    console: Console, folder: Path, config: DictConfig, module: RDModule, data: PlannedDataModule
) -> None:
    from .fitting.summary import print_report
    from .pages.page import say_page

    if module.head is None:
        done = f"part {data.part_index}/{data.part_of}: {module.moments.num_rows:,} residues"
        console.print(f"{done}; add the parts up with rd-merge")
    else:
        print_report(console, module.head.report)
        context, number = module.head.report.context, module.head.report.num_residues
        pace = f" in {context['seconds']:.1f} s" if "seconds" in context else ""
        if pace:
            pace += f" ({context['residues_per_second']:,.0f} residues/s)"
            if module.resume_from is not None:  # time and rate are of this run alone
                stream = data.progress()
                pace = f", {stream.total - stream.done:,} residues since the checkpoint{pace}"
        console.print(f"{number:,} residues fitted{pace}")
    console.print(f"head, moments and report: {folder}", soft_wrap=True)
    if module.head is not None:
        say_page(console.print, folder, config.report)


def _make(config: DictConfig, part: str | None = None) -> tuple[RDModule, PlannedDataModule]:
    """What runs, and on what; of a part in place of the configuration's."""
    from .families import family_from_config

    settings = {k: v for k, v in config.data.items() if not str(k).startswith("claim")}
    if part is not None:
        settings["part"] = part
    if config.embeddings is not None:
        return _make_embedded(config, settings)
    from .fitting.datamodule import FastaDataModule

    module = _make_module(config, family_from_config(config.family))
    return module, FastaDataModule(**settings, tokenizer=module.family.tokenizer())


def _make_embedded(
    config: DictConfig, settings: dict[str, Any]
) -> tuple[RDModule, PlannedDataModule]:
    """Of files of embeddings, which need no model; settings that would say nothing are refused."""
    from .fitting.embedded import EmbeddingsDataModule

    for key, default in {"fasta": None, "store": None, "on_nucleotides": "raise"}.items():
        if settings.pop(key) != default:
            raise InputError(
                f"data.{key} is of sequences, and embeddings names files of embeddings, in which "
                "there are none; leave one of them out"
            )
    if any(is_given(key) for key in ("family", *(f"family.{k}" for k in config.family))):
        raise InputError("embeddings: no model is loaded; leave out family and its settings")
    data = EmbeddingsDataModule(plain(config)["embeddings"], **settings)
    return _make_module(config, data.family), data


def _asked_for(config: DictConfig) -> dict[str, Any]:
    """The configuration for the report, without the family where no model was run."""
    asked = plain(config)
    if asked["embeddings"] is not None:
        del asked["family"]
    return asked


def _make_module(config: DictConfig, family: Family) -> RDModule:
    from .fitting.module import RDModule

    return RDModule(
        family,
        config.target,
        weights=config.family.weights,
        solver=config.solver,
        level_widths=config.keep,
        scale=config.scale,
        accumulate=config.accumulate,
        on_nonfinite=config.on_nonfinite,
        offload=config.family.get("offload", "auto"),
        attention=config.family.get("attention", "auto"),
        compile=config.family.get("compile", "auto"),
        **config.regression,
    )


def _more_preflight(
    console: Console, module: RDModule, data: PlannedDataModule, trainer: Trainer, folder: Path
) -> None:
    from .display.console import print_table
    from .fitting.preflight import expected_time, letter_rows, save_lengths_picture

    assert data.store is not None
    if rows := letter_rows(data.store.summary):  # none where there are embeddings alone
        print_table(console, "Residues by letter", ("letter", "residues", "share"), rows)
    console.print(f"expected time: {expected_time(module, data, trainer)}")
    console.print(f"lengths: {save_lengths_picture(data, folder)}", soft_wrap=True)


def _solve_only(module: RDModule, data: PlannedDataModule, state: FitState) -> None:
    """The stream was complete when the earlier run ended; only the chain is left to solve."""
    from .fitting.state import solve_state

    module.state = state
    if data.part_of == 1:
        module.head = solve_state(state, module.solve_options, data.record())


if __name__ == "__main__":
    main()
