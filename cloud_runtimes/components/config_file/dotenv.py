"""The grammar of ``.env`` files: assignments and nothing that is executed or substituted.

::

    # a comment; blank lines are skipped
    NAME=plain text # a comment after white space      → plain text
    export NAME = with#hash                            → with#hash
    NAME='as it is, \\n and $HOME too, over several lines'
    NAME="escapes: \\n \\r \\t \\\\ \\" \\' \\$ \\`, over several lines; other backslashes stay"
    NAME=                                              → empty
    NAME                                               no assignment: skipped

A name is a letter or ``_``, then letters, digits, ``_``, ``.`` and ``-``. Of equal names the last counts. ``\\`` before the end of a line in double quotes joins it with the next. Line ends are LF or CRLF, and become LF in values.
"""

from __future__ import annotations

import re
from typing import Final

_SPACE: Final = re.compile(r"(?:\s++|#[^\n]*+)*+")
_NAME: Final = re.compile(r"(?:export[ \t]++)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*(=?)")
_SINGLE: Final = re.compile(r"[ \t]*'([^']*+)'")
_DOUBLE: Final = re.compile(r'[ \t]*"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_QUOTE: Final = re.compile(r"[ \t]*['\"]")
_PLAIN: Final = re.compile(r"[^\n]*")
_COMMENT: Final = re.compile(r"(?<=\s)#.*")
_REST: Final = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "\n": "", **{each: each for each in "\\\"'$`"}}


def parse(text: str) -> dict[str, str] | str:
    """Return the values by name, or what is wrong: the line and never its text. Raises nothing, since an error would carry the text."""
    text = text.replace("\r\n", "\n")
    if "\0" in text:
        return f"line {_line(text, text.index(chr(0)))}: a NUL"
    values: dict[str, str] = {}
    at = _end(_SPACE, text, 0)
    while at < len(text):
        name = _NAME.match(text, at)
        if name is None:
            return f"line {_line(text, at)}: neither NAME=VALUE nor a comment"
        at = name.end()
        if name[2]:
            if _QUOTE.match(text, at) is None:
                plain = _PLAIN.match(text, at)
                assert plain is not None
                values[name[1]] = _COMMENT.sub("", plain[0]).strip()
                at = plain.end()
            elif quoted := _SINGLE.match(text, at):
                values[name[1]] = quoted[1]
                at = quoted.end()
            elif quoted := _DOUBLE.match(text, at):
                values[name[1]] = _ESCAPE.sub(_unescaped, quoted[1])
                at = quoted.end()
            else:
                return f"line {_line(text, at)}: a quote that is not closed"
        rest = _REST.match(text, at)
        if rest is None:
            what = "more behind the closing quote" if name[2] else "neither NAME=VALUE nor a comment"
            return f"line {_line(text, at)}: {what}"
        at = _end(_SPACE, text, rest.end())
    return values


def _unescaped(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[1], match[0])


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
