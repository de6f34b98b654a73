"""Names of cases and scans in results."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.names import (
    LONGEST,
    LONGEST_BYTES,
    abbreviate,
    distinct_names,
    fold_name,
    is_safe_name,
    make_former_name,
    make_pair_key,
    make_printable,
    make_safe_name,
    split_channel,
    split_role,
    split_suffix,
)


@given(st.lists(st.text(max_size=150), max_size=30, unique=True))
def test_names_are_plain_distinct_and_do_not_depend_on_the_order(
    texts: list[str],
) -> None:
    found = distinct_names(texts, texts)

    assert len({fold_name(name) for name in found}) == len(texts)
    for name in found:
        assert is_safe_name(name)
        assert PurePath(name).name == name
        assert unicodedata.is_normalized("NFC", name)
        assert len(name) <= LONGEST
        assert len(f"{name}.rtstruct.dcm".encode()) <= 200
        assert name[0] not in ".-"
        categories = {unicodedata.category(sign)[0] for sign in name}
        assert not categories - {"L", "M", "N", "P"}
    assert found == distinct_names(texts[::-1], texts[::-1])[::-1]


@given(st.text(st.characters(max_codepoint=127), max_size=150))
def test_names_of_ascii_are_those_of_release_0_1_0(text: str) -> None:
    former = make_former_name(text)
    device = former.partition(".")[0].upper()
    is_device = device in {"CON", "PRN", "AUX", "NUL"} or (
        device[:3] in {"COM", "LPT"} and device[3:] in set("0123456789")
    )
    assert make_safe_name(text) == (f"_{former}" if is_device else former)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("肝臓 01", "肝臓_01"),
        ("Печень/ребёнок", "Печень_ребёнок"),
        ("Mu\u0308ller", "Müller"),
        ("हिन्दी", "हिन्दी"),
        ("น้ำ", "น้ำ"),
        ("كبد", "كبد"),
        ("😀 7", "_7"),
        ("\u202egpj.a", "gpj.a"),
        ("a\u200b\u2060b\u3164", "ab"),
        ("می\u200cخواهم", "میخواهم"),
        ("é\x00\n\\:é", "é_é"),
        ("\u0301é", "é"),
        ("..é. ", "é._"),
        ("é..", "é"),
        ("com¹", "_com¹"),
        ("NUL.é", "_NUL.é"),
        ("aux", "_aux"),
        ("auxiliary", "auxiliary"),
        ("\u200b", "scan"),
        ("\udcffé", "_é"),
    ],
)
def test_letters_and_digits_of_every_script_stay(text: str, name: str) -> None:
    assert make_safe_name(text) == name
    assert make_safe_name(name) == name


@pytest.mark.parametrize("letter", ["界", "é", "क्षि", "a\u0301\u0323"])
def test_a_long_name_is_cut_between_letters_and_gets_a_hash(
    letter: str,
) -> None:
    letters = unicodedata.normalize("NFC", letter)
    name = make_safe_name(letter * 120)
    cut, dash, tag = name.rpartition("-")
    assert dash
    assert re.fullmatch("[0-9a-f]{6}", tag)
    assert (letters * 120).startswith(cut)
    rest = (letters * 120)[len(cut) :]
    assert not unicodedata.category(rest[0]).startswith("M")
    assert len(name.encode()) <= LONGEST_BYTES
    assert name != make_safe_name(letter * 120 + "x")


def test_names_that_differ_only_in_bytes_or_forms_stay_apart() -> None:
    texts = ["\udcff", "\udcfe", "é", "e\u0301", "É"]
    names = distinct_names(texts, texts)
    assert len({fold_name(name) for name in names}) == len(texts)


@pytest.mark.parametrize(
    "text",
    ["", "../a", "a/b", "a b", ".a", "-a", "e\u0301", "a\u200b", "a" * 201],
)
def test_what_leads_elsewhere_or_shows_less_than_it_holds_is_no_safe_name(
    text: str,
) -> None:
    assert not is_safe_name(text)
    assert is_safe_name("Müller-7_肝.nii.gz")


@pytest.mark.parametrize(
    ("stem", "name", "role"),
    [
        ("c.seg", "c", "label"),
        ("c-label", "c", "label"),
        ("c_GT", "c", "label"),
        ("c mask", "c", "label"),
        ("c_pred", "c", "prediction"),
        ("label0001", "0001", "label"),
        ("img0001", "0001", "image"),
        ("image_001", "001", "image"),
        ("mask-001", "001", "label"),
        ("CT_image", "CT", "image"),
        ("img0001_seg", "0001", "label"),
        ("a/labels/mu\u0308_seg", "a/labels/mü", "label"),
        ("segmented_ct", "segmented_ct", ""),
        ("masking7", "masking7", ""),
        ("mask", "mask", ""),
        ("_seg", "_seg", ""),
        ("case_1_2", "case_1_2", ""),
        ("scanner_3", "scanner_3", ""),
    ],
)
def test_words_in_a_name_say_what_a_file_is(
    stem: str, name: str, role: str
) -> None:
    assert split_role(stem) == (name, role)


def test_an_image_its_label_and_its_prediction_share_a_key() -> None:
    stems = ["IMG_É7", "maske\u03017", "É7.seg", "é7_gt_pred"]
    assert {make_pair_key(stem) for stem in stems[:1] + stems[2:]} == {"é7"}
    assert make_pair_key(stems[1]) == "maské7"


def test_endings_are_those_that_readers_know() -> None:
    assert split_suffix("a.b.NII.GZ") == ("a.b", ".nii.gz")
    assert split_suffix("a.dcm.png") == ("a.dcm", ".png")
    assert split_suffix("a.txt") == ("a.txt", "")
    assert split_suffix(".nii") == (".nii", "")
    assert make_safe_name("../..") == "_"
    assert make_safe_name("-rf") == "rf"


def test_a_safe_name_fits_beside_a_suffix_and_says_something() -> None:
    assert len(make_safe_name("x" * 300)) == LONGEST
    assert make_safe_name("x" * 99 + ". ") == "x" * 99
    assert make_safe_name("...") == "scan"


def test_a_name_that_is_tagged_keeps_its_length() -> None:
    names = distinct_names(["x" * 200] * 2, ["a", "b"])

    assert {len(name) for name in names} == {LONGEST}
    assert names[0] != names[1]


def test_a_channel_number_has_four_digits() -> None:
    assert split_channel("liver_0001") == ("liver", 1)
    assert split_channel("liver_001") == ("liver_001", None)
    assert split_channel("_0001") == ("_0001", None)


def test_commands_to_a_terminal_are_not_printable() -> None:
    assert make_printable("a\x1b[31mb\nc\udcff") == "a?[31mb\nc?"


def test_a_few_of_many_names() -> None:
    assert abbreviate("abc", 3) == "a, b, c"
    assert abbreviate("abcd", 3) == "a, b, c and 1 more"
    assert abbreviate("") == ""


def test_names_that_differ_in_capitals_alone_are_both_tagged() -> None:
    names = distinct_names(["Liver", "liver", "skin"], ["a", "b", "c"])
    assert names[2] == "skin"
    assert re.fullmatch(r"Liver-[0-9a-f]{6}", names[0])
    assert re.fullmatch(r"liver-[0-9a-f]{6}", names[1])
