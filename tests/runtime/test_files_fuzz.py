"""Damaged JSON and safetensors files: what is read, or one line."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from rd_lightning.runtime.files import read_json, read_tensors, write_tensors

from ..mutations import damaged, fuzzed, result_or_input_error


@fuzzed
@given(content=damaged(b'{\n  "kind": "embeddings",\n  "dims": [32, 64],\n  "level": null\n}\n'))
def test_damaged_json(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    message = result_or_input_error(lambda: read_json(path, "make it again"))
    if message is None:
        assert isinstance(read_json(path, ""), dict)
    else:
        assert message.startswith(f"{path}: not JSON, or cut short") and "make it again" in message


@fuzzed
@given(data=st.data())
def test_damaged_safetensors(tmp_path, data):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.arange(6.0).view(2, 3)}, {"kind": "things", "n": 3})
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    message = result_or_input_error(lambda: read_tensors(path, "things"))
    assert message is None or str(path) in message
