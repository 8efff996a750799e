"""``python -m benchmarks``: what it runs, and the page that it writes."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as everything
from benchmarks import agreement, record, results, state
from benchmarks.official import Fitted
from benchmarks.record import Ratio
from benchmarks.suite import SUITE
from rd_lightning import JointMoments, fit_chain
from rd_lightning.distillation.regression import pcr

from ..conftest import SEEDS, family_rows


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    return everything.main()


def test_it_runs_and_writes_a_page(tmp_path, monkeypatch, capfd):
    page = tmp_path / "R.md"
    assert run(monkeypatch, "--quick", "--only", "fit-35M", "gpu", "--out", str(page)) == 0
    printed, text = capfd.readouterr().out, page.read_text()
    assert "the figures mean nothing" in text
    for name in ("fit_from_embeddings --dims 32 48", "gpu"):
        assert f"python -m benchmarks.{name}" in text
    lines = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    assert len(lines) == 2 and all(line.strip() in printed for block in lines for line in [block])
    if "official       not run" not in text:
        assert text.count("| fit 32 → 48 from 500 rows of embeddings | reverse-distillation") == 2
    assert [p.name for p in tmp_path.iterdir()] == ["R.md"]


def test_a_benchmark_that_fails_is_on_the_page_and_in_the_exit_status(tmp_path, monkeypatch, capfd):
    broken = SUITE[0]._replace(module="no_such_module")
    monkeypatch.setattr(everything, "SUITE", [broken, broken._replace(module="nor_this")])
    assert run(monkeypatch, "--quick", "--out", str(tmp_path / "R.md")) == 1
    text = (tmp_path / "R.md").read_text()
    assert "**Failed with exit status 1.**" in text and "python -m benchmarks.nor_this" in text
    assert f"failed: {broken.title}" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "x"), "no benchmark is named x"),
        (("none.fasta",), "none.fasta: no such file"),
        (("--out", "nowhere/R.md"), "nowhere is not a folder"),
    ],
)
def test_bad_arguments(monkeypatch, capsys, arguments, words):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *arguments)
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


def test_every_benchmark_is_a_module_with_a_name_of_its_own():
    assert len({b.name for b in SUITE}) == len(SUITE)
    for benchmark in SUITE:
        module = importlib.import_module(f"benchmarks.{benchmark.module}")
        assert callable(module.main)
        assert "--pairs 5" in benchmark.arguments or not benchmark.records


def test_the_table_of_ratios():
    outcome = results.Outcome("t", ["x"], "", 0, [Ratio("a", "b", [3.0, 1.0, 2.0])])
    last = results.ratio_table([outcome]).splitlines()[-1]
    assert last == "| a | b | 3 | 2x | 1x | 3x |"
    assert results.ratio_table([]) == "No comparison was run."


def test_ratios_come_back(tmp_path):
    ratios = [Ratio("a → b", "c", [1.5, 2.0]), Ratio("d", "e", [0.5])]
    for ratio in ratios:
        record.write(tmp_path / "r.jsonl", ratio)
    assert record.read(tmp_path / "r.jsonl") == ratios
    assert record.read(tmp_path / "none") == []
    record.write(None, ratios[0])


@pytest.mark.parametrize("power", [1.0, 2.5])
def test_the_slope_of_a_power_law(power):
    numbers = [10, 100, 1000]
    assert state.slope(numbers, [3 * n**power for n in numbers]) == pytest.approx(power)


@pytest.mark.parametrize("num_rows", [1, 8192, 20_000])
def test_the_pool_of_rows_is_counted(num_rows):
    pool = state.make_pool([3, 5])
    assert state.accumulate(pool, num_rows).num_rows == num_rows


@pytest.mark.parametrize("seed", SEEDS)
def test_agreement_of_a_fit_with_itself(seed):
    """W* and V of our own solution, given as the official side's: no difference, the optimum."""
    blocks = family_rows(2000, [9, 14], seed)
    moments = JointMoments([9, 14]).update(blocks)
    head = fit_chain(moments, dtype=torch.float64)
    fit = agreement.split(moments.covariance, 9, 14)
    solution = pcr(fit, 2000, "marchenko_pastur")
    vectors = head.projection_1.mT
    m = solution.num_components
    theirs = Fitted(solution.coefficients.numpy(), vectors.numpy(), m)
    said = agreement.report(fit, fit, 2000, vectors, theirs)
    assert f"components     ours {m}, official {m}" in said
    assert "difference 0.0e+00" in said
    shares = re.search(r"ours (\S+), official (\S+), optimum (\S+)", said)
    assert shares and len(set(shares.groups())) == 1
    worse = Fitted(theirs.coefficients, torch.eye(14, dtype=torch.float64)[:, :5].numpy(), m)
    shares = re.search(
        r"official (0\S+), optimum (\S+)", agreement.report(fit, fit, 2000, vectors, worse)
    )
    assert shares and float(shares[1]) < float(shares[2])


def test_the_committed_results_are_whole():
    """Every benchmark of the suite, none failed, ratios of five pairs or more."""
    text = (Path(results.__file__).parent / "RESULTS.md").read_text()
    for benchmark in SUITE:
        assert f"\n## {benchmark.title}\n" in text
        assert f"python -m benchmarks.{benchmark.module}" in text
    assert "Failed" not in text and "mean nothing" not in text
    rows = [r.split(" | ") for r in text.splitlines() if re.match(r"\|.*x \|$", r)]
    assert len(rows) >= 13 and all(int(row[2]) >= 5 for row in rows)
