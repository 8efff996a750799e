"""Mutation testing: do the tests notice when a line of the mathematics or the bookkeeping is wrong?

    python scripts/mutation_test.py --per-file 15                a sample of 15 mutants a file
    python scripts/mutation_test.py --only distillation/solve.py  all mutants of one file

Each mutant is a copy of the package in which one operator, comparison, constant or statement is
another. It is killed if its file's tests fail, or run for too long. Messages of errors, assertions,
annotations and docstrings are not mutated. The survivors are listed: a test is missing, the mutant
computes the same, or only a test that starts processes notices, which are left out.
"""

from __future__ import annotations

import argparse
import ast
import copy
import gc
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGETS = {
    "distillation/moments.py": ["tests/distillation/test_moments*.py"],
    "distillation/shift.py": ["tests/distillation/test_shift*", "tests/distillation/test_mo*"],
    "distillation/linalg.py": ["tests/distillation/test_linalg.py", "tests/distillation/test_so*"],
    "distillation/regression.py": [
        "tests/distillation/test_regression.py",
        "tests/distillation/test_solve.py",
    ],
    "distillation/solve.py": ["tests/distillation/test_solve*.py"],
    "head/head.py": [
        "tests/head/test_head*.py",
        "tests/head/test_model_card.py",
        "tests/distillation/test_solve_level_widths.py",
    ],
    "fitting/plan.py": ["tests/fitting/test_plan*.py"],
    "fitting/state.py": ["tests/fitting/test_state.py"],
    "data/sharding.py": ["tests/data/test_sharding.py"],
    "data/windows.py": ["tests/data/test_windows*", "tests/*/test_plan.py"],
}
"""File of the package: the tests that are to notice."""
SLOW_PARTS = "not two_processes and not the_process and not command and not top_up"
"""Tests that start processes or run commands are left out: they take longer than all the others."""
PRELOADED = (
    "hypothesis",
    "lightning.pytorch",
    "matplotlib.pyplot",
    "pytest",
    "scipy.stats",
    "sklearn.linear_model",
    "tests.conftest",
    "rd_lightning.fit",
    "rd_lightning.merge",
    "rd_lightning.embed",
)
_COMPARE = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """(line, what is other, mutated source) of every mutant of a file."""
    tree = ast.parse(source)
    for number, node in enumerate(_sites(tree)):
        for change in _changes(node):
            mutated = copy.deepcopy(tree)
            other = list(_sites(mutated))[number]
            before = ast.unparse(other)
            change(other)
            after = ast.unparse(other)
            if after != before:
                line = getattr(node, "lineno", 0)
                yield line, f"{_short(before)}  ->  {_short(after)}", ast.unparse(mutated)


def _sites(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that can be mutated, in the order of the file."""
    for name, value in ast.iter_fields(tree):
        of_types = isinstance(tree, ast.AnnAssign) and name != "value"
        if of_types or name in ("annotation", "returns", "decorator_list"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if not isinstance(node, ast.AST) or isinstance(node, (ast.Raise, ast.Assert)):
                continue
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue  # a docstring
            if isinstance(node, (ast.JoinedStr, ast.ImportFrom, ast.Import)):
                continue
            yield node
            yield from _sites(node)


def _changes(node: ast.AST) -> Iterator:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARE:
        yield lambda n: n.ops.__setitem__(0, _COMPARE[type(n.ops[0])]())
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in _ARITHMETIC:
        yield lambda n: setattr(n, "op", _ARITHMETIC[type(n.op)]())
    elif isinstance(node, ast.BoolOp):
        yield lambda n: setattr(n, "op", ast.Or() if isinstance(n.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield lambda n: setattr(n, "op", ast.UAdd())
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield lambda n: setattr(n, "value", not n.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield lambda n: setattr(n, "value", n.value + 1)
    elif isinstance(node, (ast.If, ast.IfExp)):
        yield lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield lambda n: setattr(n, "value", ast.Constant(None))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 70 else text[:67] + "..."


def preload(folder: Path) -> None:
    """What takes seconds to import, once; a mutant's process is a fork of this one."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ |= {"PYTHONPATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    for name in PRELOADED:
        importlib.import_module(name)


def dependents(package: Path, name: str) -> set[str]:
    """The module of that file, all that import it, directly or not, and the tests."""
    importers: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = [*parts[: -node.level], *(node.module or "").split(".")]
                for last in ("", *(alias.name for alias in node.names)):
                    imported = ".".join(part for part in (*base, last) if part)
                    importers.setdefault(imported, set()).add(_dotted(parts))
    found, new = set(), {_dotted((package.name, *Path(name).with_suffix("").parts))}
    while new:
        found |= new
        new = {m for module in new for m in importers.get(module, ())} - found
    return found | {module for module in sys.modules if module.split(".")[0] == "tests"}


def _dotted(parts: Sequence[str]) -> str:
    return ".".join(parts).removesuffix(".__init__")


def killed(folder: Path, patterns: list[str], forgotten: set[str], seconds: float) -> str | None:
    """What noticed: "failed", or "time"; None if the tests pass. The modules to forget are imported
    anew."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        gc.disable()  # collections touch, and so copy, all memory of the parent
        for module in forgotten & sys.modules.keys():
            del sys.modules[module]
            package, _, last = module.rpartition(".")
            if package in sys.modules:  # whose attribute it is too
                vars(sys.modules[package]).pop(last, None)
        # Beartype knows types by their names, which those imported anew share with the old ones.
        importlib.import_module("beartype._cache.cacheclear").clear_caches()
        import pytest

        files = [str(p) for pattern in patterns for p in sorted(folder.glob(pattern))]
        options = ["-x", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "-k", SLOW_PARTS]
        os._exit(int(pytest.main([*options, *files])))
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return None if os.waitstatus_to_exitcode(status) == 0 else "failed"
        time.sleep(0.05)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "time"


def _write(path: Path, source: str) -> None:
    """Two mutants may be equal in size and second, by which Python knows compiled files."""
    path.write_text(source)
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--per-file", type=int, help="a random sample of so many; all by default")
    parser.add_argument("--only", choices=TARGETS, nargs="*", default=list(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", type=Path, help="an earlier output: only what survived there")
    options = parser.parse_args()
    made = noticed = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("rd_lightning", "conf", "tests"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", folder)
        preload(folder)
        for name in options.only:
            path = folder / "rd_lightning" / name
            source, forgotten = path.read_text(), dependents(folder / "rd_lightning", name)
            started = time.monotonic()
            if killed(folder, TARGETS[name], forgotten, 600):
                sys.exit(f"{name}: its tests fail as it is")
            limit = 10 + 4 * (time.monotonic() - started)
            every = list(mutants(source))
            chosen = every
            if options.per_file is not None and options.per_file < len(every):
                chosen = random.Random(f"{options.seed} {name}").sample(every, options.per_file)
            if options.again:
                lines = options.again.read_text().splitlines()
                chosen = [m for m in every if f"{name}:{m[0]}: survived: {m[1]}" in lines]
            ends = {None: 0, "failed": 0, "time": 0}
            for line, what, text in sorted(chosen, key=lambda m: m[0]):
                _write(path, text)
                how = killed(folder, TARGETS[name], forgotten, limit)
                ends[how] += 1
                if how != "failed":
                    print(f"{name}:{line}: {how or 'survived'}: {what}", flush=True)
            _write(path, source)
            print(
                f"{name}: {len(chosen)} of {len(every)} mutants, {ends['failed']} killed by a "
                f"failing test, {ends['time']} by time, {ends[None]} survived",
                flush=True,
            )
            made, noticed = made + len(chosen), noticed + len(chosen) - ends[None]
    print(f"{made} mutants, {noticed} killed, {made - noticed} survived (seed {options.seed})")


if __name__ == "__main__":
    main()
