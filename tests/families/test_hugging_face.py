"""Hugging Face encoders: the same embeddings as fair-esm's, and families by configuration."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from esm.data import Alphabet
from esm.model.esm2 import ESM2
from safetensors.torch import load_file, save_file

from rd_lightning import FastaDataModule, JointMoments, RDHead, RDModel, RDModule
from rd_lightning.cli.command import quiet_libraries
from rd_lightning.cli.overrides import config_folder
from rd_lightning.data.fasta import RESIDUES
from rd_lightning.errors import InputError
from rd_lightning.evaluate import main as rd_evaluate
from rd_lightning.families import Member, family_from_config, get_family
from rd_lightning.families.backbone import Backbone
from rd_lightning.families.esm2 import encode as encode_fair
from rd_lightning.families.esm2 import esm_tokenizer
from rd_lightning.families.family import Repository
from rd_lightning.families.hugging_face import encode, load, read_vocabulary
from rd_lightning.families.vocabulary import residue_vocabulary
from rd_lightning.fit import main as rd_fit

from ..conftest import clean_environment, random_sequences
from ..test_evaluate import write_assay
from .small_models import esm_settings, save_bert_tokenizer, save_esm_tokenizer

transformers = pytest.importorskip(
    "transformers", minversion="4.57", reason="transformers 4.57 or newer is not installed"
)

ALPHABET = Alphabet.from_architecture("ESM-1b")
RENAMED = {
    "embed_tokens": "embeddings.word_embeddings",
    "emb_layer_norm_after": "encoder.emb_layer_norm_after",
    "layers": "encoder.layer",
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.rot_emb": "attention.self.rotary_embeddings",
    "self_attn.out_proj": "attention.output.dense",
    "self_attn_layer_norm": "attention.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "final_layer_norm": "LayerNorm",
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def renamed(name: str) -> str:
    """Of a fair-esm weight, in transformers."""
    parts = name.split(".")
    if parts[0] == "layers":
        inner = max((k for k in RENAMED if name.split(".", 2)[2].startswith(k + ".")), key=len)
        return f"encoder.layer.{parts[1]}.{RENAMED[inner]}{name.split('.', 2)[2][len(inner) :]}"
    return ".".join([RENAMED[parts[0]], *parts[1:]])


def fair_esm2(width: int, num_layers: int, num_heads: int) -> ESM2:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(width)
        model = ESM2(num_layers, width, num_heads).eval()
        for tensor in model.parameters():  # layer norms too, which begin as ones and zeros
            tensor.data.add_(0.02 * torch.randn_like(tensor))
    return model


def converted(source: ESM2, folder: Path, *, tokenizer: bool = True) -> Path:
    """A fair-esm model saved as an ``EsmModel``."""
    shape = (source.embed_dim, source.num_layers, source.attention_heads)
    model = transformers.EsmModel(esm_settings(*shape), add_pooling_layer=False)
    weights = {
        renamed(name): tensor
        for name, tensor in source.state_dict().items()
        if not name.startswith(("contact_head", "lm_head"))
    }
    found = model.load_state_dict(weights, strict=False)
    assert not found.unexpected_keys
    assert all(name.startswith("contact_head") for name in found.missing_keys)
    model.save_pretrained(folder)
    if tokenizer:
        save_esm_tokenizer(folder, ALPHABET.all_toks)
    return folder


SHAPES = {"S": (8, 1, 2), "L": (16, 2, 4)}


@pytest.fixture
def sources() -> dict[str, ESM2]:
    return {name: fair_esm2(*shape) for name, shape in SHAPES.items()}


@pytest.fixture
def members(tmp_path, sources) -> list[dict]:
    return [
        {"name": name, "width": model.embed_dim, "path": str(converted(model, tmp_path / name))}
        for name, model in sources.items()
    ]


@pytest.fixture
def small_family(members):
    return family_from_config({"name": "two", "members": members})


def tokens_of(sequences: list[str]) -> torch.Tensor:
    return torch.from_numpy(esm_tokenizer().encode([s.encode() for s in sequences]))


def test_the_vocabulary_is_fair_esms():
    from transformers.models.esm.configuration_esm import get_default_vocab_list

    assert list(get_default_vocab_list()) == ALPHABET.all_toks


@pytest.mark.parametrize("tokenizer", [True, False])
def test_the_tokens_are_fair_esms(tmp_path, sources, tokenizer):
    """With the files of a tokenizer, and by the configuration alone."""
    paths = [converted(m, tmp_path / k, tokenizer=tokenizer) for k, m in sources.items()]
    config = {"name": "x", "members": [{"name": p.name, "path": str(p)} for p in paths]}
    family = family_from_config(config)
    assert family.tokenizer() == esm_tokenizer()
    for member in family.members:
        assert family.translation(member, None) is None


@pytest.mark.parametrize("name", SHAPES)
def test_equals_fair_esm(small_family, sources, name):
    """With padding, with <mask> in a padded row (ESM-2's rescaling), and without either."""
    member = next(m for m in small_family.members if m.name == name)
    backbone, source = Backbone.load(small_family, member), sources[name]
    tokens = tokens_of(["X", "M" * 300, *random_sequences(6, 0, longest=200)])
    masked = tokens.clone()
    masked[:, 1:3] = torch.where(tokens[:, 1:3] > 3, ALPHABET.mask_idx, tokens[:, 1:3])
    for given, padded in ((tokens, True), (masked, True), (tokens[1:2], False)):
        inside = given != ALPHABET.padding_idx
        with torch.no_grad():
            n = source.num_layers
            expected = source(given, repr_layers=[n])["representations"][n]
        found = backbone(given, padded=padded)
        assert torch.isfinite(found).all()
        assert found.dtype == torch.float32
        assert (found - expected)[inside].abs().max() < 1e-4
        assert (found - encode_fair(source, given, padded=padded))[inside].abs().max() < 1e-4


def test_bfloat16_autocast_is_near(small_family):
    backbone = Backbone.load(small_family, small_family.members[1])
    tokens = tokens_of(["M" + "A" * 400 + "W", "MKTAYIAKQR"])
    inside = tokens != ALPHABET.padding_idx
    with torch.autocast("cpu", torch.bfloat16):
        rounded = backbone(tokens)[inside]
    exact = backbone(tokens)[inside]
    assert (rounded - exact).norm() / exact.norm() < 0.03


def test_equals_esm_model_where_no_token_is_masked(small_family, members):
    model = transformers.EsmModel.from_pretrained(
        members[1]["path"], add_pooling_layer=False, attn_implementation="sdpa"
    ).eval()
    tokens = tokens_of(random_sequences(5, 1))
    inside = tokens != ALPHABET.padding_idx
    with torch.no_grad():
        expected = model(input_ids=tokens, attention_mask=inside.long()).last_hidden_state
    found = Backbone.load(small_family, small_family.members[1])(tokens)
    assert (found - expected)[inside].abs().max() < 1e-5


def test_loads_from_a_checkpoint_with_a_language_model_head(tmp_path, small_family, members):
    model = transformers.EsmForMaskedLM(esm_settings(*SHAPES["L"]))
    plain = transformers.EsmModel.from_pretrained(members[1]["path"], add_pooling_layer=False)
    model.esm.load_state_dict(plain.state_dict())
    model.half().save_pretrained(tmp_path / "lm")
    member = Member("L", 16, "lm", 2, 4)
    found, again = (Backbone(small_family, member, load(member, tmp_path)) for _ in range(2))
    assert {p.dtype for p in found.parameters()} == {torch.float32}
    assert found.digest() == again.digest()
    with torch.no_grad():
        tokens = tokens_of(["MKTAYIAKQR"])
        expected = encode(plain.half().float().eval(), tokens)
    assert (found(tokens) - expected).abs().max() < 1e-5


def test_weights_have_the_names_that_they_had(small_family):
    """In all versions of transformers, in one order: the digest of a checkpoint depends on both."""
    layer = [
        *("attention.self.query.weight", "attention.self.query.bias"),
        *("attention.self.key.weight", "attention.self.key.bias"),
        *("attention.self.value.weight", "attention.self.value.bias"),
        "attention.self.rotary_embeddings.inv_freq",
        *("attention.output.dense.weight", "attention.output.dense.bias"),
        *("attention.LayerNorm.weight", "attention.LayerNorm.bias"),
        *("intermediate.dense.weight", "intermediate.dense.bias"),
        *("output.dense.weight", "output.dense.bias"),
        *("LayerNorm.weight", "LayerNorm.bias"),
    ]
    model = small_family.load(small_family.members[1], None)
    state = model.state_dict()
    assert list(state) == [
        "embeddings.word_embeddings.weight",
        *(f"encoder.layer.{i}.{name}" for i in range(2) for name in layer),
        "encoder.emb_layer_norm_after.weight",
        "encoder.emb_layer_norm_after.bias",
    ]
    assert list(torch.nn.ModuleList([model]).state_dict()) == [f"0.{name}" for name in state]
    for i in range(2):
        kept = state[f"encoder.layer.{i}.attention.self.rotary_embeddings.inv_freq"]
        assert kept.shape == (2,)
    model.load_state_dict(state)


def test_loading_changes_nothing_else(small_family):
    before = torch.get_rng_state(), transformers.utils.logging.get_verbosity()
    model = small_family.load(small_family.members[0], None)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert transformers.utils.logging.get_verbosity() == before[1]
    assert not model.training
    assert model.config._attn_implementation == "sdpa"


def test_importing_leaves_transformers_out():
    code = (
        "import sys, rd_lightning.families.hugging_face; assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=clean_environment(), timeout=120)


def test_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    members = [{"name": n, "path": n} for n in "SL"]
    with pytest.raises(InputError, match=r'pip install -U "rd-lightning\[transformers\]"'):
        family_from_config({"name": "x", "members": members})


@pytest.mark.parametrize(
    ("version", "needs", "words"),
    [
        ("4.56.2", None, "Hugging Face encoders need transformers 4.57 or newer, not 4.56.2"),
        ("5.15.1", (5, 16), "the weights of L need transformers 5.16 or newer, not 5.15.1"),
    ],
)
def test_an_older_version_of_transformers(monkeypatch, version, needs, words):
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(__version__=version))
    member = Member("L", 16, "org/L", 2, 4, repository=Repository(transformers=needs))
    with pytest.raises(InputError, match=f"{words}: pip install -U"):
        load(member, None)


def test_a_family_by_name_needs_no_members():
    for name in ("esm2", "mini"):
        config = yaml.safe_load((config_folder() / "family" / f"{name}.yaml").read_text())
        assert family_from_config(config) is get_family(name)


def test_paths_below_a_folder(tmp_path, members):
    inside = [{"name": m["name"], "path": m["name"]} for m in members]
    family = family_from_config({"name": "x", "members": inside, "weights": str(tmp_path)})
    assert [(m.name, m.width, m.num_layers) for m in family.members] == [("S", 8, 1), ("L", 16, 2)]
    assert family.translation(family.members[0], None) is None
    assert family.load(family.members[0], None).config.hidden_size == 8
    with pytest.raises(InputError, match=r"elsewhere/S: not a readable configuration"):
        family.load(family.members[0], tmp_path / "elsewhere")


def residues(model: ESM2, sequences: list[str]) -> list[torch.Tensor]:
    """By fair-esm's weights, (residues, width) of each sequence."""
    with torch.no_grad():
        return [encode_fair(model, tokens_of([s]), padded=False)[0, 1:-1] for s in sequences]


def fit(family, data: FastaDataModule) -> RDModule:
    import lightning as L

    module = RDModule(family, accumulate="float64")
    with quiet_libraries():
        L.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(module, datamodule=data)
    return module


def test_a_fit_equals_that_of_fair_esms_embeddings(tmp_path, fasta, small_family, sources):
    sequences = random_sequences(40, 0)
    data = FastaDataModule(
        fasta(sequences), heldout=0, tokens_per_batch=300, tokenizer=small_family.tokenizer()
    )
    module = fit(small_family, data)
    rows = [residues(model, sequences) for model in sources.values()]
    expected = JointMoments([8, 16], precision="float64").update([torch.cat(r) for r in rows])
    assert module.moments.num_rows == expected.num_rows
    error = (module.moments.covariance - expected.covariance).norm()
    assert error / expected.covariance.norm() < 1e-5

    module.head.save_pretrained(tmp_path / "head")
    model = RDModel.from_pretrained(tmp_path / "head", family=small_family)
    vectors = model.embed(sequences[:3], pooling="mean")
    raw = [
        torch.stack([x[1:-1].mean(0) for x in _each(m, sequences[:3])]) for m in sources.values()
    ]
    assert (vectors - module.head(raw)).abs().max() < 1e-4


def _each(model: ESM2, sequences: list[str]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [encode_fair(model, tokens_of([s]), padded=False)[0] for s in sequences]


def test_the_command_fits_encoders_named_on_the_command_line(tmp_path, fasta, members):
    fasta(random_sequences(30, 0))
    listed = ",".join(f"{{name:{m['name']},path:{m['path']}}}" for m in members)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "rd_lightning.fit", "family=hugging_face"),
            *(f"family.members=[{listed}]", "family.name=two"),
            *("data.fasta=x.fasta", "out=run"),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        env=clean_environment(),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "two: S (8) -> L (16)" in done.stdout
    assert "warn" not in done.stderr.lower()
    head = RDHead.from_pretrained(tmp_path / "run" / "head")
    assert (head.names, head.dims) == (("S", "L"), (8, 16))
    assert head.report.context["family"] == "two"


def test_a_family_named_on_the_command_line_is_evaluated(
    tmp_path, fasta, members, monkeypatch, capsys
):
    """A fit and an evaluation with the same members; others are refused by their weights."""
    monkeypatch.chdir(tmp_path)
    fasta(random_sequences(30, 0))
    write_assay(tmp_path / "P1.csv", 0)
    listed = ",".join(f"{{name:{m['name']},path:{m['path']}}}" for m in members)
    family = ("family=hugging_face", "family.name=two", f"family.members=[{listed}]")
    monkeypatch.setattr(sys, "argv", ["rd-fit", *family, "data.fasta=x.fasta", "out=run"])
    rd_fit()
    settings = ("fit=run", "assays=P1.csv", "representations=[raw,rd]", "num_resamples=20")
    monkeypatch.setattr(sys, "argv", ["rd-evaluate", *family, *settings, "out=evaluated"])
    rd_evaluate()
    assert "two: S (8) -> L (16)" in capsys.readouterr().out
    found = pd.read_parquet("evaluated/results.parquet")
    assert set(found["representation"]) == {"raw", "rd"}
    assert found["value"].notna().all()

    monkeypatch.setattr(sys, "argv", ["rd-evaluate", *settings, "out=other"])
    with pytest.raises(SystemExit):
        rd_evaluate()
    assert "no family 'two'; known are" in capsys.readouterr().err


def test_the_configuration_alone_says_what_is_missing():
    config = yaml.safe_load((config_folder() / "family" / "hugging_face.yaml").read_text())
    with pytest.raises(InputError, match=r"family.members lists at least two models.*esm2/650M"):
        family_from_config(config)


def test_widths_that_do_not_grow(members):
    family = family_from_config({"name": "x", "members": members[::-1]})
    with pytest.raises(InputError, match=r"S has 8 after L's 16.*keep=\[4,8\]"):
        RDModule(family)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "none/such"}, "none/such: not a readable configuration of Hugging Face"),
        ({"width": 12}, "L: its embeddings have 16 columns, not 12"),
        ({"name": "S"}, "names of family.members must differ; got S, S"),
        ({"layers": 3}, "a member of family.members is a word such as esm2/650M, or has name"),
    ],
)
def test_members_that_cannot_be(members, change, message):
    config = {"name": "x", "members": [members[0], {**members[1], **change}]}
    with pytest.raises(InputError, match=message):
        family_from_config(config)


def test_a_checkpoint_that_lacks_a_weight(tmp_path, small_family, members):
    path = Path(members[1]["path"]) / "model.safetensors"
    weights = load_file(path)
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(
        InputError, match=r"L: 1 weight\(s\) are missing, such as encoder\.layer\.1\.output\.dense"
    ):
        small_family.load(small_family.members[1], None)


def test_a_checkpoint_of_another_width(tmp_path, members):
    with pytest.raises(InputError, match="L: its embeddings have 16 columns, not 8"):
        load(Member("L", 8, "L", 2, 4), tmp_path)


def test_code_of_a_checkpoint_does_not_run(tmp_path, members):
    path = tmp_path / "L" / "config.json"
    config = json.loads(path.read_text())
    code = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    path.write_text(json.dumps({**config, "model_type": "evil", "auto_map": code}))
    (path.parent / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(InputError, match="L: not a readable configuration"):
        family_from_config({"name": "x", "members": members})
    assert not (tmp_path / "ran").exists()


def test_members_of_other_tokens(tmp_path, members):
    """Each member gets its own tokens of the same residues."""
    swapped = list(ALPHABET.all_toks)
    swapped[4:6] = swapped[5], swapped[4]
    save_esm_tokenizer(tmp_path / "L", swapped)
    family = family_from_config({"name": "x", "members": members})
    sequences = random_sequences(5, 1)
    exchanged = [s.translate(str.maketrans("LA", "AL")) for s in sequences]
    large = family.members[1]
    found = Backbone.load(family, large)(tokens_of(sequences))
    own = Backbone(family, large, family.load(large, None))
    assert torch.equal(found, own(tokens_of(exchanged)))


@pytest.mark.parametrize("change", [{"pad_token_id": 2}, {"vocab_size": 20}])
def test_a_tokenizer_that_does_not_fit_the_model(tmp_path, members, change):
    path = tmp_path / "S" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    family = family_from_config({"name": "x", "members": members})
    with pytest.raises(InputError, match="S: its tokenizer does not fit its model"):
        read_vocabulary(family.members[0], None)


def test_encoders_of_another_architecture(tmp_path):
    """Two BERTs with ProtBert's tokenisation, one without a residue O."""
    letters = RESIDUES.replace("O", "")
    sequences = [s.replace("A", "O") for s in random_sequences(5, 2)]
    models = []
    for name, width in (("S", 8), ("L", 12)):
        config = transformers.BertConfig(
            vocab_size=30,
            hidden_size=width,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=64,
        )
        models.append(transformers.BertModel(config).eval())
        models[-1].save_pretrained(tmp_path / name)
        tokenizer = save_bert_tokenizer(tmp_path / name, letters)
    config = [{"name": name, "path": str(tmp_path / name)} for name in "SL"]
    family = family_from_config({"name": "bert", "members": config})
    inputs = tokenizer([" ".join(s) for s in sequences], padding=True, return_tensors="pt")
    found = tokens_of(sequences)
    inside = inputs["attention_mask"].bool()
    for member, model in zip(family.members, models, strict=True):
        backbone = Backbone.load(family, member)
        assert torch.equal(backbone.translation(found), inputs["input_ids"])
        with torch.no_grad():
            expected = model(**inputs).last_hidden_state
        assert (backbone(found) - expected)[inside].abs().max() < 1e-5
        with pytest.raises(InputError, match="BertModel has positions for 64 .* max_residues=62"):
            backbone(torch.ones(1, 65, dtype=torch.int64), padded=False)


def test_learned_positions_of_an_esm_begin_after_padding(tmp_path):
    """An ESM-1b: 1,026 positions for 1,024 tokens."""
    config = esm_settings(8, 1, 2, position_embedding_type="absolute", max_position_embeddings=26)
    transformers.EsmModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "1b")
    model = load(Member("1b", 8, "1b", 1, 2), tmp_path)
    assert encode(model, tokens_of(["M" * 22]), padded=False).shape == (1, 24, 8)
    with pytest.raises(InputError, match=r"for 24 tokens, not for 25.*max_residues=22"):
        encode(model, tokens_of(["M" * 23]), padded=False)


def test_tokenizers_that_are_not_of_residues(tmp_path):
    message = "x: not one token for each of the twenty amino acids"
    with pytest.raises(InputError, match=message):  # W is unknown
        residue_vocabulary(save_bert_tokenizer(tmp_path / "w", RESIDUES.replace("W", "")), "x")
    save_esm_tokenizer(tmp_path / "joined", [*ALPHABET.all_toks, "LA"])
    joined = transformers.EsmTokenizer.from_pretrained(tmp_path / "joined")
    with pytest.raises(InputError, match=message):  # LA is one token
        residue_vocabulary(joined, "x")


def test_an_encoder_decoder_is_refused(tmp_path, members):
    transformers.BartConfig(d_model=8, encoder_layers=1).save_pretrained(tmp_path / "bart")
    config = [members[0], {"name": "B", "path": str(tmp_path / "bart")}]
    with pytest.raises(InputError, match="bart: a bart is not an encoder or a decoder alone"):
        family_from_config({"name": "x", "members": config})


def test_without_the_hub_the_cache_is_asked_at_once(tmp_path):
    """No retries and none of their warnings; in a process of its own, as the address is read at
    import."""
    code = (
        "import logging; logging.basicConfig()\n"
        "from rd_lightning.families import family_from_config\n"
        "members = [{'name': n, 'path': f'org/{n}'} for n in 'ab']\n"
        "try: family_from_config({'name': 'x', 'members': members})\n"
        "except ValueError as error: print(error)\n"
    )
    environment = {**clean_environment(), "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.stdout.startswith("org/a: not a readable configuration of Hugging Face; ")
    assert "Retrying" not in done.stderr, "transformers' own retries take half a minute"


def test_weights_of_another_shape_name_the_tensor(tmp_path):
    transformers.EsmModel(esm_settings(8, 1, 2)).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    key = "encoder.layer.0.output.dense.bias"
    save_file({**weights, key: torch.ones(3)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError) as caught:
        load(Member("a", 8, str(tmp_path), 1, 2), None)
    assert str(tmp_path) in str(caught.value) and key in str(caught.value)
    assert "\n" not in str(caught.value)
