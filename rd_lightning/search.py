"""rd-search: the nearest records of an index of embeddings, for sequences or embeddings."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import fields
from typing import TYPE_CHECKING

from .cli.command import is_main_process, plain, run_command
from .errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from .display.console import Console
    from .retrieval.job import SearchJob
    from .retrieval.options import SearchOptions


def main() -> None:
    """The command."""
    run_command("search", search, resumes=True)


def search(config: DictConfig) -> None:
    """Prepare the index if it is not there, say what will be done, search, write."""
    if not is_main_process():
        raise InputError("this command is one process; start it once: srun --ntasks=1")
    # Here, not above: torch takes a second; --help and a typo should not.
    from .display.console import plain_console
    from .retrieval.job import SearchJob
    from .runtime.owner import owned_file

    console = plain_console()
    with SearchJob(_options(config)) as job, ExitStack() as stack:
        if job.query_source is not None:
            if not config.preflight:
                stack.enter_context(owned_file(job.out))
            job.refuse_used()
        if not _prepare(console, job, preflight=config.preflight):
            return
        if job.query_source is None:
            console.print(f"index: {job.index.folder}", soft_wrap=True)
        else:
            _search(console, job, config)


def _prepare(console: Console, job: SearchJob, *, preflight: bool) -> bool:
    """The index, said and made; False after a preflight that ends here."""
    from .display.console import print_facts, residue_progress
    from .retrieval.facts import index_facts

    sequences = job.preparation.sequences
    if sequences is not None and not sequences.is_whole:
        print_facts(console, sequences.facts())
        if preflight:
            return False
        sequences.embed()
    if job.query_source is not None:
        _ = job.plan  # k, widths and levels, before a long preparation
    print_facts(console, index_facts(job))
    if job.preparation.ready is None and preflight:
        return False
    if job.preparation.ready is None:
        total = 2 * job.preparation.shape.num_records
        with residue_progress() as progress:
            task = progress.add_task("preparing the index", total=total, unit="records")
            job.open_index(lambda records: progress.advance(task, records))
        if sequences is not None:
            sequences.remove()
    else:
        job.open_index()
    return True


def _search(console: Console, job: SearchJob, config: DictConfig) -> None:
    from .display.console import print_facts, residue_progress
    from .pages.bundle import wants_page
    from .retrieval.facts import index_facts, search_facts
    from .retrieval.output import page_path
    from .retrieval.page import MOST_QUERIES, write_search_page
    from .retrieval.parts import Parts

    sequences = job.query_sequences
    if sequences is None:
        job.open_queries()
    elif not sequences.is_whole:
        print_facts(console, sequences.facts())
    facts = search_facts(job)
    print_facts(console, facts)
    if config.preflight:
        return
    # Not before: what is refused leaves nothing behind.
    if Parts.prepare(job.unfinished, job.manifest()):
        console.print("resuming an earlier search")
    if sequences is not None and not sequences.is_whole:
        sequences.embed()
    queries = job.open_queries()
    with residue_progress() as progress:
        faiss = None
        if job.options.backend == "faiss":
            total = job.index.num_records
            task = progress.add_task("FAISS index", total=total, unit="records")
            faiss = job.open_faiss(lambda records: progress.advance(task, records))
            progress.update(task, completed=total, visible=False)
        started = time.perf_counter()
        task = progress.add_task("searching", total=len(queries.ids), unit="queries")
        parts = job.run(faiss, lambda number: progress.advance(task, number))
        seconds = time.perf_counter() - started
    hits, number = sum(map(len, parts.results())), len(queries.ids)
    drawn = job.result(parts, MOST_QUERIES) if wants_page(config.report) else None
    job.finish(parts)
    rate = f"{number / max(seconds, 1e-9):,.0f}"
    console.print(f"{number:,} queries, {hits:,} hits in {seconds:.1f} s ({rate} queries/s)")
    if missing := number * job.plan.k - hits:
        console.print(
            f"FAISS found {missing:,} hits fewer than k; a larger faiss.effort finds more"
        )
    console.print(f"hits: {job.out}", soft_wrap=True)
    if drawn is not None:  # whatever goes wrong now, the table is there
        page, said = page_path(job.out), [*index_facts(job), *facts]
        write_search_page(page, job.index, drawn, said, plain(config), number)
        console.print(f"to look at in a browser: {page}", soft_wrap=True)


def _options(config: DictConfig) -> SearchOptions:
    from .retrieval.embed_fasta import FastaOptions
    from .retrieval.options import FaissOptions, SearchOptions

    given = plain(config)
    names = {option.name for option in fields(SearchOptions)}
    settings = {key: value for key, value in given.items() if key in names}
    of_sequences = {option.name for option in fields(FastaOptions)}
    settings["faiss"] = FaissOptions(**given["faiss"])
    settings["sequences"] = FastaOptions(**{k: v for k, v in given.items() if k in of_sequences})
    return SearchOptions(**settings)


if __name__ == "__main__":
    main()
