"""Damaged embedding files: what is read, or one line."""

from pathlib import Path

from hypothesis import given

from rd_lightning.embedding.formats.hdf5 import EmbeddingFile

from ...mutations import damaged, fuzzed, result_or_input_error

WHOLE = (Path(__file__).parents[2] / "artefacts" / "emb.h5").read_bytes()


def read_all(path: Path) -> None:
    file = EmbeddingFile(path)
    try:
        assert file.digests.dtype.kind == "u"
        for name in file.ids[:5]:
            for pooling in file.metadata["poolings"]:
                file.vectors(pooling, name)
    finally:
        file.close()


@fuzzed
@given(content=damaged(WHOLE))
def test_a_damaged_file_is_read_or_refused(tmp_path, content):
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    message = result_or_input_error(lambda: read_all(path))
    assert message is None or str(path) in message


def test_what_a_damaged_file_says(tmp_path):
    path = tmp_path / "x.h5"
    path.write_bytes(WHOLE[: len(WHOLE) // 2])
    assert "not an embedding file of rd-embed" in (
        result_or_input_error(lambda: read_all(path)) or ""
    )
    path.write_bytes(WHOLE)
    assert result_or_input_error(lambda: read_all(path)) is None
    message = result_or_input_error(lambda: EmbeddingFile(path).vectors("mean", "nobody"))
    assert message == f"{path}: no mean vectors of nobody"
