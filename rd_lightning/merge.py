"""rd-merge: the moments of several fits added up and solved as one."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from .cli.arguments import split_words
from .cli.command import output_folder, plain, run_command
from .cli.text import quoted
from .errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """The command; files without a key are states."""
    files, others = split_words(sys.argv[1:])
    if files:
        others.append(f"states=[{','.join(map(quoted, files))}]")
    run_command("merge", merge, others)


def merge(config: DictConfig) -> None:
    """Add, solve, write."""
    from .pages.bundle import check_report

    check_report(config.report)
    with output_folder(config, alone=True) as folder:
        _merge_into(folder, config)


def _merge_into(folder: Path, config: DictConfig) -> None:
    from .display.console import plain_console
    from .fitting.output import MOMENTS, refuse_used, write_state
    from .fitting.state import FitState, solve_state
    from .fitting.summary import print_report
    from .pages.bundle import wants_page
    from .pages.page import say_page

    console = plain_console()
    paths = [config.states] if isinstance(config.states, str) else list(config.states or ())
    # Of a run's folder, the moments in it.
    paths = [os.path.join(path, MOMENTS) if os.path.isdir(path) else path for path in paths]
    if not paths:
        raise InputError("name the states: rd-merge a/moments.safetensors b/moments.safetensors")
    total = FitState.load(paths[0])
    if problem := total.unusable():
        raise InputError(f"{paths[0]}: {problem}")
    for path in paths[1:]:
        total.merge_(FitState.load(path), name=path)
    for (_, of), present in Counter((part.plan, part.of) for part in total.parts).items():
        if present < of:
            console.print(f"note: {present} part(s) of {of} merged; the others are not in")
    refuse_used(folder, total)
    chosen = {"solver": config.solver, "level_widths": config.keep, "scale": config.scale}
    options = {**chosen, **config.regression}
    head = solve_state(total, options)
    write_state(total, head, folder, plain(config), page=wants_page(config.report))
    print_report(console, head.report)
    console.print(f"{head.report.num_residues:,} residues of {len(paths)} state(s)")
    console.print(f"head, moments and report: {folder}", soft_wrap=True)
    say_page(console.print, folder, config.report)


if __name__ == "__main__":
    main()
