"""Facts and tables on terminals of several widths; a user's text as it stands."""

import io
from pathlib import Path

import pytest

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
    for terminal in (True, False):
        console = plain_console()
        console.file, console.width, console._force_terminal = io.StringIO(), 120, terminal
        with residue_progress(console) as progress:
            task = progress.add_task("P1_[x]:B:", total=10, completed=5)
            progress.update(task, completed=10)
        assert "P1_[x]:B:" in console.file.getvalue()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(steps) -> list[str]:
    """What a log holds of (seconds, residues) steps of a task of 1,000."""
    console, clock = plain_console(), Clock()
    console.file = io.StringIO()
    with residue_progress(console) as progress:
        progress.get_time = clock
        task = progress.add_task("streaming", total=1000)
        for seconds, residues in steps:
            clock.now += seconds
            progress.advance(task, residues)
    return console.file.getvalue().splitlines()


def test_a_log_gets_lines_every_5_percent_but_not_more_than_one_in_ten_seconds():
    slow = lines([(20, 10)] * 100)  # 1% every 20 seconds
    assert len(slow) == 20
    assert slow[0].startswith("streaming: 5%, 50 of 1,000 residues")
    assert slow[0].endswith("left")
    assert slow[-1].startswith("streaming: 100%, 1,000 of 1,000 residues, 0.5 residues/s")
    quick = lines([(0.5, 10)] * 100)  # in 50 seconds
    assert [line.split(",")[0] for line in quick] == [
        f"streaming: {share}%" for share in (20, 40, 60, 80, 100)
    ]


def test_a_log_of_a_very_long_run_gets_a_line_every_five_minutes():
    found = lines([(60, 1)] * 20)  # 0.1% a minute
    assert len(found) == 4
    assert found[0].startswith("streaming: 0%, 5 of 1,000 residues")


def test_a_log_of_nothing_is_empty():
    assert lines([]) == []
