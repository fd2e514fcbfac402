"""Texts that attack whoever shows them: HTML, script, addresses of scripts, directions, control characters, names of prototypes, and size."""

from __future__ import annotations

import random

_RUN = "window.pwned=1"
_HTML = (
    f"<script>{_RUN}</script>",
    f"<img src=x onerror='{_RUN}'>",
    f"<svg/onload={_RUN}>",
    f"<svg><animate onbegin={_RUN} attributeName=x dur=1s>",
    f"<iframe srcdoc='<script>parent.{_RUN}</script>'></iframe>",
    f"<details open ontoggle={_RUN}>",
    f"<style onload={_RUN}>*{{display:none}}</style>",
    f"<a href='javascript:{_RUN}'>x</a>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<form action=//evil.example><button>",
    "</main></body></html>",
    f"</title><script>{_RUN}</script>",
    f"--><script>{_RUN}</script><!--",
    f"]]><script>{_RUN}</script>",
    f"<noscript><p title='</noscript><img src=x onerror={_RUN}>'>",
    f"<math><mtext></form><form><mglyph><style></math><img src onerror={_RUN}>",
    "<dialog open>",
    "<input autofocus onfocus=" + _RUN + ">",
)
_SCRIPT = (
    f"javascript:{_RUN}",
    f"JaVaScRiPt&colon;{_RUN}",
    f"data:text/html,<script>{_RUN}</script>",
    f'";{_RUN};//',
    f"';{_RUN};//",
    f"`${{{_RUN}}}`",
    f"{{{{constructor.constructor('{_RUN}')()}}}}",
    f"\\u003cscript\\u003e{_RUN}\\u003c/script\\u003e",
    f"\u2028{_RUN}\u2029",
    "'; script-src * 'unsafe-inline' 'unsafe-eval'",
    "\r\ncontent-security-policy: default-src *\r\n\r\n",
    f"url(javascript:{_RUN})",
    "red;} * {display: none} .x{",
    "var(--bad",
)
_NAMES = (
    *("__proto__", "constructor", "prototype", "toString", "hasOwnProperty", "__defineGetter__", "then", "length"),
    *("id", "view", "filters", "innerHTML", "style", "data-key", "null", "undefined", "NaN", "-0", "1e999", "true"),
)
_PATHS = (
    *("../../etc/passwd", "//evil.example/x", "%00", "%zz%", "#/x?store=a&prefix=b", "?limit=1", "a/b/c", "&amp;lt;"),
    *("' OR 1=1 --", '"] , [data-key="', "$&$1", "\\", "*/", "{}", "[object Object]", "%s%n%x", "\\x3cscript\\x3e"),
)
_ODD = (
    *("\u202e<gpj.exe>\u202c", "\u2066\u2067\u2068", "\u200f\u200e", "\u061c", "\ufeff", "\u0000", "\u0007\u001b[31m"),
    *(
        "\u001b]0;title\u0007",
        "\u0085\u2028",
        "\u200d\u200b",
        "a" + "\u0301" * 60,
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    ),
    *("\ufdfd", "\U000e0001\U000e0041", "\uffff", "\U0010ffff", "\t\n\v\f\r", "ﷺ" * 20, "Z̴̢͓a̷l̸g̵o̶" * 5),
)
_SIZES = (100, 300, 2_000, 20_000)


def hostile_texts(number: int, seed: int) -> list[str]:
    """Return so many different texts, always the same ones of a seed."""
    chance = random.Random(seed)
    made: dict[str, None] = {}
    while len(made) < number:
        parts = [
            chance.choice(chance.choice((_HTML, _HTML, _SCRIPT, _NAMES, _PATHS, _ODD)))
            for _ in range(chance.randint(1, 3))
        ]
        text = chance.choice(("", "", " ", '"', "'", ">", "\u202e")).join(parts)
        if chance.random() < 0.03:
            text = (text * (1 + chance.choice(_SIZES) // len(text)))[: chance.choice(_SIZES)]
        if chance.random() < 0.7:  # else some would be few
            text += f"{chance.choice(' /#?&<')}{chance.randrange(10**6)}"
        made[text] = None
    return [*made]
