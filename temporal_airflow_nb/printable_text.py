"""Makes texts of users harmless where they are shown: in a terminal, a page, a picture, a log.

A control character can move the cursor of a terminal, set its title or hide lines; a direction character shows the rest
of a line in another order than it is in. Names, labels, messages of exceptions and logs may contain both.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

T = TypeVar("T")

# Sequences that a terminal carries out: CSI; those with a text, such as a title, if they are ended (OSC, DCS, SOS, PM
# and APC); other escapes. The first two have forms of one character as well.
_CSI = r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
_WITH_TEXT = r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\n\x90\x98\x9c-\x9f]*(?:\x07|\x1b\\|\x9c)"
_SEQUENCE = rf"{_CSI}|{_WITH_TEXT}|\x1b[ -/]*[0-~]?"
_CONTROL = r"[\x00-\x08\x0b-\x1f\x7f-\x9f]"
# Directions, line ends that only some programs take for one, and halves of characters, which can't be encoded.
_VISIBLE = r"[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
_UNSAFE = re.compile(rf"{_SEQUENCE}|{_CONTROL}|(?P<seen>{_VISIBLE})")


def make_printable(text: str) -> str:
    r"""Return a text without control characters but tabs and line ends; directions become visible.

    Examples
    --------
    >>> make_printable("\x1b[31mred\x1b[0m\x07\r\n")
    'red\n'
    >>> print(make_printable("user\u202etxt.exe"))
    user\u202etxt.exe
    """
    # Nearly every text is harmless, and this check is much faster than a search.
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(_replacement, text)


def _replacement(match: re.Match[str]) -> str:
    return f"\\u{ord(match['seen']):04x}" if match["seen"] else ""


def make_all_printable(value: T) -> T:
    """Return data that JSON can hold with all its texts printable."""
    return _walk(value)  # type: ignore[no-any-return]


def _walk(value: Any) -> Any:
    if isinstance(value, str):
        return make_printable(value)
    if isinstance(value, dict):
        return {_walk(key): _walk(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_walk(item) for item in value]
    return value
