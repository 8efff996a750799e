"""Facts and tables on terminals of several widths; a user's text as it stands."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from rd_lightning.display.console import (
    plain_console,
    print_facts,
    print_table,
    residue_progress,
)

ODD = "[x] [bold]b[/bold] :B: :smile: \\[y]"
LONG = Path("/data/a folder with spaces/" + "long-name-of-a-folder/" * 8 + "[x]:B:.fasta")
WIDTHS = pytest.mark.parametrize("width", [80, 100, 120])


def printed(width: int, show) -> list[str]:
    console = plain_console()
    console.file, console.width = io.StringIO(), width
    show(console)
    return console.file.getvalue().splitlines()


@WIDTHS
def test_a_path_is_in_one_piece_and_prose_is_wrapped_at_spaces(width):
    prose = "windows that share 128 residues or more, averaged there; " * 4
    facts = [("input", LONG), ("long sequences", prose.strip()), ("device", "1 x cpu")]
    lines = printed(width, lambda console: print_facts(console, facts))
    assert lines[0] == f"input           {LONG}"
    assert lines[-1] == "device          1 x cpu"
    assert all(line.startswith(" " * 16) for line in lines[2:-1])
    assert max(map(len, lines[1:])) <= width
    assert " ".join(" ".join(lines[1:-1]).split()) == f"long sequences {prose.strip()}"


def test_a_path_within_a_sentence_is_not_cut():
    sentence = f"made of {'x' * 200}, on a CPU"
    lines = printed(80, lambda console: print_facts(console, [("what", sentence)]))
    assert any("x" * 200 in line for line in lines)


def test_long_names_leave_room_for_what_they_are_of():
    facts = [("A" * 60, "90 variants of 40 residues"), ("pooling", "mean")]
    lines = printed(80, lambda console: print_facts(console, facts))
    assert lines[0].startswith("A" * 60 + "  90")
    assert lines[-1] == "pooling" + " " * 21 + "mean"


def test_no_facts():
    assert printed(80, lambda console: print_facts(console, [])) == []


def test_a_users_text_is_neither_markup_nor_emoji():
    assert ODD in printed(80, lambda console: console.print(ODD, soft_wrap=True))
    assert printed(80, lambda console: print_facts(console, [(ODD, ODD)]))[0].count(ODD) == 2
    table = printed(150, lambda console: print_table(console, ODD, (ODD, "n"), [(ODD, "1")]))
    assert sum(ODD in line for line in table) == 3


def test_the_bars_description_too():
    console = Console(file=io.StringIO(), width=120)
    with residue_progress(console) as progress:
        progress.add_task("P1_[x]:B:", total=10, completed=5)
    assert "P1_[x]:B:" in console.file.getvalue()
