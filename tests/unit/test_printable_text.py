from __future__ import annotations

import unicodedata

import pytest

from temporal_airflow_nb.printable_text import make_all_printable, make_printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\nwith 漢字, ünïcode and 👩‍👩‍👧", None),
        ("\x1b[2J\x1b[1;1Hgone", "gone"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[38:2:1:2:3mred", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]0;a title\x07after", "after"),
        ("\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;never ended\nnext line", "0;never ended\nnext line"),
        ("caf\x98 au lait", "caf au lait"),
        ("\x9d0;title\x9cafter", "after"),
        ("\x1bP1$r\x1b\\after", "after"),
        ("\x1b_payload\x1b\\after", "after"),
        ("\x1bcreset", "reset"),
        ("\x1b(0lines", "lines"),
        ("\x1b", ""),
        ("\x1b[", ""),
        ("over\rwritten", "overwritten"),
        (
            "bell\x07 back\x08 null\x00 del\x7f form\x0c vertical\x0b next\x85",
            "bell back null del form vertical next",
        ),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("\u2066a\u2069\u200e\u200f\u061c", "\\u2066a\\u2069\\u200e\\u200f\\u061c"),
        ("two\u2028lines\u2029", "two\\u2028lines\\u2029"),
        ("half \ud83d", "half \\ud83d"),
    ],
)
def test_what_is_shown(text, shown):
    assert make_printable(text) == (text if shown is None else shown)


def test_no_character_that_controls_anything_is_left():
    for code in range(0x110000):
        character = chr(code)
        controls = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(
            character
        ) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        if controls and character not in "\t\n":
            assert character not in make_printable(f"a{character}b"), hex(code)
            assert "a" in make_printable(f"a{character}b")


def test_all_texts_of_data_are_made_printable():
    data = {"k\x07": ["a\x1b[2J", 1, None, {"b": ("\u202e", "\x1b[1mc")}]}
    assert make_all_printable(data) == {"k": ["a", 1, None, {"b": ["\\u202e", "c"]}]}


def test_a_long_hostile_text_takes_no_long_time():
    starts = ("\x1b[", "\x1b]", "\x1b", "\x9d", "\x1b[0", "\x1b]a")
    for text in [start * 50_000 for start in starts] + [start + "0" * 100_000 for start in starts]:
        make_printable(text)
