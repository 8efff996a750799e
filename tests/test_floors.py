"""The house's plan: which package stands on which, who may import what, how large a file is."""

import ast
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import rd_lightning

PACKAGE = Path(rd_lightning.__file__).parent
TESTS = Path(__file__).parent
FLOORS = [
    {"errors"},
    {"runtime", "data"},
    {"display", "families", "formats"},
    {"head", "cli"},
    {"distillation", "embedding"},
    {"fitting", "export", "metrics"},
    {"evaluation"},
    {"fit", "merge", "embed", "evaluate", "__main__"},
]
DOORS = FLOORS[-1]
MAY_IMPORT = {
    "lightning": {
        "runtime.ddp",
        "display.progress_bar",
        "embedding.model",
        "fitting.module",
        "fitting.datamodule",
        "fitting.checkpoint",
        "evaluation.probes.network",
        "evaluation.sae.module",
        "fitting.preflight",
        "cli.trainer",
    },
    "hydra": {"cli", *DOORS},
    "omegaconf": {"cli", *DOORS},
    "rich": {"display", "cli", *DOORS},
    "matplotlib": {"display", "evaluation.report"},
}
"""Packages or files that may import a library when they are imported themselves."""
LONGEST, SHORTEST, MOST_IN_ROOT = 330, 30, 7
WHOLE_PROJECT = {
    "test_commands_fuzz",
    "test_compatibility",
    "test_docs",
    "test_doctests",
    "test_examples",
    "test_families",
    "test_floors",
    "test_notebooks",
    "test_pack_wheels",
    "test_public",
    "test_torture",
}
"""Tests of no single file."""


def module_name(path: Path) -> str:
    """The dotted name below rd_lightning; of a package, that of its __init__."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(p): p for p in PACKAGE.rglob("*.py") if not {"mini", "conf"} & set(p.parts)}
FILES.pop("__init__")


def imports(path: Path) -> set[str]:
    """Files of the package that a file imports anywhere, by the names of :func:`module_name`."""
    room = path.relative_to(PACKAGE).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = (*room[: len(room) - node.level + 1], *(node.module or "").split("."))
            name = ".".join(part for part in base if part)
            inside = {f"{name}.{alias.name}" for alias in node.names}
            found |= (inside & FILES.keys()) or {name}
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [getattr(node, "module", None)] + [alias.name for alias in node.names]
            assert not any((n or "").startswith("rd_lightning") for n in names), path
    return found


def libraries(path: Path) -> set[str]:
    """Top-level packages that are imported as the file is, not inside of a function and not for
    type checkers alone."""
    found: set[str] = set()

    def visit(nodes: list[ast.stmt]) -> None:
        for node in nodes:
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.split(".")[0])
            elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                continue
            elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                visit([n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt)])

    visit(ast.parse(path.read_text()).body)
    return found


def test_every_file_is_in_a_package_of_a_floor():
    assert {name.split(".")[0] for name in FILES} == set().union(*FLOORS)


def test_packages_import_lower_floors_only():
    floor_of = {package: i for i, packages in enumerate(FLOORS) for package in packages}
    wrong = []
    for name, path in FILES.items():
        mine = name.split(".")[0]
        for other in imports(path):
            theirs = other.split(".")[0]
            if theirs != mine and floor_of[theirs] >= floor_of[mine]:
                wrong.append(f"{name} imports {other}")
    assert not wrong, "\n".join(sorted(wrong))


def test_no_files_import_each_other_in_a_circle():
    TopologicalSorter({name: imports(path) for name, path in FILES.items()}).prepare()


@pytest.mark.parametrize("library", MAY_IMPORT)
def test_libraries_are_imported_where_they_belong(library):
    allowed = MAY_IMPORT[library]
    wrong = [
        name
        for name, path in FILES.items()
        if library in libraries(path)
        and not any(name == place or name.startswith(f"{place}.") for place in allowed)
    ]
    assert not wrong, f"{library} is imported by {', '.join(sorted(wrong))}"


def test_files_are_neither_slivers_nor_monsters():
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_IN_ROOT
    wrong = []
    for name, path in FILES.items():
        lines = len(path.read_text().splitlines())
        face = path.name == "__init__.py" or name == "errors"
        if lines > LONGEST or (lines < SHORTEST and not face):
            wrong.append(f"{name}: {lines} lines")
    assert not wrong, "\n".join(wrong)


def test_tests_stand_where_their_source_does():
    """tests/a/test_b.py, or test_b_topic.py, is of rd_lightning/a/b.py."""
    known = defaultdict(set)
    for name, path in FILES.items():
        folder = path.parent.relative_to(PACKAGE)
        known[folder].add(name.rsplit(".", 1)[-1])
    for path in TESTS.rglob("test_*.py"):
        folder = path.parent.relative_to(TESTS)
        if folder.parts[:1] == ("benchmarks",) or path.stem in WHOLE_PROJECT:
            continue
        stem = path.stem.removeprefix("test_")
        assert any(stem == n or stem.startswith(f"{n}_") for n in known[folder]), path


OF_TENSORS = {"families/builtin.py", "families/esm2_hub.py", "formats/read_folders.py"}


def test_no_pickle_is_loaded():
    """torch.load stands where ESM-2's published files and fair-esm's embeddings are read, with
    weights_only=True; numpy never loads pickles."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & {"pickle", "joblib", "dill"}, path
            if not isinstance(node, ast.Call):
                continue
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            called = ast.unparse(node.func)
            assert options.get("allow_pickle", "False") == "False", path
            if called == "torch.load":
                assert path.relative_to(PACKAGE).as_posix() in OF_TENSORS
                assert options["weights_only"] == "True"
            if called in ("np.load", "numpy.load"):
                assert options["allow_pickle"] == "False", path
