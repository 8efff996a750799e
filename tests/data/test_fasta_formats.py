"""Files that are not what they seem, headers in any encoding, pipes and folders."""

import gzip
import os
import sys
import threading
from collections import Counter

import pytest

from rd_lightning.data.fasta import (
    NUCLEOTIDES,
    clean,
    fasta_files,
    nucleotide_share,
    read_records,
)
from rd_lightning.errors import InputError
from rd_lightning.families import sample_fasta

CODON = {"A": "GCC", "C": "TGC", "D": "GAC", "E": "GAG", "F": "TTC", "G": "GGC", "H": "CAC"}
CODON |= {"I": "ATC", "K": "AAG", "L": "CTG", "M": "ATG", "N": "AAC", "P": "CCC", "Q": "CAG"}
CODON |= {"R": "CGC", "S": "AGC", "T": "ACC", "V": "GTG", "W": "TGG", "Y": "TAC"}
PIR = b">P1;CRAB_ANAPL\nALPHA CRYSTALLIN B CHAIN\nMDITIHNPLI RRPLFSWLAP*\n"
ANTIFREEZE = (  # of Tenebrio molitor: of the proteins, about the nearest to ACGTN
    "QCTGGADCTSCTGACTGCGNCPNAVTCTNSQHCVKANTCTGSTDCNTAQTCTNSKDCFEANTCTDSTNCYKATACTNSSGCPGH"
)


def test_a_header_loses_no_byte_whatever_its_encoding(tmp_path):
    """UTF-8 where it is that (also at its end, where Latin-1 has white space), else Latin-1."""
    headers = ["蛋白 x", "protéine", "voilà", "\u0085\u00a0".join("ab"), "a\u2028b"]
    path = tmp_path / "x.fasta"
    path.write_bytes(b"".join(b">" + h.encode() + b"\nACD\n" for h in headers))
    assert [r.id for r in read_records(path, ids="header")] == headers
    latin = [b"prot\xe9ine", b"caf\xe9 b", b"\xff\xfe"]
    path.write_bytes(b"".join(b">" + h + b"\nACD\n" for h in latin))
    found = [r.id for r in read_records(path, ids="header")]
    assert [id.encode("latin-1") for id in found] == latin
    assert [r.id for r in read_records(path)] == [h.decode("latin-1").split()[0] for h in latin]


@pytest.mark.parametrize("code", ["P1", "F1", "DL", "DC", "RL", "RC", "N1", "N3", "XX"])
def test_pir_is_known(tmp_path, code):
    path = tmp_path / "x.pir"
    path.write_bytes(b"\n" + PIR.replace(b"P1", code.encode()))
    with pytest.raises(InputError, match=r"\A[^\n]*x.pir: PIR, not FASTA: line 2 is [^\n]*\Z"):
        list(read_records(path))
    path.write_bytes(b">P1;\nACD\n>P12;x\nACD\n>x P1;y\nACD\n")
    assert len(list(read_records(path))) == 3


def counts(*sequences: str) -> Counter:
    return Counter(clean("".join(sequences)).sequence.decode())


def test_proteins_are_no_nucleotides():
    sample = [r.letters for r in read_records(sample_fasta())]
    shares = [sum(s.count(x) for x in NUCLEOTIDES) / len(s) for s in sample if len(s) >= 50]
    assert max(shares) < 0.5  # of single proteins, far from 0.95
    assert not any(nucleotide_share(counts(s)) for s in [*sample, "".join(sample)])
    for low in (ANTIFREEZE, "GA" * 500, "A" * 500, "NTGA" * 500, "GCN" * 500, "CTAN" * 500):
        assert nucleotide_share(counts(low)) is None, low
    assert nucleotide_share({}) is None


def test_genes_are_nucleotides_whatever_their_alphabet():
    for record in read_records(sample_fasta()):
        gene = "".join(CODON.get(x, "NNN") for x in record.letters)
        if len(gene) >= 200:
            for strand in (gene, gene.lower(), gene.replace("T", "U")):
                assert nucleotide_share(counts(strand)) == 1
    gene = "ACGT" * 95 + "R" * 20  # ambiguous: 5% of 400
    assert nucleotide_share(counts(gene)) == 0.95
    assert nucleotide_share(counts(gene + "R")) is None
    assert nucleotide_share(counts("ACGT" * 12)) is None  # too few to tell


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_standard_input_and_a_fifo_are_read_once(tmp_path, monkeypatch, pack):
    content = pack(b">a\nACD\n>b\nEFG\n")
    expected = [(1, 1, "a", "ACD"), (2, 3, "b", "EFG")]
    out, into = os.pipe()
    os.write(into, content)
    os.close(into)
    with open(out) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert [tuple(r) for r in read_records("-")] == expected
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(content,))
    writer.start()
    assert [tuple(r) for r in read_records(fifo)] == expected
    writer.join()


def test_a_folder_is_its_fasta_files_by_name(tmp_path):
    for name in ("b.fa", "a.FASTA.gz", "c.faa.zst", "._a.fasta", ".b.fa", "x.txt", "n.fna"):
        (tmp_path / name).touch()
    (tmp_path / "sub.fasta").mkdir()
    found = [os.path.basename(file) for file in fasta_files(tmp_path)]
    assert found == ["a.FASTA.gz", "b.fa", "c.faa.zst"]
    assert fasta_files("-") == ["-"]
    with pytest.raises(InputError, match="no FASTA file in this folder; their names end in .fasta"):
        fasta_files(tmp_path / "sub.fasta")
