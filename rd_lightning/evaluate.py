"""rd-evaluate: how well embeddings predict, on one's own assays or tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli.command import is_given, output_folder, plain, run_command
from .errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console

    from .evaluation.job import EvaluateJob
    from .evaluation.options import EvaluateOptions
    from .evaluation.report.published import Yours
    from .evaluation.tasks.folder import KeptTask
    from .evaluation.tasks.job import TaskJob

EXTRA = 'rd-evaluate needs more packages: pip install "rd-lightning[evaluate]"'


def main() -> None:
    """The command."""
    run_command("evaluate", evaluate, resumes=True)


def evaluate(config: DictConfig) -> None:
    """Read, say what will be done, score assay after assay, write."""
    try:
        import pandas  # noqa: F401
        import pyarrow  # noqa: F401
        import scipy  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise InputError(f"{EXTRA} ({error.name} is missing)") from error
    from .pages.bundle import check_report

    check_report(config.report)
    with output_folder(config, alone=True) as folder:
        _evaluate_in(folder, config)


def _evaluate_in(folder: Path, config: DictConfig) -> None:
    # Here, not above: --help and a typo should not wait for torch.
    from .display.console import plain_console

    console, options = plain_console(), _options(config)
    if config.preset is None and config.preset_data is None:
        _run(console, _job(options, folder), folder)
    else:
        _paper(console, options, config, folder)


def _job(options: EvaluateOptions, folder: Path) -> EvaluateJob | TaskJob:
    from .evaluation.job import EvaluateJob
    from .evaluation.tasks.job import TaskJob

    return (EvaluateJob if options.tasks is None else TaskJob)(options, folder)


def _run(console: Console, job: EvaluateJob | TaskJob, folder: Path) -> list[KeptTask]:
    """Score and write all of a job; what was kept of its tasks."""
    from .display.console import print_facts
    from .embedding.preflight import memory_fact
    from .evaluation.facts import facts
    from .evaluation.job import EvaluateJob
    from .evaluation.output import write_outputs
    from .evaluation.tasks.analyses import check_analyses
    from .evaluation.tasks.facts import facts as task_facts
    from .evaluation.tasks.output import write_task_outputs
    from .pages.page import say_page

    if job.folder.resumes(job.manifest):
        console.print(f"resuming in {folder}", soft_wrap=True)
    said = facts(job) if isinstance(job, EvaluateJob) else task_facts(job)
    print_facts(console, said.items())
    if job.runs_models:
        memory = memory_fact(job.placement, job.offload, has_levels=False)
        print_facts(console, [("memory", memory)])
    if not isinstance(job, EvaluateJob):
        check_analyses(job)
    job.prepare()
    kept = []
    if isinstance(job, EvaluateJob):
        advice = write_outputs(job, _score(job), folder)
    else:
        kept = _score(job)
        advice = write_task_outputs(job, kept, folder)
        _analyse(job, folder, console)
    for sentence in advice:
        console.print(sentence, soft_wrap=True)
    console.print(f"tables and pictures: {folder}/summary.md", soft_wrap=True)
    console.print(f"all numbers: {folder}/results.parquet", soft_wrap=True)
    say_page(console.print, folder, job.options.report)
    return kept


def _paper(console: Console, options: EvaluateOptions, config: DictConfig, folder: Path) -> None:
    """The paper's evaluation: a run on assays, one on tasks, and a table of both."""
    from .evaluation.job import EvaluateJob
    from .evaluation.paper import of_assays, of_tasks, plan
    from .evaluation.report.published import PAPER_SUMMARY, write_paper

    chosen = is_given("representations")
    found = plan(options, config.preset, config.preset_data, representations_given=chosen)
    for part in found.absent:
        console.print(part, soft_wrap=True)
    # All are made before one is run: hours later is too late to hear of a broken file.
    jobs = {name: _job(own, folder / name) for name, own in found.runs.items()}
    yours: list[Yours] = []
    family = ""
    for name in found.runs:
        job, own = jobs.pop(name), folder / name  # its models go with it
        kept, family = _run(console, job, own), job.family.name
        is_of_assays = isinstance(job, EvaluateJob)
        yours += of_assays(job, own) if is_of_assays else of_tasks(job, kept, own)
    write_paper(folder, yours, family=family, absent=found.absent, runs=list(found.runs))
    console.print(f"beside the paper's figures: {folder}/{PAPER_SUMMARY}", soft_wrap=True)


def _options(config: DictConfig) -> EvaluateOptions:
    from .evaluation.options import (
        Columns,
        EvaluateOptions,
        FeatureOptions,
        NonlinearOptions,
        TrainingSetOptions,
    )

    names = {option.name for option in fields(EvaluateOptions)}
    given = {k: v for k, v in plain(config).items() if k in names}
    for key, kind in {
        "columns": Columns,
        "training_set": TrainingSetOptions,
        "nonlinear": NonlinearOptions,
        "sae": FeatureOptions,
    }.items():
        given[key] = kind(**given[key])
    return EvaluateOptions(**given)


def _score(job: EvaluateJob | TaskJob) -> list[Any]:
    """What each assay or task came to, with a bar each for residues and for fits."""
    from .display.console import residue_progress
    from .evaluation.job import EvaluateJob
    from .runtime.stopping import stop_if_told

    def advance(bar: Any, number: int = 1) -> None:
        stop_if_told()
        progress.advance(bar, number)

    one: Any = job  # each kind of job takes its own kind of subject
    with residue_progress() as progress:
        found = []
        for subject in job.assays if isinstance(job, EvaluateJob) else job.tasks:
            if one.done(subject):
                found.append(one.score(subject))
                continue
            name, residues = _short(subject.name), one.num_residues(subject)
            embedding = progress.add_task(f"{name} embedding", total=residues, visible=residues > 0)
            fits = progress.add_task(f"{name} probes", total=one.num_fits(subject), unit="fits")
            found.append(
                one.score(
                    subject,
                    on_residues=lambda number, bar=embedding: advance(bar, number),
                    on_fit=lambda number=1, bar=fits: advance(bar, number),
                )
            )
    return found


def _analyse(job: TaskJob, folder: Path, console: Console) -> None:
    """What the directions mean, where it was asked for."""
    from .display.console import residue_progress
    from .evaluation.tasks.analyses import (
        num_energy_residues,
        num_sae_rows,
        run_energy,
        run_sae,
    )
    from .runtime.stopping import stop_if_told

    with residue_progress() as progress:

        def told(name: str, total: int, unit: str) -> Callable[[int], None]:
            bar = progress.add_task(name, total=total, unit=unit)

            def advance(number: int) -> None:
                stop_if_told()
                progress.advance(bar, number)

            return advance

        if job.options.energy:
            run_energy(job, folder, told("energy", num_energy_residues(job), "residues"))
        if job.options.sae.enabled:
            run_sae(job, folder, told("autoencoders", num_sae_rows(job), "rows"))
    if job.options.energy:
        console.print(f"what each level adds: {folder}/energy.png", soft_wrap=True)
    if job.options.sae.enabled:
        console.print(f"what the directions mean: {folder}/sae/sae.md", soft_wrap=True)


def _short(name: str) -> str:
    """Both ends: ProteinGym's names differ in either."""
    return name if len(name) <= 24 else f"{name[:10]}…{name[-13:]}"


if __name__ == "__main__":
    main()
