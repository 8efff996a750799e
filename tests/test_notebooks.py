"""The notebooks: what is committed is whole, and they still run.

python -m tests.test_notebooks          runs them all and writes their outputs
python -m tests.test_notebooks 02 04    only these
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MACHINE = re.compile(r"(?<![\w.])/(work|tmp|root|home|Users|private|var)/")
"""The beginning of a path that only the machine of the run has."""
TIMEOUT = 900
"""Seconds a cell may take; a whole notebook takes less than 60 on two idle cores."""


def _notebook(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _texts(output: dict[str, Any]) -> list[str]:
    """What a reader sees of an output, pictures aside: their base64 may spell anything."""
    data = {k: v for k, v in output.get("data", {}).items() if not k.startswith("image/")}
    parts = [output.get("text", ""), *data.values()]
    return [part if isinstance(part, str) else "".join(part) for part in parts]


def test_there_are_notebooks_and_each_is_listed():
    listed = re.findall(r"\((\w+\.ipynb)\)", (FOLDER / "README.md").read_text())
    assert listed == [path.name for path in NOTEBOOKS] != []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_as_it_ran(path):
    notebook = _notebook(path)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    for output in outputs:
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", output
        for text in _texts(output):
            assert not MACHINE.search(text), text
    assert not any("execution" in cell["metadata"] for cell in notebook["cells"])  # times of a run
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}


def _run(path: Path) -> Any:
    """The notebook, run in its folder by this interpreter; a cell that fails raises."""
    nbclient = pytest.importorskip("nbclient", reason='needs pip install ".[notebooks]"')
    pytest.importorskip("ipykernel", reason='needs pip install ".[notebooks]"')
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    scripts = Path(sys.executable).parent  # rd-fit and its like stand beside this interpreter
    client.execute(env={**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"})
    return notebook


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path):
    before = sorted(path.parent.iterdir())
    _run(path)
    assert sorted(path.parent.iterdir()) == before


def _refresh(path: Path) -> None:
    import nbformat

    notebook = _run(path)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for path in NOTEBOOKS:
        if not sys.argv[1:] or path.name.split("_")[0] in sys.argv[1:]:
            print(path.name)
            _refresh(path)
