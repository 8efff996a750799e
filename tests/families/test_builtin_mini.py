"""The bundled family is a trained one: it predicts masked residues, the larger the better."""

import math

import torch
import torch.nn.functional as F

from rd_lightning.data.fasta import read_records
from rd_lightning.families import get_family, sample_fasta
from rd_lightning.families.esm2 import encode, esm_tokenizer


@torch.no_grad()
def test_perplexity_falls_with_size_and_is_below_the_unigrams():
    """On every eighth residue of a third of the sample, none of which was trained on."""
    sequences = [r.letters[:512].encode() for r in read_records(sample_fasta())][::3]
    family, tokenizer = get_family("mini"), esm_tokenizer()
    models = [family.load(member, None).eval() for member in family.members]
    nats, targets = [0.0] * len(models), []
    for sequence in sequences:
        tokens = torch.from_numpy(tokenizer.encode([sequence]))
        chosen = torch.arange(4, len(sequence), 8) + 1
        corrupted = tokens.clone()
        corrupted[0, chosen] = models[0].mask_idx
        targets.append(tokens[0, chosen])
        for k, model in enumerate(models):
            logits = model.lm_head(encode(model, corrupted, padded=False)[0, chosen])
            nats[k] += F.cross_entropy(logits, targets[-1], reduction="sum").item()
    found = torch.cat(targets)
    # The best any fixed distribution can do on these residues: their own frequencies.
    frequencies = found.bincount() / len(found)
    unigram = math.exp(-frequencies[found].log().mean().item())
    perplexities = [math.exp(n / len(found)) for n in nats]
    assert perplexities == sorted(perplexities, reverse=True), perplexities
    assert perplexities[-1] < unigram - 1, (perplexities, unigram)


def test_it_is_small():
    files = list(sample_fasta().parent.glob("*.safetensors"))
    assert len(files) == 3
    assert sum(path.stat().st_size for path in files) < 5e6
