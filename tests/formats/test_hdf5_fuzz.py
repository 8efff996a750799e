"""Damaged embedding files: what is read, or one line."""

from pathlib import Path

from hypothesis import given

from rd_lightning.formats.hdf5 import EmbeddingFile

from ..mutations import damaged, fuzzed, read_content, result_or_input_error

WHOLE = (Path(__file__).parents[1] / "artefacts" / "emb.h5").read_bytes()


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
    read_content(tmp_path / "x.h5", content, read_all)


def test_what_a_damaged_file_says(tmp_path):
    path = tmp_path / "x.h5"
    message = read_content(path, WHOLE[: len(WHOLE) // 2], read_all)
    assert message is not None and "not an embedding file of rd-embed" in message
    assert read_content(path, WHOLE, read_all) is None
    message = result_or_input_error(lambda: EmbeddingFile(path).vectors("mean", "nobody"))
    assert message == f"{path}: no mean vectors of nobody"
