"""Damaged assays: what is read is an assay that keeps its promises, or it is one line."""

import csv
import io
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rd_lightning.evaluation.assays.assay import read_assay
from rd_lightning.evaluation.assays.tables import read_reference

from ...mutations import damaged, fuzzed, read_content

ROWS = b"""mutant,mutated_sequence,DMS_score,DMS_score_bin,fold_random_5
M1A,AKTAYIAKQR,0.5,1,0
K2C,MCTAYIAKQR,-1.25,0,1
T3D:A4E,MKDEYIAKQR,2e-3,1,2
Q9F,MKTAYIAKFR,0.75,1,3
R10W,MKTAYIAKQW,1.5,0,4
"""
REFERENCE = b"""DMS_id,UniProt_ID,coarse_selection_type
x,P1_HUMAN,Activity
y,P2_YEAST,Binding
"""
CELLS = st.one_of(
    st.sampled_from(["", "NA", "nan", "inf", "-inf", "1e999", "0x1", "M1M", "M0A", "A99999C", "*"]),
    st.text(max_size=12),
)


def check(path: Path) -> None:
    assay = read_assay(path)
    assert len(assay) == len(assay.sequences) == len(assay.scores)
    assert np.isfinite(assay.scores).all() and len(set(assay.scores.tolist())) > 1
    assert all(len(fold) == len(assay) for fold in assay.folds.values())
    if assay.mutants is not None:
        assert assay.wild_type and assay.positions is not None
        assert all(1 <= p <= len(assay.wild_type) for row in assay.positions for p in row)


@fuzzed
@given(content=damaged(ROWS))
def test_damaged_bytes(tmp_path, content):
    read_content(tmp_path / "x.csv", content, check)


@fuzzed
@given(cells=st.dictionaries(st.tuples(st.integers(0, 5), st.integers(0, 4)), CELLS, max_size=4))
def test_foreign_cells(tmp_path, cells):
    table = [line.split(",") for line in ROWS.decode().splitlines()]
    for (row, column), text in cells.items():
        table[row][column] = text
    written = io.StringIO()
    csv.writer(written).writerows(table)
    read_content(tmp_path / "x.csv", written.getvalue().encode(), check)


@fuzzed
@given(content=damaged(REFERENCE))
def test_a_damaged_reference(tmp_path, content):
    read_content(tmp_path / "reference.csv", content, read_reference)
