"""rd-embed: a FASTA file in, nested embeddings out."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import fields
from typing import TYPE_CHECKING

from .cli.command import is_main_process, plain, quiet_libraries, run_command

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from .display.console import Console
    from .embedding.job import EmbedJob, EmbedOptions
    from .embedding.runner import RunAlone, RunUnderTrainer


def main() -> None:
    """The command."""
    run_command("embed", embed, resumes=True)


def embed(config: DictConfig) -> None:
    """Plan, say what will be done, embed what is not done yet, write."""
    # Here, not above: torch takes a second and Lightning three; --help and a typo should not.
    from .display.console import plain_console, print_facts
    from .embedding.job import EmbedJob
    from .embedding.output import assemble, list_skipped
    from .runtime.owner import owned_file
    from .runtime.precision import faster_precision

    console = plain_console()
    job = EmbedJob(_options(config))
    with ExitStack() as stack:
        if is_main_process():
            if not config.preflight:
                stack.enter_context(owned_file(job.out))
            job.refuse_used()
        run = _run(job, config, stack)
        data = job.make_data(run.device_type)
        if is_main_process():
            data.scan()
            faster = faster_precision(run.device_type, run.precision)
            print_facts(console, [*job.facts(run.shown), *faster])
        if config.preflight:
            return
        model = run.make_model()
        started = time.perf_counter()
        metadata = job.metadata(model, run.root_device, run.precision) if is_main_process() else {}
        if is_main_process() and job.prepare_spool(metadata):
            console.print("resuming an earlier run")
        run(model)
        if not run.is_main:
            return
        seconds = time.perf_counter() - started
        assemble(job, metadata)
        path = list_skipped(job)
    _say_what_was_done(console, job, model.num_pieces, seconds)
    if path:
        console.print(f"skipped records: {path}", soft_wrap=True)
    console.print(f"embeddings: {job.out}", soft_wrap=True)


def _options(config: DictConfig) -> EmbedOptions:
    from .embedding.job import EmbedOptions

    names = {option.name for option in fields(EmbedOptions)}
    return EmbedOptions(**{k: v for k, v in plain(config).items() if k in names})


def _run(job: EmbedJob, config: DictConfig, stack: ExitStack) -> RunAlone | RunUnderTrainer:
    from .embedding.runner import RunAlone, RunUnderTrainer, one_device

    if device := one_device(config.trainer):
        return RunAlone(job, device)
    from .cli.trainer import make_trainer

    stack.enter_context(quiet_libraries())
    return RunUnderTrainer(
        job, lambda callback: make_trainer(config.trainer, callback, root=job.spool_folder)
    )


def _say_what_was_done(console: Console, job: EmbedJob, num_pieces: int, seconds: float) -> None:
    from .embedding.preflight import long_fact

    data, scan = job.data, job.data.store.summary
    description = job.description()
    records, kinds = description.num_records, len(description.lengths)
    residues = int(data.residues_by_batch().sum())
    console.print(
        f"{records:,} records embedded, {kinds:,} distinct sequences and {records - kinds:,} copies"
    )
    if left_out := scan.num_skipped + scan.num_sequences - records:
        console.print(f"{left_out:,} records skipped")
    if data.plan.long.any():
        console.print(f"long sequences: {long_fact(data)}")
    if num_pieces:
        console.print(f"{num_pieces:,} batches were divided for lack of memory")
    if residues:
        rate = f"{residues / seconds:,.0f}"
        console.print(f"{residues:,} residues in {seconds:.1f} s ({rate} residues/s)")


if __name__ == "__main__":
    main()
