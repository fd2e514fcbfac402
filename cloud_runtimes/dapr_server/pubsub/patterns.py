"""The regular expressions of rules: patterns of subscribers on texts of strangers, in bounded time.

CEL defines ``matches`` by RE2 (CEL specification, "Regular Expressions"), whose time is linear in the text. The package ``google-re2`` does it where it is installed. Without it Python's `re` does, which tries all ways: a repeat without an upper bound multiplies them by the length of the text. So a text is refused where pattern and length together allow more than `MAX_WORK` ways.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

MAX_TEXT: Final = 1 << 20
"""Characters of a text."""
MAX_WORK: Final = 5_000_000
"""Ways that `re` may try for one text: about 0.2 s."""
_MAX_PATTERN: Final = 500
_REMEDY: Final = "pip install google-re2 takes more"
# what `re` takes exponential time for, and what RE2 does not have
_REFUSED: Final = re.compile(r"\)\s*[*+{]|\\[1-9]|\(\?(?!:|[ais]+\)|P<)")
_LEADING: Final = re.compile(r"\A(?:\.\*\??)+(?![?+])")
_PARTS: Final = re.compile(
    r"\\.|\[\^?\]?(?:[^\]\\]|\\.)*+\]|(?P<any>[*+]|\{[0-9]*,\})|\{(?P<low>[0-9]*),(?P<high>[0-9]+)\}|(?P<two>[?|])",
    re.DOTALL,
)


class TooLong(Exception):
    """A text on which a pattern could take too long."""


class Pattern:
    """A pattern, read.

    Args:
        text: of the pattern.

    Raises:
        ValueError: it is no pattern, or one that could take long on any text; says what.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        if len(text) > _MAX_PATTERN:
            raise ValueError(f"matches takes patterns of at most {_MAX_PATTERN} characters")
        linear = _re2()
        if linear is None and _REFUSED.search(text):
            raise ValueError(f"matches takes no repeated groups, look-around or references: {_REMEDY}")
        if linear is None:
            text = _LEADING.sub("", text)  # nothing is another way of beginning anywhere
        self._limit = MAX_TEXT if linear is not None else _max_length(text)
        try:
            self._compiled: Any = re.compile(text) if linear is None else linear(text)
        except Exception as error:  # both have errors of their own, `re` others besides
            raise ValueError(f"the pattern {text!r:.80} is none: {_said(error)}") from None

    def search(self, text: str) -> bool:
        """Return whether the pattern matches anywhere in a text.

        Raises:
            TooLong: the text is, for this pattern.
        """
        if len(text) > self._limit:
            remedy = "" if self._limit == MAX_TEXT else f"; {_REMEDY}"
            raise TooLong(
                f"a text of {len(text):,} characters: matches takes {self._limit:,} with {self._text!r:.80}{remedy}"
            )
        return self._compiled.search(text) is not None


def _max_length(pattern: str) -> int:
    """Return how long a text `re` may be given."""
    ways = 1
    # places in a text that follow each other, so that n of them are m^n / n! ways
    power = 0 if pattern.startswith(("^", r"\A")) else 1  # it may begin anywhere
    for part in _PARTS.finditer(pattern):
        if part["any"]:
            power += 1
        elif part["two"]:
            ways *= 2
        elif part["high"]:
            ways *= max(1, int(part["high"]) - int(part["low"] or 0) + 1)
    return min(MAX_TEXT, int((MAX_WORK / ways * math.factorial(power)) ** (1 / max(1, power))))


def _re2() -> Any:
    """Return what compiles a pattern of RE2, ``None``: the package is not installed."""
    try:
        import re2
    except ImportError:
        return None
    options = re2.Options()
    options.log_errors = False
    return lambda text: re2.compile(text, options)


def _said(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(error)
