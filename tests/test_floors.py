"""Imports go down only (a floor never imports from its own or a higher one)."""

import ast
from pathlib import Path

import rd_lightning

PACKAGE = Path(rd_lightning.__file__).parent
ROOMS = ("assays", "probes", "representations", "nonlinear", "report")
FLOORS = [
    {"errors", "precision", "distributed", "strategy", "report", "provenance", "esm2", "linalg"},
    {"rows", "progress", "formats.base", "hub", "card"},
    {"fasta", "storage", "deal", "official", "regression", "tables", "command"},
    {"store", "tokens", "moments", "head", "plots", "solvable"},
    {"sharing", "dealt", "families", "plan", "solve", "formats"},
    {"formats.hdf5", "formats.fair_esm", "formats.parquet", "formats.npy"},
    {"backbone", "batch", "state", "estimate", "nonfinite", "hugging_face"},
    {"data", "embedding", "resume", "solve_state", "outputs"},
    {"inference", "inference.unique", "inference.plan", "inference.streams", "inference.device"},
    {"inference.batch"},
    {"inference.pooling", "inference.data"},
    {"inference.datamodule", "inference.spool", "inference.topup"},
    {"module", "nested"},
    {"checkpoint", "preflight", "model", "export", "inference.recorder", "inference.preflight"},
    {"progress_bar", "inference.job", "inference.callback"},
    {"build", "inference.assemble", "inference.alone"},
    {"inference.under_trainer"},
    {"evaluation", *(f"evaluation.{room}" for room in ROOMS)},
    {"evaluation.assays.table", "evaluation.assays.mutants"},
    {"evaluation.assays.reference"},
    {"evaluation.assays.assay"},
    {"evaluation.assays.folds"},
    {"evaluation.assays.schemes", "evaluation.probes.scaling", "evaluation.probes.one_hot"},
    {"evaluation.probes.ridge", "evaluation.probes.mlp", "evaluation.probes.neighbours"},
    {"evaluation.report.metrics", "evaluation.report.markdown", "evaluation.report.pictures"},
    {"evaluation.report.statistics"},
    {"evaluation.report.predictions"},
    {"evaluation.report.contrasts", "evaluation.report.advice"},
    {"evaluation.report.summary"},
    {"evaluation.representations.maps", "evaluation.representations.embeddings"},
    {"evaluation.representations.builders", "evaluation.representations.training_set"},
    {"evaluation.representations.fitted"},
    {"evaluation.nonlinear.extended"},
    {"evaluation.nonlinear.features", "evaluation.nonlinear.standardised"},
    {"evaluation.nonlinear.feature_pass", "evaluation.nonlinear.fit"},
    {"evaluation.nonlinear.run"},
    {"evaluation.scoring"},
    {"evaluation.job"},
    {"evaluation.facts"},
    {"evaluation.outputs"},
    {"fit", "merge", "embed", "evaluate"},
]


def module_name(path: Path) -> str:
    """The dotted name below rd_lightning; of a room, that of its __init__."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, by the names of :func:`module_name`."""
    room = path.relative_to(PACKAGE).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = room[: len(room) - node.level + 1]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {".".join((*base, name)) for name in names}
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [getattr(node, "module", None)] + [alias.name for alias in node.names]
            assert not any((n or "").startswith("rd_lightning") for n in names), path
    return found


FILES = {module_name(p): p for p in PACKAGE.rglob("*.py") if p.parent.name != "mini"}
FILES.pop("__init__")


def test_every_file_stands_on_a_floor():
    assert set(FILES) == set().union(*FLOORS)


def test_imports_only_go_down():
    for floor, names in enumerate(FLOORS):
        below = set().union(*FLOORS[:floor]) if floor else set()
        for name in names:
            wrong = imports(FILES[name]) - below
            assert not wrong, f"{name} imports {sorted(wrong)}"


def test_files_are_small():
    for path in PACKAGE.rglob("*.py"):
        lines = len(path.read_text().splitlines())
        assert lines <= 400, f"{path.name} has {lines} lines: does it hold two ideas?"


def test_no_pickle_is_loaded():
    """torch.load stands once, with weights_only=True, in families; numpy never loads pickles."""
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
                assert path.name == "families.py"
                assert options["weights_only"] == "True"
            if called in ("np.load", "numpy.load"):
                assert options["allow_pickle"] == "False", path
