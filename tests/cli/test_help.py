"""--help and --version: every setting is explained, in lines that fit, at once."""

import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version

import pytest

from rd_lightning.cli.aliases import ALIASES
from rd_lightning.cli.help import help_text, read_config, summary, version_line
from rd_lightning.cli.overrides import config_folder

from ..conftest import clean_environment

COMMANDS = tuple(ALIASES)
FILES = sorted(config_folder().rglob("*.yaml"))


def written(path):
    """Dotted keys by the YAML library's reading, but for what is Hydra's."""
    import yaml

    def flat(values, prefix=""):
        for key, value in values.items():
            if not key.startswith("_"):
                yield prefix + key
                yield from flat(value, f"{prefix}{key}.") if isinstance(value, dict) else ()

    found = yaml.safe_load(path.read_text())
    return list(flat({k: v for k, v in found.items() if k not in ("defaults", "hydra")}))


@pytest.mark.parametrize("path", FILES, ids=[f"{p.parent.name}/{p.stem}" for p in FILES])
def test_every_key_of_conf_has_its_meaning_above_it(path):
    config = read_config(path)
    keys = [k for k in config.settings if not k.rsplit(".", 1)[-1].startswith("_")]
    assert keys == written(path)
    assert config.about
    for key in keys:
        assert config.settings[key][1], key


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("width", [40, 80, 100, 300])
def test_all_settings_and_choices_in_lines_that_fit(command, width):
    text = help_text(command, width=width)
    config = read_config(config_folder() / f"{command}.yaml")
    for key, (value, _) in config.settings.items():
        if value:
            assert f"  {key}=" in text, key
    for group in config.groups:
        for path in (config_folder() / group).glob("*.yaml"):
            for key, (value, _) in read_config(path).settings.items():
                if value and not key.rsplit(".", 1)[-1].startswith("_"):
                    assert f"  {group}.{key}=" in text, key
    assert max(map(len, text.splitlines())) <= min(max(width, 80), 120)
    assert text.startswith(f"rd-{command}: ")
    for word in ("conf/", "_target_", "${", "$CONFIG"):
        assert word not in text


def test_the_choice_on_the_command_line_is_shown():
    assert "trainer.precision=32-true" in help_text("fit")
    for device in ("trainer=gpu", "device=cuda"):
        assert "trainer.precision=mixed" in help_text("fit", [device, "--help"])
    assert "regression.ridge=1.0" in help_text("fit", ["-m", "regression=ridge,pcr"])


def test_other_spellings_are_named():
    text = " ".join(help_text("fit").split())
    assert "level=... for target, device=cpu|cuda|cuda:1|mps for trainer" in text
    assert "Data (data. may be left out):" in text


def in_a_process(code: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env=clean_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("word", ["--help", "-h", "--version"])
def test_they_are_there_at_once(command, word):
    """Without torch, Lightning and Hydra, which take longer than the rest."""
    code = (
        f"import sys; from rd_lightning.{command} import main; main();"
        "print(sorted({'torch', 'lightning', 'hydra', 'numpy', 'rich'} & set(sys.modules)))"
    )
    said, loaded = in_a_process(code, "out=x", word).rstrip().rsplit("\n", 1)
    assert loaded == "[]"
    expected = version_line(command) if word == "--version" else help_text(command, width=100)
    assert said == expected


def test_a_reader_that_has_enough_is_no_error():
    code = (
        "import os, sys; from rd_lightning.fit import main; r, w = os.pipe(); os.close(r);"
        "os.dup2(w, 1); main()"
    )
    assert in_a_process(code, "--help") == ""


def test_the_version_is_ours(monkeypatch):
    assert version_line("fit") == f"rd-fit {version('rd-lightning')}"

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    assert "rd-lightning is not installed" in version_line("fit")


def test_hydras_own_views_stay():
    run = "from rd_lightning.fit import main; main()"
    assert "target: 200K" in in_a_process(run, "--cfg", "job", "level=200K")
    assert "Hydra" in in_a_process(run, "--hydra-help")


def test_an_installed_package_has_it_too(tmp_path):
    """Where conf/ lies inside of the package, as in a wheel."""
    package = config_folder().parent / "rd_lightning"
    with zipfile.ZipFile(tmp_path / "wheel.zip", "w") as wheel:
        for folder, inside in ((package, "rd_lightning"), (config_folder(), "rd_lightning/conf")):
            for path in (*folder.rglob("*.py"), *folder.rglob("*.yaml")):
                wheel.write(path, f"{inside}/{path.relative_to(folder)}")
    with zipfile.ZipFile(tmp_path / "wheel.zip") as wheel:
        wheel.extractall(tmp_path / "site")
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r});"
    code += "import rd_lightning.embed as e; assert 'site' in e.__file__; e.main()"
    assert in_a_process(code, "--help").rstrip() == help_text("embed", width=100)


def test_a_summary_is_a_line():
    assert summary("embed") == "from a FASTA file to nested embeddings."
