"""Every family of the table, by the real classes of transformers, small and with random weights."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rd_lightning.data.batch import make_batch
from rd_lightning.embedding.in_memory import ListedSequences
from rd_lightning.errors import InputError
from rd_lightning.families import get_family
from rd_lightning.families.backbone import Backbone, load_backbones, residue_embeddings
from rd_lightning.families.hugging_face import encode
from rd_lightning.families.table import Row, rows, support_table

from ..conftest import random_sequences
from .small_models import NUM_LAYERS, own_model, own_tokens, small_family

transformers = pytest.importorskip(
    "transformers", minversion="4.57", reason="transformers 4.57 or newer is not installed"
)
ROWS = [row for row in rows() if row.kind != "ESM2"]
BOUND = 1e-5
"""Of the largest value: sums of at most 100 terms in float32, in another order, through two layers
of norms that do not enlarge them."""


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.name)
def row(request) -> Row:
    if not hasattr(transformers, request.param.kind):
        pytest.skip(
            f"not tried: {request.param.name} needs {request.param.kind}, which transformers "
            f"{transformers.__version__} does not have"
        )
    return request.param


@pytest.fixture(scope="module")
def small(row, tmp_path_factory):
    folder = tmp_path_factory.mktemp(row.name)
    return small_family(row, folder), folder


@pytest.fixture(scope="module")
def backbones(small):
    family, folder = small
    return load_backbones(family, family.members[:2], folder)


SEQUENCES = [*random_sequences(5, 3, longest=40), "MKTUZOBXA", "W"]


def residues_of(row: Row, folder: Path, sequence: str, layer: int | None = None) -> torch.Tensor:
    """By the model's own call on one sequence, without padding: (residues, width)."""
    tokens = own_tokens(folder, row, sequence)
    with torch.no_grad():
        found = own_model(folder, row)(input_ids=tokens, output_hidden_states=True)
    states = found.last_hidden_state if layer is None else found.hidden_states[layer]
    end = tokens.shape[1] - 1  # the one token behind
    return states[0, end - len(sequence) : end]


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert torch.isfinite(found).all()
    assert (found - expected).abs().max() <= BOUND * expected.abs().max()


def test_equals_the_models_own_call(row, small, backbones):
    """In one padded batch, and alone without padding."""
    family, folder = small
    tokens = torch.from_numpy(family.tokenizer().encode([s.encode() for s in SEQUENCES]))
    for member, backbone in zip(family.members, backbones.values(), strict=False):
        with torch.no_grad():
            batch = backbone(tokens)
        assert batch.shape == (*tokens.shape, member.width)
        for line, sequence in zip(batch, SEQUENCES, strict=True):
            expected = residues_of(row, folder / member.checkpoint, sequence)
            assert_near(line[1 : len(sequence) + 1], expected)
            alone = torch.from_numpy(family.tokenizer().encode([sequence.encode()]))
            with torch.no_grad():
                assert_near(backbone(alone, padded=False)[0, 1:-1], expected)


def test_windows_are_sequences_of_their_own(row, small, backbones):
    family, folder = small
    store = ListedSequences(SEQUENCES[:3])
    windows = [(0, 2, 5), (1, 0, 4), (2, 1, 3)]
    batch = make_batch(store, family.tokenizer(), windows, number=0, group=0)
    found = residue_embeddings(backbones, batch.tokens, batch.rows, padded=batch.padded)
    for member, rows_of in zip(family.members, found, strict=False):
        expected = [
            residues_of(row, folder / member.checkpoint, SEQUENCES[i][first : first + size])
            for i, first, size in windows
        ]
        assert_near(rows_of, torch.cat(expected))


def test_a_mask_is_the_models_own(row, small, backbones):
    """Of the models that have a token for it."""
    family, folder = small
    member, backbone = family.members[0], next(iter(backbones.values()))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / member.checkpoint)
    if tokenizer.mask_token_id is None:
        pytest.skip(f"{row.name} has no token for a mask")
    tokens = torch.from_numpy(family.tokenizer().encode([b"MKTAYIAK"]))
    tokens[0, 3] = 32
    own = own_tokens(folder / member.checkpoint, row, "MKTAYIAK")
    own[0, -9 + 2] = tokenizer.mask_token_id
    with torch.no_grad():
        expected = own_model(folder / member.checkpoint, row)(input_ids=own).last_hidden_state
        assert_near(backbone(tokens, padded=False)[0, 1:-1], expected[0, -9:-1])


def test_inner_layers_are_the_hidden_states(row, small, backbones):
    """Of one forward pass, in the order asked for; the last is the model's own output."""
    family, folder = small
    for member, backbone in zip(family.members, backbones.values(), strict=False):
        tokens = own_tokens(folder / member.checkpoint, row, SEQUENCES[0])
        with torch.no_grad():
            found = encode(backbone.model, tokens, padded=False, layers=[1, 2, 0])
            last = encode(backbone.model, tokens, padded=False)
            expected = own_model(folder / member.checkpoint, row)(
                input_ids=tokens, output_hidden_states=True
            ).hidden_states
        assert len(expected) == NUM_LAYERS + 1
        for n, states in zip((1, 2, 0), found, strict=True):
            assert_near(states, expected[n])
        assert torch.equal(found[1], last)
        (again,) = encode(backbone.model, tokens, padded=False, layers=[1])
        assert torch.equal(again, found[0])


def test_members_of_one_model_are_one_forward_pass(row, small):
    """Three layers of the first model, not side by side, and the second model."""
    family, folder = small
    first, second = family.members[0], family.members[-1]
    chain = [
        replace(first, name="one", layer=1),
        replace(second, name="other"),
        replace(first, name="zero", layer=0),
        replace(first, name="last"),
    ]
    if second is first:
        del chain[1]
    loaded = load_backbones(family, chain, folder)
    calls = []
    for backbone in loaded.values():
        lists = [m for m in backbone.model.modules() if isinstance(m, torch.nn.ModuleList)]
        first_layer = max(lists, key=len)[0]
        first_layer.register_forward_pre_hook(lambda layer, _: calls.append(layer))
    tokens = torch.from_numpy(family.tokenizer().encode([s.encode() for s in SEQUENCES]))
    with torch.no_grad():
        found = loaded(tokens)
    assert len(calls) == len(set(calls)) == len(loaded) == len({m.checkpoint for m in chain})
    for member, states in zip(chain, found, strict=True):
        for line, sequence in zip(states, SEQUENCES, strict=True):
            expected = residues_of(row, folder / member.checkpoint, sequence, member.layer)
            assert_near(line[1 : len(sequence) + 1], expected)


def test_held_and_streamed_weights_are_the_same_model(row, small, backbones):
    """Under autocast with weights held in its dtype, and with layers in host memory, inner ones
    too: bit for bit."""
    family, folder = small
    member, plain = family.members[0], next(iter(backbones.values()))
    tokens = torch.from_numpy(family.tokenizer().encode([s.encode() for s in SEQUENCES]))
    held = Backbone.load(family, member, folder, hold=torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(held(tokens), plain(tokens))
    streamed = Backbone.load(family, member, folder, streamed=True)
    with torch.no_grad():
        for layers in (None, [1, 2, 0], [1], None):  # a pass that ends early between two others
            found, expected = (b(tokens, layers=layers) for b in (streamed, plain))
            pairs = [(found, expected)] if layers is None else zip(found, expected, strict=True)
            assert all(torch.equal(one, other) for one, other in pairs)


def test_the_files_are_of_the_members(row, small):
    family, folder = small
    member = family.members[0]
    with pytest.raises(InputError, match=f"its embeddings have {member.width} columns, not 80"):
        family.load(replace(member, width=80), folder)
    with pytest.raises(InputError, match=f"it has {NUM_LAYERS} layers, not 3"):
        family.load(replace(member, num_layers=3), folder)


def test_every_row_is_a_family_by_name():
    for each in rows():
        family = get_family(each.name)
        assert [m.name for m in family.members] == [m.name for m in each.members]
        assert all(
            re.fullmatch("[0-9a-f]{40}", m.repository.revision or "0" * 40) for m in family.members
        )
        assert all(m.width % m.num_heads == 0 for m in family.members)


def test_the_documentation_has_the_table():
    page = (Path(__file__).parents[2] / "docs" / "families.md").read_text()
    assert support_table() in page


def test_every_family_of_the_table_is_a_choice_of_the_commands():
    folder = Path(__file__).parents[2] / "conf" / "family"
    assert {row.name for row in rows()} <= {path.stem for path in folder.glob("*.yaml")}
