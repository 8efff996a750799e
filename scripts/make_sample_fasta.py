"""Choose the bundled sample: 300 sequences of QUERY.fasta.gz that the `mini` family did not see.

    python scripts/make_sample_fasta.py DB.fasta.gz QUERY.fasta.gz OUT.fasta

Left out are sequences that stand letter for letter among those it was trained on; homologues of
them remain, as in any UniProt sample.
"""

from __future__ import annotations

import gzip
import random
import sys

from Bio.SeqIO.FastaIO import SimpleFastaParser

NUM_SEQUENCES = 300


def read(path: str) -> list[tuple[str, str]]:
    with gzip.open(path, "rt") as handle:
        return list(SimpleFastaParser(handle))


def main(database: str, queries: str, out: str) -> None:
    seen = {sequence for _, sequence in read(database)}
    candidates = [record for record in read(queries) if record[1] not in seen]
    chosen = sorted(random.Random(0).sample(range(len(candidates)), NUM_SEQUENCES))
    with open(out, "w") as handle:
        for title, sequence in (candidates[i] for i in chosen):
            lines = [sequence[i : i + 80] for i in range(0, len(sequence), 80)]
            handle.write("\n".join([f">{title.removesuffix(' Split=0')}", *lines, ""]))


if __name__ == "__main__":
    main(*sys.argv[1:])
