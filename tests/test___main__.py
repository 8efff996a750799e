import subprocess
import sys
from importlib.metadata import version

import pytest

from rd_lightning.__main__ import COMMANDS, overview

from .conftest import clean_environment


def test_python_m_names_the_commands_and_versions():
    done = subprocess.run(
        [sys.executable, "-m", "rd_lightning"],
        capture_output=True,
        text=True,
        env=clean_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip() == overview()


@pytest.mark.parametrize("package", ["torch", "lightning", "rd-lightning"])
def test_a_version_is_the_installed_one(package):
    assert f"{package} {version(package)}" in overview()


def test_all_commands_in_a_few_lines():
    lines = overview().splitlines()
    assert len(lines) < 12
    for command in COMMANDS:
        assert sum(line.startswith(f"  rd-{command} ") for line in lines) == 1
