"""rd-embed: a FASTA file in, nested embeddings out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from omegaconf import DictConfig
from rich.console import Console

from .cli.command import is_main_process, run_command
from .errors import InputError

if TYPE_CHECKING:
    from .embedding.job import EmbedJob


def main() -> None:
    """The command."""
    run_command("embed", embed, resumes=True)


def embed(config: DictConfig) -> None:
    """Plan, say what will be done, embed what is not done yet, write."""
    # Here, not above: torch takes a second and Lightning three; --help and a typo should not.
    from .embedding.assemble import assemble, copy_skipped
    from .embedding.device import one_device
    from .embedding.job import EmbedJob

    console = Console()
    job = EmbedJob(config)
    if is_main_process():
        job.refuse_used()
    if device := one_device(config.trainer):
        from .embedding.runner import RunAlone

        run = RunAlone(job, device)
    else:
        from .embedding.under_trainer import RunUnderTrainer

        run = RunUnderTrainer(job, config.trainer)
    data = job.make_data(run.device_type)
    if is_main_process():
        data.scan()
        job.check_scanned(console, run.shown)
    if config.preflight:
        return
    model = run.make_model()
    started = time.perf_counter()
    if is_main_process() and job.prepare_spool(model, run.precision):
        console.print("going on from an earlier run")
    run()
    if not run.is_main:
        return
    seconds = time.perf_counter() - started
    try:
        assemble(job)
    except OSError as error:
        raise InputError(
            f"{job.out} cannot be written ({error}); nothing that was computed is lost: make room "
            "and run the same command again"
        ) from error
    _say_what_was_done(console, job, model.num_pieces, seconds)
    if path := copy_skipped(job):
        console.print(f"skipped records: {path}", soft_wrap=True)
    console.print(f"embeddings: {job.out}", soft_wrap=True)


def _say_what_was_done(console: Console, job: EmbedJob, num_pieces: int, seconds: float) -> None:
    from .embedding.preflight import long_ones

    data, scan = job.data, job.data.store.summary
    records, kinds = job.description.num_records, len(job.description.lengths)
    residues = int(data.residues_by_batch().sum())
    console.print(
        f"{records:,} records embedded, {kinds:,} distinct sequences and {records - kinds:,} copies"
    )
    if left_out := scan.num_skipped + scan.num_sequences - records:
        console.print(f"{left_out:,} records skipped")
    if data.plan.long.any():
        console.print(f"long ones: {long_ones(data)}")
    if num_pieces:
        console.print(f"{num_pieces:,} batches were divided for lack of memory")
    if residues:
        rate = f"{residues / seconds:,.0f}"
        console.print(f"{residues:,} residues in {seconds:.1f} s ({rate} residues/s)")


if __name__ == "__main__":
    main()
