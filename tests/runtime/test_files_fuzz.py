"""Damaged JSON and safetensors files: what is read, or one line."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from rd_lightning.runtime.files import read_json, read_tensors, write_tensors

from ..mutations import damaged, fuzzed, read_content


@fuzzed
@given(content=damaged(b'{\n  "kind": "embeddings",\n  "dims": [32, 64],\n  "level": null\n}\n'))
def test_damaged_json(tmp_path, content):
    path = tmp_path / "x.json"
    message = read_content(path, content, lambda path: read_json(path, "make it again"))
    if message is None:
        assert isinstance(read_json(path, ""), dict)
    else:
        assert message.startswith(f"{path}: not JSON, or cut short") and "make it again" in message


@fuzzed
@given(data=st.data())
def test_damaged_safetensors(tmp_path, data):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.arange(6.0).view(2, 3)}, {"kind": "things", "n": 3})
    content = data.draw(damaged(path.read_bytes()))
    read_content(path, content, lambda path: read_tensors(path, "things"))
