"""The block of docs/search.md that hands an index to LanceDB, run as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest

from rd_lightning import JointMoments, fit_chain
from rd_lightning.embed import main as rd_embed
from rd_lightning.formats import open_vectors
from rd_lightning.retrieval import build_index, search

from ..conftest import family_rows, random_sequences, run_here

pytest.importorskip("lancedb", reason="needs pip install lancedb")
PAGE = Path(__file__).resolve().parents[2] / "docs/search.md"
DIMS = (32, 64, 128)


def test_the_documented_export(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    moments = JointMoments(DIMS).update(family_rows(600, DIMS, 0))
    head = fit_chain(moments, names=("50K", "200K", "800K"), context={"family": "mini"})
    head.save_pretrained("head")
    for name, number in (("emb", 60), ("q", 3)):
        sequences = random_sequences(number, number, longest=40)
        text = "".join(f">{name}{i}\n{s}\n" for i, s in enumerate(sequences))
        Path(f"{name}.fasta").write_text(text)
        words = ("head=head", f"fasta={name}.fasta", f"out={name}.h5")
        assert run_here(rd_embed, tmp_path, "rd-embed", *words)[0] == 0
    with open_vectors("emb.h5") as reader:
        index = build_index(reader, "index")
    with open_vectors("q.h5") as reader:
        expected = search(index, reader.vectors("mean", 0, 1), k=10, width=64)
    [block] = [
        b for b in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "lancedb" in b
    ]
    names: dict = {}
    exec(block, names)
    hits = names["hits"]
    assert hits["id"].tolist() == [index.ids[r] for r in expected.records[0].tolist()]
    # Its distance is 1 less the product, in float32.
    np.testing.assert_allclose(1 - hits["_distance"], expected.score[0], rtol=0, atol=64 * 2.0**-23)
