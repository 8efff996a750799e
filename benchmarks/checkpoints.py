"""Random weights of ESM-2, in memory and as fair-esm publishes them."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from esm.model.esm2 import ESM2

from rd_lightning.families import Member


def random_model(member: Member, seed: int = 0) -> ESM2:
    torch.manual_seed(seed)
    return ESM2(member.num_layers, member.width, member.num_heads).eval()


def write_checkpoint(member: Member, folder: Path) -> None:
    """Random weights as fair-esm publishes them: two files, an ``argparse.Namespace`` in one."""
    folder.mkdir(parents=True, exist_ok=True)
    model = random_model(member)
    state, contacts = {}, {}
    for name, tensor in model.state_dict().items():
        if name.startswith("contact_head."):
            contacts[name] = tensor
        elif name.startswith("lm_head."):
            state[f"encoder.{name}"] = tensor
        else:
            state[f"encoder.sentence_encoder.{name}"] = tensor
    arguments = argparse.Namespace(
        encoder_layers=member.num_layers,
        encoder_embed_dim=member.width,
        encoder_attention_heads=member.num_heads,
        token_dropout=True,
    )
    torch.save({"cfg": {"model": arguments}, "model": state}, folder / f"{member.checkpoint}.pt")
    torch.save({"model": contacts}, folder / f"{member.checkpoint}-contact-regression.pt")
