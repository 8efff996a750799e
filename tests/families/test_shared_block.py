"""One copy of streamed layers for the processes of a machine: the same embeddings, bit for bit."""

import copy
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rd_lightning.errors import InputError
from rd_lightning.families import get_family
from rd_lightning.families import shared_block as module
from rd_lightning.families.backbone import Backbone, load_backbones
from rd_lightning.families.shared_block import (
    SharedBlocks,
    load_once_a_machine,
    mapped_blocks,
    private_block,
)
from rd_lightning.families.streamed import StreamedLayers
from rd_lightning.runtime import ddp

from .test_holding import batches, some_family  # noqa: F401  (a fixture)
from .test_streamed import embed


def layers_of(backbone: Any) -> StreamedLayers:
    (found,) = [
        each
        for part in backbone.model.modules()
        for each in vars(part).values()
        if isinstance(each, StreamedLayers)
    ]
    return found


@pytest.fixture
def blocks():
    made = SharedBlocks()
    yield made
    made.close()


def both(family, blocks, dtype=None) -> tuple[nn.ModuleDict, nn.ModuleDict]:
    """The members as the first process and as another one of the machine loads them."""
    names = [member.name for member in family.members]
    first = load_backbones(family, family.members, hold=dtype, streamed=blocks.makers(names))
    makers = mapped_blocks(blocks.place(), names)
    second = load_backbones(family, family.members, hold=dtype, streamed=makers)
    blocks.close()
    return first, second


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_embeddings_are_those_of_a_private_block(some_family, blocks, dtype):  # noqa: F811
    first, second = both(some_family, blocks, dtype)
    for one, other in zip(first.values(), second.values(), strict=True):
        member: Any = one.member
        alone = Backbone.load(some_family, member, hold=dtype, streamed=True)
        assert one.digest() == other.digest() == alone.digest()
        for tokens, padded in batches(0):
            expected = embed(alone, tokens, padded, dtype)
            for shared in (one, other, one):
                assert torch.equal(embed(shared, tokens, padded, dtype), expected)


def test_there_is_one_copy(some_family, blocks, monkeypatch):  # noqa: F811
    names = [member.name for member in some_family.members]
    first = load_backbones(some_family, some_family.members, streamed=blocks.makers(names))
    monkeypatch.setattr(module, "private_block", None)
    filled = []

    def spied(make):
        return lambda contents, fill: make(contents, filled.append)

    makers = {n: spied(make) for n, make in mapped_blocks(blocks.place(), names).items()}
    second = load_backbones(some_family, some_family.members, streamed=makers)
    assert not filled
    paths = [Path(path) for path in json.loads(blocks.place()).values()]
    assert len(paths) == len(names) and all(path.is_file() for path in paths)
    blocks.close()
    assert not any(path.parent.exists() for path in paths)
    for one, other in zip(first.values(), second.values(), strict=True):
        mine, theirs = layers_of(one)._block, layers_of(other)._block
        assert mine.data_ptr() != theirs.data_ptr() and mine.data_ptr() % 4096 == 0
        mine[-1, 0] = 17.5
        assert theirs[-1, 0] == 17.5


def test_a_copy_has_a_block_of_its_own(some_family, blocks):  # noqa: F811
    first, _ = both(some_family, blocks)
    (tokens, padded), *_ = batches(1)
    for backbone in first.values():
        expected = embed(backbone, tokens, padded, None)
        copied = copy.deepcopy(backbone)
        layers_of(backbone)._block.zero_()
        assert torch.equal(embed(copied, tokens, padded, None), expected)
        assert not torch.equal(embed(copy.deepcopy(backbone), tokens, padded, None), expected)
        if backbone.family.name == "mini":  # whose functions have names
            file = io.BytesIO()
            torch.save(layers_of(copied), file)
            file.seek(0)
            again = torch.load(file, weights_only=False)
            assert torch.equal(again._block, layers_of(copied)._block)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": "of another"}, "weights: "),
        ({"dtype": "float16"}, "dtype: float16 there, float32 here"),
        ({"layers": 3}, "layers: 3 there, 4 here"),
        ({"row": 1}, "row: 1 there, "),
        ({"shapes": "x"}, "shapes: x there, "),
        ({"member": "3B"}, "member: 3B there, 50K here"),
        (None, "it is damaged"),
        ([], "it is damaged"),
    ],
)
def test_a_block_of_something_else_is_refused(blocks, change, said):
    family = get_family("mini")
    member = family.members[0]
    load_backbones(family, (member,), streamed=blocks.makers([member.name]))
    (path,) = json.loads(blocks.place()).values()
    with open(path, "r+b") as file:
        header = json.loads(file.read(4096))
        text = b"{" if change is None else json.dumps(change and {**header, **change}).encode()
        file.seek(0)
        file.write(text.ljust(4096))
    refused(family, blocks, said)


@pytest.mark.parametrize("size", [0, 100, 4096, 5000, -1])
def test_a_block_that_is_cut_short_is_refused(blocks, size):
    family = get_family("mini")
    load_backbones(family, family.members[:1], streamed=blocks.makers(["50K"]))
    (path,) = json.loads(blocks.place()).values()
    with open(path, "r+b") as file:
        file.truncate(size if size >= 0 else Path(path).stat().st_size - 1)
    refused(family, blocks, "empty" if size == 0 else "damaged" if size == 100 else "bytes, not")


def test_a_block_that_is_not_whole_has_no_identity(blocks):
    def fail(block):
        raise KeyboardInterrupt

    make = blocks.makers(["50K"])["50K"]
    contents = module.Contents(2, 128, torch.float32, {"w": (128,)}, "digest")
    with pytest.raises(KeyboardInterrupt):
        make(contents, fail)
    assert blocks.place() == "{}"
    (folder,) = blocks._files._folders.values()
    (path,) = folder.glob("block*")
    with pytest.raises(InputError, match="damaged"):
        mapped_blocks(json.dumps({"50K": str(path)}), ["50K"])["50K"](contents, fail)


def refused(family, blocks, said: str) -> None:
    makers = mapped_blocks(blocks.place(), ["50K"])
    with pytest.raises(InputError) as caught:
        load_backbones(family, family.members[:1], streamed=makers)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_what_another_process_does_not_share_is_private(blocks, caplog):
    """Where it streams more members, or does not see the folder: it has its own, and says so."""
    family = get_family("mini")
    load_backbones(family, family.members[:1], streamed=blocks.makers(["50K"]))
    makers = mapped_blocks(blocks.place(), ["50K", "200K"])
    assert makers["200K"] is private_block
    blocks.close()
    load_backbones(family, family.members[:2], streamed=makers)
    assert "is not there for this one, which makes a copy of its own" in caplog.text


class Trainer:
    """Of one of several processes of a machine."""

    node_rank, main_address, main_port = 0, "here", 7

    def __init__(self, rank: int, processes: int) -> None:
        self.local_rank, self.num_devices = rank, processes
        self.world_size, self.strategy, self.cluster_environment = processes, self, self


@pytest.mark.parametrize("processes", [1, 3])
def test_the_first_process_makes_what_the_others_map(processes, monkeypatch, unchecked):
    family = get_family("mini")
    names = [member.name for member in family.members]
    monkeypatch.setattr(ddp, "_run_digest", lambda trainer: f"of-{processes}-{id(monkeypatch)}")
    order, blocks = [], SharedBlocks()
    opened = threading.Barrier(processes, timeout=60)

    def run(rank: int) -> nn.ModuleDict:
        def load(streamed):
            order.append(rank)
            return load_backbones(family, family.members, streamed=streamed)

        trainer: Any = Trainer(rank, processes)
        found = load_once_a_machine(trainer, blocks, names, load)
        opened.wait()
        return found

    with ThreadPoolExecutor(processes) as pool:
        models = list(pool.map(run, range(processes)))
    assert order[0] == 0 and sorted(order) == list(range(processes))
    assert (blocks.place() == "{}") == (processes == 1)  # one process alone has no file
    blocks.close()
    for number, name in enumerate(names):
        found = [layers_of(list(model.values())[number])._block for model in models]
        found[0][0, 0] = 3 + number
        assert [block[0, 0] for block in found] == [3 + number] * processes, name
