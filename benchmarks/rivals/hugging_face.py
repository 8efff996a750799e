"""Hugging Face's ``EsmModel`` with ``attn_implementation="sdpa"``, sorted by length.

    python -m benchmarks.rivals.hugging_face convert CHECKPOINT.pt MODEL
    python -m benchmarks.rivals.hugging_face sweep MODEL FASTA TOKENS [TOKENS ...]
    python -m benchmarks.rivals.hugging_face embed MODEL FASTA OUT.npy TOKENS

Needs transformers 4.56 or later of version 4; ``convert`` needs fair-esm too.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from transformers import EsmConfig, EsmModel, EsmTokenizer

MAX_RESIDUES = 1022
PARITY = 1e-4
_RENAMED = {
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


def load(folder: str) -> tuple[EsmModel, EsmTokenizer]:
    model = EsmModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="sdpa")
    return model.eval(), EsmTokenizer.from_pretrained(folder)


def read(fasta: str) -> list[str]:
    records = Path(fasta).read_text().split(">")[1:]
    return ["".join(record.splitlines()[1:]) for record in records]


@torch.inference_mode()
def embed(
    model: EsmModel, tokenizer: EsmTokenizer, sequences: list[str], tokens_per_batch: int
) -> np.ndarray:
    """(sequences, width) means over residues: longest first, as many at a time as fit."""
    means = np.empty((len(sequences), model.config.hidden_size), np.float32)
    lengths = [min(MAX_RESIDUES, len(s)) for s in sequences]
    waiting = sorted(range(len(sequences)), key=lambda i: lengths[i], reverse=True)
    while waiting:
        number = max(1, tokens_per_batch // (lengths[waiting[0]] + 2))
        chosen, waiting = waiting[:number], waiting[number:]
        inputs = tokenizer(
            [sequences[i] for i in chosen],
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=MAX_RESIDUES + 2,
        )
        hidden = model(**inputs).last_hidden_state
        for row, i in zip(hidden, chosen, strict=True):
            means[i] = row[1 : lengths[i] + 1].mean(0).numpy()
    return means


def convert(checkpoint: str, folder: str) -> None:
    """Write a fair-esm checkpoint as an ``EsmModel``, and raise unless both give the same."""
    import argparse

    from esm import pretrained

    torch.serialization.add_safe_globals([argparse.Namespace])
    source, alphabet = pretrained.load_model_and_alphabet(checkpoint)
    source.eval()
    model = EsmModel(
        EsmConfig(
            vocab_size=len(alphabet),
            mask_token_id=alphabet.mask_idx,
            pad_token_id=alphabet.padding_idx,
            hidden_size=source.embed_dim,
            num_hidden_layers=source.num_layers,
            num_attention_heads=source.attention_heads,
            intermediate_size=4 * source.embed_dim,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            max_position_embeddings=MAX_RESIDUES + 4,
            layer_norm_eps=1e-5,
            position_embedding_type="rotary",
            emb_layer_norm_before=False,
            token_dropout=source.token_dropout,
        ),
        add_pooling_layer=False,
    )
    weights = {_renamed(name): tensor for name, tensor in source.state_dict().items()}
    wanted = model.state_dict().keys()
    unused = ("contact_head.", "lm_head.", "position_ids")
    missing = [k for k in wanted - weights.keys() if not k.startswith(unused)]
    left = [k for k in weights.keys() - wanted if not k.startswith(unused)]
    if missing or left:
        raise RuntimeError(f"names that do not fit: {missing} missing, {left} left over")
    model.load_state_dict({k: v for k, v in weights.items() if k in wanted}, strict=False)
    model.save_pretrained(folder)
    vocabulary = Path(folder) / "vocab.txt"
    vocabulary.write_text("\n".join(alphabet.all_toks))
    EsmTokenizer(vocabulary).save_pretrained(folder)
    _check_parity(source, alphabet, folder)


def _renamed(name: str) -> str:
    name = name.replace("embed_tokens.", "embeddings.word_embeddings.")
    name = name.replace("emb_layer_norm_after", "encoder.emb_layer_norm_after")
    if not name.startswith("layers."):
        return name
    _, layer, part = name.split(".", 2)
    module = max((old for old in _RENAMED if part.startswith(f"{old}.")), key=len)
    return f"encoder.layer.{layer}.{_RENAMED[module]}{part.removeprefix(module)}"


@torch.inference_mode()
def _check_parity(source: torch.nn.Module, alphabet: object, folder: str) -> None:
    model, tokenizer = load(folder)
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWYX"))
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(letters, length)) for length in (7, 60, 200, MAX_RESIDUES)]
    _, _, tokens = alphabet.get_batch_converter()([("", s) for s in sequences])
    inputs = tokenizer(sequences, return_tensors="pt", padding=True)
    if not torch.equal(tokens, inputs["input_ids"]):
        raise RuntimeError("the tokens differ")
    last = source.num_layers
    expected = source(tokens, repr_layers=[last])["representations"][last]
    kept = inputs["attention_mask"].bool()
    deviation = (model(**inputs).last_hidden_state - expected)[kept].abs().max().item()
    if not deviation <= PARITY:
        raise RuntimeError(f"last_hidden_state deviates by {deviation:.1e}")
    print(f"{deviation:.1e}")


def sweep(folder: str, fasta: str, budgets: list[int], rounds: int = 3) -> None:
    """Print, a line a budget, the least seconds of the model alone, without start-up."""
    model, tokenizer = load(folder)
    sequences = read(fasta)
    embed(model, tokenizer, sequences[:10], budgets[0])
    least = dict.fromkeys(budgets, float("inf"))
    for _ in range(rounds):
        for budget in budgets:
            start = time.perf_counter()
            embed(model, tokenizer, sequences, budget)
            least[budget] = min(least[budget], time.perf_counter() - start)
    for budget, taken in least.items():
        print(budget, taken)


def main(task: str, *arguments: str) -> None:
    if task == "convert":
        convert(*arguments)
    elif task == "sweep":
        sweep(*arguments[:2], [int(a) for a in arguments[2:]])
    else:
        folder, fasta, out, tokens = arguments
        np.save(out, embed(*load(folder), read(fasta), int(tokens)))


if __name__ == "__main__":
    main(*sys.argv[1:])
