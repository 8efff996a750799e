"""FLIP's folders, biotrainer's headers, and a class as the second word."""

import gzip
import re
from pathlib import Path

import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.tasks.fasta_tasks import is_flip, read_fasta, read_folder


def test_flip_files_are_matched_by_id(flip):
    folder = flip(
        sequences=[">d", "WYF", ">c", "GG", ">b", "LLAG", ">a", "MKV"],
        mask=[">b", "1111", ">a", "011", ">d", "111", ">c", "10"],
    )
    source = read_folder(folder)
    assert source.letter_a_residue
    assert [(e.id, e.sequence, e.target, e.mask) for e in source.entries] == [
        ("a", "MKV", "HHE", "011"),
        ("b", "LLAG", "CCHE", "1111"),
        ("c", "GG", "EE", "10"),
        ("d", "WYF", "HEC", "111"),
    ]
    assert [e.validation for e in source.entries] == ["False", "False", "True", "False"]


def test_a_flip_folder_needs_no_mask_and_may_be_compressed(flip):
    folder = flip(mask=None)
    path = Path(folder) / "labels.fasta"
    with gzip.open(f"{path}.gz", "wt") as file:
        file.write(path.read_text())
    path.unlink()
    assert [e.mask for e in read_folder(folder).entries] == [None] * 4


def test_labels_may_be_of_proteins(flip):
    folder = flip(
        labels=[
            ">a TARGET=Nucleus SET=train",
            ">b TARGET=Cytoplasm SET=train",
            ">d SET=test TARGET=Nucleus",
            ">c SET=train TARGET=Nucleus",
        ]
    )
    source = read_folder(folder)
    assert not source.letter_a_residue
    assert [e.target for e in source.entries] == ["Nucleus", "Cytoplasm", "Nucleus", "Nucleus"]
    assert [e.sequence for e in source.entries] == ["MKV", "LLAG", "WYF", "GG"]


@pytest.mark.parametrize("name", ["labels", "sequences"])
def test_a_folder_with_one_file_holds_targets_in_it(write, tmp_path, name):
    write(f"one/{name}.fasta", ">a TARGET=1.5 SET=train", "MKV")
    assert is_flip(tmp_path / "one")
    assert read_folder(tmp_path / "one").entries[0].target == "1.5"


def test_attributes_stand_in_any_order(write):
    path = write(
        "x.fasta",
        ">a MASK=110 SET=train TARGET=1.5;2;nan",
        "MKV",
        ">b TARGET=1;2 VALIDATION=True SET=train a description",
        "gg",
    )
    first, second = read_fasta(path).entries
    assert first[2:] == ("MKV", "1.5;2;nan", "train", None, "110")
    assert second[2:] == ("GG", "1;2", "train", "True", None)
    assert first.where == f"{path}: record 1 (a)"


def test_the_second_word_is_the_class_and_a_further_one_the_part(write):
    path = write("x.fasta", ">a Nucleus-U", "MK", ">b Cytoplasm-S test", "GG", ">c", "AA")
    found = [(e.target, e.split) for e in read_fasta(path).entries]
    assert found == [("Nucleus-U", None), ("Cytoplasm-S", "test"), (None, None)]


def test_a_mask_may_be_of_its_own_file(write):
    path = write("x.fasta", ">a TARGET=HE", "MK", ">b TARGET=EE", "GG")
    mask = write("m.fasta", ">b", "01", ">a", "10")
    assert [e.mask for e in read_fasta(path, mask).entries] == ["10", "01"]


def refused(said: str):
    return pytest.raises(InputError, match=said)


def test_what_is_wrong_with_a_folder_is_said(flip):
    with refused(r"labels.fasta: no record 'd', which \S+sequences.fasta holds \(1 such record\)"):
        read_folder(flip("1", labels=[">a", "HHE", ">b", "CCHE", ">c", "EE"], mask=None))
    with refused(r"sequences.fasta: no record 'b', which \S+labels.fasta holds \(3 such records"):
        read_folder(flip("2", sequences=[">a", "MKV"]))
    with refused(r"mask.fasta: no record 'b', which \S+labels.fasta holds \(3 such"):
        read_folder(flip("3", mask=[">a", "111"]))
    with refused(r"labels.fasta: record 2 \(a\): the id 'a' stands already at \S+ record 1"):
        read_folder(flip("4", labels=[">a", "HHE", ">a", "HHE"]))
    with refused(r"sequences.fasta: record 1 \(a\): not an amino acid: '1' at position 2"):
        read_folder(flip("5", sequences=[">a", "M1V", ">b", "LLAG", ">c", "GG", ">d", "WYF"]))
    with refused(r"labels.fasta: record 1 \(a\): no labels; give a letter a residue, or TARGET="):
        read_folder(flip("6", labels=[">a", "", ">b", "CCHE", ">c", "EE", ">d", "HEC"]))
    with refused("labels.fasta: the file is empty"):
        read_folder(flip("7", labels=[]))
    folder = flip("8")
    with refused(f"^{re.escape(folder)}/none.fasta: no such file; give the mask's path, or leave"):
        read_folder(folder, f"{folder}/none.fasta")


def test_what_is_wrong_with_a_file_is_said(write):
    with refused(r"a.fasta: no record has a target; write >id TARGET=..., or the class"):
        read_fasta(write("a.fasta", ">a", "MK", ">b SET=train", "GG"))
    with refused(r"b.fasta: record 2 \(b\): no target; write TARGET=nan, or SET=nan"):
        read_fasta(write("b.fasta", ">a TARGET=A SET=train", "MK", ">b SET=train", "GG"))
    with refused(r"c.fasta: record 1 \(a\): 'membrane' follows TARGET=Cell; a target has no space"):
        read_fasta(write("c.fasta", ">a TARGET=Cell membrane SET=train", "MK"))
    with refused(r"d.fasta: record 1 \(a\): the sequence is empty"):
        read_fasta(write("d.fasta", ">a TARGET=A", ">b TARGET=B", "MK"))
    with refused("e.fasta: the file is empty"):
        read_fasta(write("e.fasta"))
    with refused(r"f.fasta: record 2 \(a\): the id 'a' stands already"):
        read_fasta(write("f.fasta", ">a TARGET=A", "MK", ">a TARGET=B", "GG"))
