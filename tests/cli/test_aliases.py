"""Both spellings of a setting, in a table and end to end."""

import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from rd_lightning import JointMoments, RDHead, fit_chain
from rd_lightning.cli.aliases import ALIASES, canonical
from rd_lightning.cli.help import read_config
from rd_lightning.cli.overrides import config_folder, misspelt_override
from rd_lightning.embed import main as embed_main
from rd_lightning.errors import InputError
from rd_lightning.families import sample_fasta
from rd_lightning.fit import main as fit_main
from rd_lightning.merge import main as merge_main

from ..conftest import clean_environment, family_rows


@pytest.mark.parametrize(
    ("command", "given", "expected"),
    [
        ("fit", ["fasta=x.fasta", "level=650M"], ["data.fasta=x.fasta", "target=650M"]),
        ("fit", ["data.fasta=x", "target=650M"], ["data.fasta=x", "target=650M"]),
        ("fit", ["fasta='a = b.fasta'"], ["data.fasta='a = b.fasta'"]),
        ("fit", ["fasta=a\nb"], ['data.fasta="a\nb"']),
        ("fit", ["+level=35M", "++level=35M"], ["+target=35M", "++target=35M"]),
        ("fit", ["~seed", "~seed=0"], ["~data.seed", "~data.seed=0"]),
        ("fit", ["-m", "level=200K,800K"], ["-m", "target=200K,800K"]),
        ("fit", ["--cfg", "job", "seed=1"], ["--cfg", "job", "data.seed=1"]),
        ("fit", ["precision=bf16-mixed"], ["trainer.precision=bf16-mixed"]),
        ("fit", ["device=cpu"], ["trainer=cpu"]),
        ("fit", ["device=cuda"], ["trainer=gpu"]),
        ("fit", ["device=cuda:1"], ["trainer=gpu", "trainer.devices=[1]"]),
        ("fit", ["-m", "device=cpu,cuda"], ["-m", "trainer=cpu,gpu"]),
        ("fit", ["weights=DIR"], ["family.weights=DIR"]),
        ("fit", ["fasta=x", "data.fasta='x'"], ["data.fasta=x"]),
        ("fit", ["level=a", "level=b"], ["target=a", "target=b"]),
        ("fit", ["hydra.run.dir=x", "hydra/launcher=y"], ["hydra.run.dir=x", "hydra/launcher=y"]),
        ("embed", ["data.fasta=x", "target=35M"], ["fasta=x", "level=35M"]),
        ("embed", ["device=cuda:0"], ["trainer=gpu", "trainer.devices=[0]"]),
        ("embed", ["device=mps"], ["trainer=mps"]),
        ("evaluate", ["trainer=mps", "trainer.precision=mixed"], ["device=mps", "precision=mixed"]),
        ("merge", ["state=a", "level=x"], ["states=a", "level=x"]),
        ("merge", ["a/b.safetensors"], ["a/b.safetensors"]),
        ("evaluate", ["trainer=gpu", "weights=DIR"], ["device=cuda", "family.weights=DIR"]),
        ("evaluate", ["device=cuda:1"], ["device=cuda:1"]),
        ("search", ["trainer=gpu", "target=8M"], ["device=cuda", "level=8M"]),
        ("search", ["index=a b", "query=[x]"], ['index="a b"', 'query="[x]"']),
        ("evaluate", ["data=a b"], ['preset_data="a b"']),  # data is a group of conf/
    ],
)
def test_the_command_line_in_the_configurations_words(command, given, expected):
    assert canonical(command, given) == expected
    assert canonical(command, expected) == expected  # as a process reads it that DDP starts


@pytest.mark.parametrize(
    ("command", "given", "words"),
    [
        ("fit", ["fasta=x", "data.fasta=y"], "fasta=x and data.fasta=y are two values for one"),
        ("fit", ["target=35M", "level=8M"], "target=35M and level=8M are two values"),
        ("fit", ["device=cpu", "trainer=ddp"], "device=cpu and trainer=ddp are two values"),
        ("fit", ["device=cuda:1", "trainer.devices=2"], "device=cuda:1 and trainer.devices=2"),
        (
            "embed",
            ["device=tpu"],
            "device is cpu, cuda, cuda:1 for the second GPU, or mps, not 'tpu'",
        ),
        ("embed", ["device=cuda:0,cuda:1"], "trainer=gpu trainer.devices=[0],[1]"),
        ("evaluate", ["trainer=ddp"], "one device: device=cpu, device=cuda, device=cuda:1 or"),
        ("evaluate", ["trainer=cpu", "device=cuda"], "trainer=cpu and device=cuda are two values"),
    ],
)
def test_what_cannot_be_meant_is_one_line(command, given, words):
    with pytest.raises(InputError, match=r"\A[^\n]*\Z") as caught:
        canonical(command, given)
    assert words in str(caught.value)


@pytest.mark.parametrize("command", ALIASES)
def test_an_alias_is_of_a_setting_and_is_none_itself(command):
    config = read_config(config_folder() / f"{command}.yaml")
    keys = set(config.settings) | set(config.groups)
    for group in config.groups:
        for path in (config_folder() / group).glob("*.yaml"):
            keys |= {f"{group}.{key}" for key in read_config(path).settings}
    for alias, key in ALIASES[command].items():
        assert key in keys
        assert alias not in keys


def test_every_setting_of_the_data_has_a_short_spelling():
    settings = read_config(config_folder() / "data" / "fasta.yaml").settings
    assert {f"data.{key}" for key in settings} <= set(ALIASES["fit"].values())


def test_a_typo_is_led_to_either_spelling_but_to_one_of_them():
    assert misspelt_override("fit", ["level=200K", "fasta=x", "device=cpu"]) is None
    assert "did you mean level" in misspelt_override("fit", ["lvel=200K"])
    assert "did you mean fasta" in misspelt_override("fit", ["fastaa=x"])
    assert "data.fasta " not in misspelt_override("fit", ["fastaa=x"])
    assert "'rd-fit --help' lists all keys" in misspelt_override("fit", ["zzzzz=1"])
    assert "+trainer.max_time=1" in misspelt_override("fit", ["trainer.max_time=1"])


def test_a_value_with_signs_of_hydras_is_told_how_to_be_quoted():
    problem = misspelt_override("fit", ["level=a[b]"])
    assert """'target="a[b]"'""" in problem
    assert misspelt_override("fit", ['target="a[b]"']) is None
    assert misspelt_override("fit", ["fasta=a[b].fasta"]) is None


FIT = ("fasta=x.fasta", "level=200K", "heldout=0.2", "max_residues=400", "precision=32-true")


@pytest.fixture
def inside(tmp_path, monkeypatch) -> Path:
    records = sample_fasta().read_text().split(">")[:15]
    (tmp_path / "x.fasta").write_text(">".join(records))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    return tmp_path


def test_a_fit_a_merge_and_an_embedding_in_other_words(inside, capsys):
    sys.argv = ["rd-fit", *FIT, "device=cpu", "out=one"]
    fit_main()
    assert "1 x cpu, 32-true" in capsys.readouterr().out
    sys.argv = ["rd-merge", "state=one/moments.safetensors", "out=merged"]
    merge_main()
    assert RDHead.from_pretrained("merged/head").names == ("50K", "200K")
    short = ("data.fasta=x.fasta", "data.max_residues=100", "data.long=truncate")
    sys.argv = ["rd-embed", "head=merged/head", *short, "target=50K", "device=cpu", "out=e.h5"]
    embed_main()
    with h5py.File("e.h5") as file:
        assert {len(vector) for vector in file["per-protein"].values()} == {32}


@pytest.mark.slow
def test_a_fit_on_two_processes_in_other_words(inside):
    """Lightning starts the second process with the command line that Hydra read."""
    done = subprocess.run(
        [sys.executable, "-m", "rd_lightning.fit", *FIT, "trainer=ddp_cpu", "out=two"],
        capture_output=True,
        text=True,
        env=clean_environment(),
        cwd=inside,
    )
    assert done.returncode == 0, done.stderr
    assert "2 x cpu, 32-true" in done.stdout


def test_an_evaluation_in_other_words(tmp_path):
    moments = JointMoments((32, 64)).update(family_rows(300, (32, 64), 0))
    fit_chain(moments, names=("50K", "200K")).save_pretrained(tmp_path / "fit" / "head")
    done = subprocess.run(
        [sys.executable, "-m", "rd_lightning.evaluate", "trainer=cpu", "fit=fit", "--cfg", "job"],
        capture_output=True,
        text=True,
        env=clean_environment(),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "device: cpu" in done.stdout
