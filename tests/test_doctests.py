"""The examples in the docstrings of the public names run and print what they say."""

import doctest
import logging
from importlib import import_module

import pytest
import torch

import rd_lightning
from rd_lightning import export, families, metrics

PUBLIC = {
    name: getattr(package, name)
    for package in (rd_lightning, families, export, metrics)
    for name in package.__all__
}
WITHOUT = {"ESM2", "MINI", "Member", "load_esm2", "load_mini", "sample_fasta"}
"""Constants, and names that the examples of others show or that need downloads."""


def examples(name: str) -> list[doctest.DocTest]:
    found = PUBLIC[name]
    module = import_module(found.__module__)
    tests = doctest.DocTestFinder().find(found, name, module=module, globs={**vars(module)})
    return [test for test in tests if test.examples]


SLOW = {"to_onnx"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in sorted(PUBLIC.keys() - WITHOUT)
    ],
)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "disabled", True)
    torch.manual_seed(0)
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    tests = examples(name)
    assert tests, f"{name} has no example"
    for test in tests:
        said: list[str] = []
        runner.run(test, out=said.append)
        assert not runner.summarize(verbose=False).failed, "".join(said)
