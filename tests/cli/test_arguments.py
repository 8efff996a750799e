"""Words that are no settings: one line with the right form."""

import pytest

from rd_lightning.cli.arguments import config_folders, split_verbosity, split_words
from rd_lightning.cli.overrides import misspelt_override


@pytest.mark.parametrize(
    ("command", "given", "words"),
    [
        ("fit", ["x.fasta"], "x.fasta has no key; a setting is key=value: fasta=x.fasta"),
        ("embed", ["level=a", "x.fa.gz"], "fasta=x.fa.gz"),
        ("embed", ["run"], "head=run, or fasta=run"),
        ("evaluate", ["x.csv"], "assays=x.csv, or fit=x.csv"),
        ("fit", ["what"], "what has no key; a setting is key=value; 'rd-fit --help' lists them"),
        ("fit", ["preflight"], "preflight has no value; a setting is key=value, without spaces"),
        ("fit", ["fasta", "=", "x"], "fasta has no value"),
        ("fit", ["--fasta", "x"], "--fasta is no flag; a setting has no dashes: fasta=x"),
        ("fit", ["--fasta=x"], "a setting has no dashes: fasta=x"),
        ("fit", ["--max-residues", "100"], "no dashes: max_residues=100"),
        ("fit", ["--preflight"], "no dashes: preflight=..."),
        ("fit", ["-z"], "no flag -z; 'rd-fit --help' lists the settings, key=value, and flags"),
        ("merge", ["--out", "x"], "no dashes: out=x"),
    ],
)
def test_the_right_form_in_one_line(command, given, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    said = misspelt_override(command, given)
    assert said is not None
    assert words in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["--cfg", "job", "fasta=x"],
        ["-c", "hydra", "-p", "data"],
        ["-m", "regression=pcr,ols"],
        ["--info", "--resolve"],
        ["--config-dir=/x"],
    ],
)
def test_hydras_flags_are_known(given):
    assert misspelt_override("fit", given) is None


def test_files_are_told_from_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my=run").mkdir()
    given = ["a", "--cfg", "job", "out=x", "my=run/", "./my=run", "+a=b", "~c", "/no=file"]
    files, others = split_words(given)
    assert files == ["a", "my=run/", "./my=run"]
    assert others == ["--cfg", "job", "out=x", "+a=b", "~c", "/no=file"]


def test_flags_of_ours():
    assert split_verbosity(["-q", "a=b"]) == (["a=b"], True, False)
    assert split_verbosity(["a=b", "--verbose"]) == (["a=b"], False, True)
    assert config_folders(["-cd", "x", "--config-dir=y", "z"]) == ["x", "y"]


def test_choices_of_a_folder_of_ones_own(tmp_path):
    (tmp_path / "family").mkdir()
    (tmp_path / "family" / "mine.yaml").write_text("name: mine\nweights: null\nextra: 1\n")
    flags = ["--config-dir", str(tmp_path)]
    assert misspelt_override("fit", [*flags, "family=mine", "family.extra=2"]) is None
    assert "no family 'mine'; there are ankh" in misspelt_override("fit", ["family=mine"])
