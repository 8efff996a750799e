"""Models of the classes that the table names, small, random, with the files that are published."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from esm.data import Alphabet

from rd_lightning.data.fasta import RESIDUES
from rd_lightning.families import Family, Member
from rd_lightning.families.table import Row, family_of

WIDTHS = (8, 12, 16, 24, 32)
NUM_LAYERS, NUM_HEADS = 2, 2


def small_family(row: Row, folder: Path) -> Family:
    """The family of a row with its members' files in a folder, small ones of growing width."""
    members = tuple(
        replace(member, width=width, num_layers=NUM_LAYERS, num_heads=NUM_HEADS)
        for member, width in zip(row.members, WIDTHS, strict=False)
    )
    for member in members:
        write_model(row.name, member, folder / member.checkpoint)
    return replace(family_of(row), members=members)


def write_model(family: str, member: Member, folder: Path) -> None:
    """A model's files, as its repository has them."""
    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(member.width)
        _MAKE[family](member, folder)


def own_tokens(folder: Path, row: Row, sequence: str) -> torch.Tensor:
    """(1, length): by the tokenizer in the folder, as the model's authors call it."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    of = row.members[0].repository
    for letter in of.as_x:
        sequence = sequence.replace(letter, "X")
    text = " ".join(sequence) if row.name in ("prot_bert", "prot_t5") else sequence
    return torch.tensor([tokenizer.encode(of.prefix + text)])


def own_model(folder: Path, row: Row) -> Any:
    """By the class's own reader, with the attention that is written out."""
    import transformers

    kind = getattr(transformers, row.kind)
    return kind.from_pretrained(folder, attn_implementation="eager").eval()


def save_esm_tokenizer(folder: Path, vocabulary: list[str] | None = None) -> None:
    import transformers

    words = folder.with_name(f"{folder.name}.txt")
    words.write_text("\n".join(vocabulary or Alphabet.from_architecture("ESM-1b").all_toks))
    transformers.EsmTokenizer(str(words)).save_pretrained(folder)


def save_bert_tokenizer(folder: Path, letters: str) -> Any:
    """As ProtBert's: letters are words; returns it."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    words = folder / "vocab.txt"
    words.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]))
    tokenizer = transformers.BertTokenizer(str(words), do_lower_case=False)
    tokenizer.save_pretrained(folder)
    return tokenizer


def esm_settings(width: int, num_layers: int, num_heads: int, **others: Any) -> Any:
    """ESM-2's, in transformers."""
    import transformers

    return transformers.EsmConfig(
        **{
            "vocab_size": 33,
            "mask_token_id": 32,
            "pad_token_id": 1,
            "hidden_size": width,
            "num_hidden_layers": num_layers,
            "num_attention_heads": num_heads,
            "intermediate_size": 4 * width,
            "layer_norm_eps": 1e-5,
            "position_embedding_type": "rotary",
            "emb_layer_norm_before": False,
            "token_dropout": True,
            **others,
        }
    )


def _esm(**others: Any) -> Callable[[Member, Path], None]:
    def make(member: Member, folder: Path) -> None:
        import transformers

        settings = esm_settings(member.width, NUM_LAYERS, NUM_HEADS, **others)
        _random(transformers.EsmForMaskedLM(settings)).save_pretrained(folder)
        save_esm_tokenizer(folder)

    return make


def _esmc(member: Member, folder: Path) -> None:
    import transformers

    settings = transformers.EsmcConfig(
        hidden_size=member.width,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=NUM_HEADS,
        intermediate_size=2 * member.width,
    )
    _random(transformers.EsmcForMaskedLM(settings)).save_pretrained(folder)
    transformers.EsmcTokenizer().save_pretrained(folder)


def _bert(member: Member, folder: Path) -> None:
    """Its configuration does not say what it is of, as ProtBert's does not."""
    import transformers

    settings = transformers.BertConfig(
        vocab_size=30,
        hidden_size=member.width,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=NUM_HEADS,
        intermediate_size=4 * member.width,
        max_position_embeddings=64,
    )
    _random(transformers.BertForMaskedLM(settings)).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({k: v for k, v in config.items() if k != "model_type"})
    )
    save_bert_tokenizer(folder, "LAGVESIKRDTPNQFYMHCWXUBZO")


def _t5(tokenizer: Callable[[Path], None], **others: Any) -> Callable[[Member, Path], None]:
    """Encoder and decoder in one file, as most of them are published."""

    def make(member: Member, folder: Path) -> None:
        import transformers

        settings = transformers.T5Config(
            vocab_size=40,
            d_model=member.width,
            d_kv=8,
            d_ff=2 * member.width,
            num_layers=NUM_LAYERS,
            num_heads=NUM_HEADS,
            decoder_start_token_id=0,
            **others,
        )
        _random(transformers.T5ForConditionalGeneration(settings)).save_pretrained(folder)
        tokenizer(folder)

    return make


def _sentence_pieces(folder: Path) -> None:
    """As ProtT5's: every piece a letter with a space in front, nothing before the residues."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    kinds = model.SentencePiece
    named = {"<pad>": kinds.CONTROL, "</s>": kinds.CONTROL, "<unk>": kinds.UNKNOWN}
    for piece in (*named, *(f"\u2581{letter}" for letter in "ALGVSREDTIPKFQNYMHWCXBOUZ")):
        model.pieces.add(piece=piece, score=0.0, type=named.get(piece, kinds.NORMAL))
    settings = model.trainer_spec
    settings.model_type = settings.UNIGRAM
    settings.pad_id, settings.eos_id, settings.unk_id, settings.bos_id = 0, 1, 2, -1
    model.normalizer_spec.name = "identity"
    (folder / "spiece.model").write_bytes(model.SerializeToString())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 0})
    )


def save_letters_tokenizer(*special: str) -> Callable[[Path], None]:
    """As Ankh's: letters as they stand, nothing before the residues."""

    def make(folder: Path) -> None:
        import tokenizers
        import transformers

        words = ["<pad>", "</s>", "<unk>", *special, *RESIDUES]
        built = tokenizers.Tokenizer(
            tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>")
        )
        built.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
        built.add_special_tokens(list(special))
        built.post_processor = tokenizers.processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", 1)]
        )
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=built, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
        ).save_pretrained(folder)

    return make


def _random(model: torch.nn.Module) -> Any:
    """Norms and biases too, which begin as ones and zeros."""
    for tensor in model.parameters():
        tensor.data.add_(0.1 * torch.randn_like(tensor))
    return model.eval()


_ABSOLUTE = {"position_embedding_type": "absolute", "max_position_embeddings": 66}
_MAKE: dict[str, Callable[[Member, Path], None]] = {
    "esm2": _esm(),
    "esmc": _esmc,
    "esm1b": _esm(**_ABSOLUTE, emb_layer_norm_before=True),
    "esm1v": _esm(**_ABSOLUTE),
    "dplm": _esm(token_dropout=False),
    "prot_bert": _bert,
    "prot_t5": _t5(_sentence_pieces),
    "ankh": _t5(save_letters_tokenizer(), feed_forward_proj="gated-gelu"),
    "ankh3": _t5(save_letters_tokenizer("[NLU]"), feed_forward_proj="gated-silu"),
}
