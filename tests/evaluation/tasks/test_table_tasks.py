"""Tasks from CSV, TSV and Parquet."""

import gzip

import pandas as pd
import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.tasks.table_tasks import read_task_table

ROWS = ["sequence,target,set,validation", "MKV,1.5,train,", "GGA,2,train,True", "AAW,,test,"]


def fields(source) -> list[tuple]:
    return [entry[2:] for entry in source.entries]


def test_flip_tables_and_their_lines(write):
    path = write("x.csv", *ROWS)
    source = read_task_table(path)
    assert fields(source) == [
        ("MKV", "1.5", "train", "", None),
        ("GGA", "2", "train", "True", None),
        ("AAW", "", "test", "", None),
    ]
    assert [e.id for e in source.entries] == ["line_2", "line_3", "line_4"]
    assert source.entries[1].where == f"{path}: line 3"


def test_all_formats_read_alike(write, tmp_path):
    expected = fields(read_task_table(write("x.csv", *ROWS)))
    assert (
        fields(read_task_table(write("x.tsv", *(r.replace(",", "\t") for r in ROWS)))) == expected
    )
    with gzip.open(tmp_path / "y.csv.gz", "wt") as file:
        file.write("\n".join(ROWS))
    assert fields(read_task_table(tmp_path / "y.csv.gz")) == expected
    table = pd.read_csv(tmp_path / "x.csv", dtype={"target": object, "validation": object})
    table.to_parquet(tmp_path / "x.parquet")
    assert fields(read_task_table(tmp_path / "x.parquet")) == expected


def test_lists_of_parquet_are_values_of_residues(tmp_path):
    table = pd.DataFrame({"sequence": ["MK", "GG"], "target": [[0.5, 1.0], [float("nan"), 2.0]]})
    table.to_parquet(tmp_path / "x.parquet")
    assert [e.target for e in read_task_table(tmp_path / "x.parquet").entries] == [
        "0.5;1.0",
        "nan;2.0",
    ]


def test_columns_are_named(write):
    path = write("x.csv", "Id,seq,label,target,part", "p,MK,A,9,train", "q,GG,B,9,test")
    columns = {"sequence": "seq", "target": "label", "split": "part"}
    source = read_task_table(path, columns)
    assert [e[:5] for e in source.entries] == [
        ("p", f"{path}: line 2 (p)", "MK", "A", "train"),
        ("q", f"{path}: line 3 (q)", "GG", "B", "test"),
    ]


def test_what_is_wrong_is_said(write, tmp_path):
    def refused(said: str):
        return pytest.raises(InputError, match=said)

    with refused(r"a.csv: no column target \(there: sequence, y\); name the columns"):
        read_task_table(write("a.csv", "sequence,y", "MK,1"))
    with refused(r"b.csv: no column label \(there: sequence, target\); name the columns"):
        read_task_table(write("b.csv", "sequence,target", "MK,1"), {"target": "label"})
    with refused(r"b.csv: columns names sequence, target, .* of a table, not 'colour'"):
        read_task_table(write("b.csv", "sequence,target", "MK,1"), {"colour": "target"})
    with refused(r"c.csv: line 3: not an amino acid: '1' at position 1"):
        read_task_table(write("c.csv", "sequence,target", "MK,1", "1,1"))
    with refused(r"d.csv: line 3 \(p\): the id 'p' stands already at \S+ line 2"):
        read_task_table(write("d.csv", "id,sequence,target", "p,MK,1", "p,GG,1"))
    with refused("e.csv: a header and no rows; it must hold proteins"):
        read_task_table(write("e.csv", "sequence,target"))
    with refused("f.csv: the file is empty"):
        read_task_table(write("f.csv"))
    with refused("g.parquet: not a Parquet file"):
        read_task_table(write("g.parquet", "no"))
    with refused("h.parquet: no such file; give the path of a Parquet file"):
        read_task_table(tmp_path / "h.parquet")
    pd.DataFrame({"sequence": [], "target": []}).to_parquet(tmp_path / "i.parquet")
    with refused("i.parquet: no rows; it must hold proteins"):
        read_task_table(tmp_path / "i.parquet")
