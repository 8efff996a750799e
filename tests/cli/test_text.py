"""Any name of a file is read as it is typed."""

import os
import sys
from pathlib import Path

import pytest

from rd_lightning.cli.aliases import canonical
from rd_lightning.cli.command import output_folder, run_command
from rd_lightning.cli.text import LISTS, PATHS, as_text, quoted, unquoted
from rd_lightning.errors import InputError

ODD = [
    *("x.fasta", "2024_05_01", "42", "1e5", "true", "null.fasta", "inf", "蛋白.fasta", "my=file"),
    *("uniprot (1).fasta", "a,b", "x[1]", "{a}", "a:b", "C:\\data\\x", "\\", 'say "x"', "it's"),
    *('a\\"b', "#x", "%x", "a b", " a", "-", "-x", "é", "$HOME", "x${y", "*?", "choice(a,b)"),
    *("a\nb", "!x", "@", "[x].fasta", "'a", "a'", '"', "~user~", "glob(*)"),
]


def read(command: str, *arguments: str) -> dict:
    """What a job would be given."""
    import hydra

    from rd_lightning.cli.overrides import config_folder

    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        return hydra.compose(command, overrides=canonical(command, arguments))


@pytest.mark.parametrize("name", ODD)
def test_a_path_is_read_as_it_is_typed(name):
    config = read("embed", f"out={name}", f"fasta={name}")
    assert (config.out, config.fasta) == (name, name)
    (written,) = canonical("fit", [f"fasta={name}"])
    assert canonical("fit", [written]) == [written]


def test_a_home_folder_an_interpolation_and_a_file_that_looks_like_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert read("fit", "fasta=~/x (1)").data.fasta == f"{tmp_path}/x (1)"
    assert read("fit", 'fasta="~/x"').data.fasta == f"{tmp_path}/x"
    assert read("fit", "out=run-${target}-é", "level=35M").out == "run-35M-é"
    Path("${target}").touch()
    assert read("fit", "fasta=${target}").data.fasta == "${target}"


def test_what_users_quoted_already_is_the_same():
    for written, text in (('"a b"', "a b"), ("'a,b'", "a,b"), (r'"a\"b"', 'a"b')):
        assert canonical("fit", [f"out={written}"]) == [f"out={written}"]
        assert read("fit", f"out={written}").out == text


def test_lists_are_of_brackets_or_commas(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in ("a (1),b[2]", "[a (1),b[2]]", """["a (1)", 'b[2]']"""):
        assert list(read("evaluate", f"assays={given}").assays) == ["a (1)", "b[2]"]
    assert read("evaluate", "assays=a.csv").assays == "a.csv"
    Path("a,b").touch()
    assert read("evaluate", "assays=a,b").assays == "a,b"
    assert list(read("merge", "states=[42,true]").states) == ["42", "true"]


def test_a_comma_sweeps_where_it_is_asked_to():
    given = ["-m", "fasta=a (1),2024_05_01", "out=choice(a,b)"]
    assert canonical("fit", given) == ["-m", 'data.fasta="a (1)","2024_05_01"', "out=choice(a,b)"]
    given = ["--multirun", "assays=[a,b],c"]
    assert canonical("evaluate", given) == ["--multirun", "assays=[a,b],c"]


@pytest.mark.parametrize("command", PATHS)
@pytest.mark.parametrize("value", ["", "  ", "null"])
def test_no_value_is_one_line(command, value):
    for key in PATHS[command]:
        if value == "null" and (key != "out" or command in ("embed", "search")):
            assert as_text(command, key, value) == "null"
            continue
        with pytest.raises(InputError, match=rf"\A{key}=[^\n]*leave {key} out\Z"):
            as_text(command, key, value)
    assert set(LISTS) <= {key for keys in PATHS.values() for key in keys}


def test_a_folder_that_hydra_cannot_have_is_one_line():
    with pytest.raises(InputError, match=r"\Aout=x\$\{y: the name of an output folder cannot"):
        canonical("fit", ["out=x${y"])


def test_other_settings_are_hydras():
    assert as_text("fit", "keep", "[32,64]") == "[32,64]"
    assert as_text("evaluate", "columns.score", "score (1)") == '"score (1)"'
    assert as_text("evaluate", "columns.score", "1") == '"1"'


@pytest.mark.parametrize("text", ["", "a", "\\", "\\\\", '"', '\\"', 'a\\\\"b\\', "C:\\"])
def test_quoting_has_an_inverse(text):
    assert unquoted(quoted(text)) == text


def test_an_odd_folder_is_made_as_it_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["rd-fit"])
    names = ["2024_05_01", "x[1]", "a,b", "uniprot (1)", "蛋白", "true", "a=b"]

    def job(config):
        with output_folder(config) as folder:
            (folder / "made").touch()

    job.__module__ = __name__
    for name in names:
        run_command("fit", job, [f"out={name}"])
    assert sorted(os.listdir()) == sorted(names)
    assert all(Path(name, "made").exists() for name in names)
