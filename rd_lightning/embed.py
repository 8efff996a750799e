"""rd-embed: a FASTA file in, or files of raw embeddings; nested embeddings out."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from .cli.command import (
    given_keys,
    is_given,
    is_main_process,
    plain,
    quiet_libraries,
    run_command,
)
from .errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from .display.console import Console
    from .embedding.job import EmbedJob, EmbedOptions
    from .embedding.map_page import MapOptions
    from .embedding.records import OutputPart
    from .embedding.runner import RunAlone, RunUnderTrainer


_OTHER_INPUTS = {"from", "columns"}
_OF_SEQUENCES = {
    *("fasta", "topup", "max_residues", "long", "overlap", "on_nucleotides", "ids"),
    *("tokens_per_batch", "store", "num_workers", "assemble", "family"),
}
"""Settings that mean nothing where the embeddings are in files."""


def main() -> None:
    """The command."""
    run_command("embed", embed, resumes=True)


def embed(config: DictConfig) -> None:
    """Plan, say what will be done, embed what is not done yet, write."""
    # Here, not above: torch takes a second and Lightning three; --help and a typo should not.
    from .display.console import plain_console, print_facts
    from .embedding.job import EmbedJob
    from .embedding.output import assemble, check_whole, list_skipped
    from .embedding.preflight import embed_facts
    from .runtime.owner import owned_file
    from .runtime.precision import faster_precision

    if config.embeddings is not None:
        return _from_files(config, plain_console())
    if config["from"] is not None:
        return _convert(plain_console(), config)
    if config.columns is not None:
        raise InputError("columns is of another tool's file, which from= names")
    console, part = plain_console(), _part(config.assemble)
    drawing = _drawing(config, is_part=part is not None and not part.is_whole)
    job = EmbedJob(_options(config), part)
    _take_scales_of_moments(job)
    if part is not None:
        _assemble_alone(console, job, preflight=config.preflight)
        return None if config.preflight else _draw(console, job.target, drawing)
    with ExitStack() as stack:
        run = _run(job, config, stack)
        job.make_data(run.device_type)
        faster = faster_precision(run.device_type, run.precision)

        def first() -> None:
            if not config.preflight:
                stack.enter_context(owned_file(job.out))
            job.refuse_used()

        def facts() -> None:
            print_facts(console, [*embed_facts(job, run.shown, run.placement), *faster])

        if is_main_process() or not config.preflight:
            run.scan(first, facts, preflight=config.preflight)
        if config.preflight:
            return
        model = run.make_model()
        started = time.perf_counter()
        metadata: dict[str, Any] = {}

        def prepare() -> None:
            metadata.update(job.metadata(model, run.root_device, run.precision))
            if job.prepare_spool(metadata):
                console.print("resuming an earlier run")

        run.prepare(prepare)
        run(model)
        if not run.is_main:
            return
        pace = (model.num_pieces, time.perf_counter() - started)
        if config.assemble:
            assemble(job, metadata)
            list_skipped(job)
        else:
            check_whole(job)
    _say_what_was_done(console, job, *pace)
    if config.assemble:
        _say_where(console, job)
        _draw(console, job.target, drawing)
    else:
        console.print(f"vectors: {job.spool_folder}", soft_wrap=True)
        console.print("write the output of them with assemble=only and the same settings")


def _from_files(config: DictConfig, console: Console) -> None:
    """A head on embeddings that are there already; settings that would say nothing are refused."""
    from .embedding.from_files import FilesJob
    from .embedding.runner import one_device

    if not _OTHER_INPUTS.isdisjoint(given_keys()):
        raise InputError("embeddings and from= are two inputs; leave one of them out")
    for key in given_keys():
        if key.split(".")[0] in _OF_SEQUENCES:
            raise InputError(
                f"{key} is of sequences or models, and embeddings names files of embeddings, "
                "which need neither; leave one of them out"
            )
    drawing = _drawing(config, is_part=False)
    device = one_device(config.trainer)
    if device is None:
        raise InputError("embeddings: one process on one device; use device=cpu or device=cuda")
    job = FilesJob(_options(config), plain(config)["embeddings"], device.device)
    job.run(console, preflight=config.preflight)
    if not config.preflight:
        _draw(console, job.output.path, drawing)


def _drawing(config: DictConfig, *, is_part: bool) -> MapOptions:
    """What is asked of a map, checked before hours of work."""
    from .embedding.map_page import MapOptions

    names = {option.name for option in fields(MapOptions)}
    options = MapOptions(**{k: v for k, v in plain(config).items() if k in names})
    if options.map is not None and (is_part or config.assemble is False):
        raise InputError("map= is of a whole output; leave it out with assemble=false or i/n")
    return options


def _draw(
    console: Console,
    source: str | os.PathLike,
    drawing: MapOptions,
    columns: Sequence[str] | None = None,
) -> None:
    """The map, once the output is there: whatever goes wrong now, that is kept."""
    from .embedding.map_page import write_map

    if drawing.map is not None:
        path = write_map(source, drawing, columns)
        console.print(f"to look at in a browser: {path}", soft_wrap=True)


def _assemble_alone(console: Console, job: EmbedJob, *, preflight: bool) -> None:
    """From the vectors of an earlier run to the output: no model is loaded."""
    from .display.console import print_facts
    from .embedding.output import assemble, list_skipped
    from .embedding.preflight import embed_facts
    from .runtime.owner import owned_file

    if job.part.is_whole and not is_main_process():
        raise InputError("assemble=only is one process; start it once: srun --ntasks=1")
    with nullcontext() if preflight else owned_file(job.target):
        job.refuse_used()
        job.make_data("cpu").scan()
        metadata = job.metadata_of_spool()
        print_facts(console, embed_facts(job, "none: the vectors are there"))
        if preflight:
            return
        assemble(job, metadata)
        list_skipped(job)
    _say_what_was_done(console, job)
    _say_where(console, job)


def _take_scales_of_moments(job: EmbedJob) -> None:
    """The scales of its codes, where moments are named for them; no vector is needed."""
    kind, path = job.codes.kind, job.codes.moments
    if kind is None or path is None:
        return
    from .distillation.moments import JointMoments
    from .distillation.scale import column_moments
    from .formats.codec import Codec

    head = job.head.truncate(job.levels[-1])
    statistics = column_moments(head, JointMoments.load(path))
    job.codes.take({"residue": Codec.of_columns(kind, *statistics)})


_OF_CONVERSIONS = (
    *("from", "columns", "out", "format", "layout"),
    *("level", "width", "pooling", "scales", "ids"),
)


def _convert(console: Console, config: DictConfig) -> None:
    """From an embedding file to another: no model is loaded."""
    from .display.console import print_facts
    from .embedding.convert import ConvertOptions, convert
    from .runtime.owner import owned_file

    settings = plain(config)
    drawing = _drawing(config, is_part=False)
    of_map = {option.name for option in fields(drawing)}
    known, about = {*_OF_CONVERSIONS, "dtype", "preflight", *of_map}, "converts an embedding file"
    map_alone = drawing.map is not None and config.out is None
    if map_alone:
        known, about = (
            {"from", "columns", "preflight", *of_map},
            "with map= and without out= draws a file",
        )
    if other := [key for key in given_keys() if key.split(".")[0] not in known]:
        raise InputError(
            f"{other[0]} has no meaning with from=, which {about}; it takes "
            f"{', '.join(sorted(known))}"
        )
    if not is_main_process():
        raise InputError("from= is one process; start it once: srun --ntasks=1")
    if map_alone:
        source, columns = settings["from"], settings["columns"]
        return None if config.preflight else _draw(console, source, drawing, columns)
    # Where they are not given, those of the source.
    chosen = {key: settings[key] if is_given(key) else None for key in ("pooling", "dtype", "ids")}
    names = [key for key in _OF_CONVERSIONS if key not in ("from", "pooling", "ids")]
    options = ConvertOptions(
        source=settings["from"], **{key: settings[key] for key in names}, **chosen
    )
    conversion = convert(options)
    with conversion.reader, ExitStack() as stack:
        if not config.preflight:
            stack.enter_context(owned_file(conversion.output.path))
        print_facts(console, conversion.facts())
        if config.preflight:
            return
        conversion.run()
    console.print(f"{conversion.description.num_records:,} records written")
    console.print(f"embeddings: {conversion.output.path}", soft_wrap=True)
    _draw(console, conversion.output.path, drawing)


def _part(assemble: object) -> OutputPart | None:
    """Of the output that is to be written from the vectors of an earlier run; None where this run
    computes them."""
    from .data.sharding import parse_part
    from .embedding.records import OutputPart

    if assemble is True or assemble is False:
        return None
    if assemble == "only":
        return OutputPart()
    try:
        return OutputPart(*parse_part(str(assemble)))
    except InputError as error:
        raise InputError(
            f"assemble is true, false, only, or i/n such as 2/4, not {assemble!r}"
        ) from error


def _say_where(console: Console, job: EmbedJob) -> None:
    from .embedding.output import skipped_list

    if job.part.index == 1 and (path := skipped_list(job)).exists():
        console.print(f"skipped records: {path}", soft_wrap=True)
    console.print(f"embeddings: {job.target}", soft_wrap=True)


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


def _say_what_was_done(
    console: Console, job: EmbedJob, num_pieces: int = 0, seconds: float | None = None
) -> None:
    """``seconds`` that the models took, where they ran."""
    from .embedding.preflight import long_fact

    data, scan = job.data, job.data.store.summary
    description = job.description()
    records, kinds = description.num_records, len(description.lengths)
    residues = int(data.residues_by_batch().sum())
    console.print(
        f"{records:,} records embedded, {kinds:,} distinct sequences and {records - kinds:,} copies"
    )
    left_out = scan.num_skipped + scan.num_sequences - int(job.kept[data.unique.of].sum())
    if left_out and job.part.index == 1:  # of several parts, the first tells of the whole file
        console.print(f"{left_out:,} records skipped")
    if data.plan.long.any() and job.part.index == 1:
        console.print(f"long sequences: {long_fact(data)}")
    if num_pieces:
        console.print(f"{num_pieces:,} batches were divided for lack of memory")
    if residues and seconds is not None:
        rate = f"{residues / seconds:,.0f}"
        console.print(f"{residues:,} residues in {seconds:.1f} s ({rate} residues/s)")


if __name__ == "__main__":
    main()
