"""The wheels for a machine without a network are all that the package needs."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "pack_wheels.sh"

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="the scripts are in the sources")


def names(text: str) -> set[str]:
    return {re.split(r"[<>=\[]", word.strip('"'))[0] for word in text.split()}


def test_every_requirement_is_packed_or_named():
    project = (ROOT / "pyproject.toml").read_text()
    required = re.search(r"^dependencies = \[\n(.*?)^\]", project, re.M | re.S)
    assert required is not None
    lines = [line for line in required[1].splitlines() if "python_version <" not in line]
    needed = set(re.findall(r'^    "([\w-]+)', "\n".join(lines), re.M))
    arrays = dict(re.findall(r"^(there|pure|compiled)=\(([^)]*)\)", SCRIPT.read_text(), re.M))
    listed = set().union(*map(names, arrays.values()))
    assert len(needed) > 12 and needed <= listed


def test_without_a_folder_it_says_how():
    done = subprocess.run([SCRIPT], capture_output=True, text=True)
    assert done.returncode == 1
    assert "name the folder for the wheels: scripts/pack_wheels.sh FOLDER" in done.stderr
