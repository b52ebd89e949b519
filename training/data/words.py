"""Text as people wrote it, out of text as the web kept it: tags, scripts and entities removed, one line.

Knows strings, not where they come from. Every reader of reviews and metadata cleans by these rules.
"""

from __future__ import annotations

import html
import re
from typing import Any

_INLINE_NAMES = "abbr|b|big|code|del|em|font|i|ins|q|s|small|strike|strong|sub|sup|u"
_BLOCK_NAMES = (
    "a|article|blockquote|br|button|center|dd|div|dl|dt|figure|footer|form|h[1-6]|header|hr|iframe|img|input|label|li|link"
    "|main|meta|nav|ol|option|p|pre|section|select|span|table|tbody|td|tfoot|th|thead|title|tr|ul|video"
)
# only names of HTML: «2 <3 4» and «x <y and z> w» are no markup
_INLINE = re.compile(rf"</?(?:{_INLINE_NAMES})(?:[\s/][^<>]*)?>", re.IGNORECASE)
_BLOCK = re.compile(rf"</?(?:{_BLOCK_NAMES})(?:[\s/][^<>]*)?>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
_CODE = re.compile(r"<(script|style|noscript)\b.*?(?:</\1\s*>|$)", re.IGNORECASE | re.DOTALL)
_SOURCE = re.compile(
    r"\bfunction\s*\w*\s*\([^)]*\)\s*\{|\bvar\s+\w+\s*=|\bnew Date\(|\bdocument\.\w+|\bwindow\.\w+|getTime\(\)"
    r"|\{[^{}]*[\w-]+\s*:\s*[^{};]+;|<(?:script|style)\b|<(?:div|span|table)\b[^>]*(?:class|id|style)="
    r".*<(?:div|span|table)\b[^>]*(?:class|id|style)=",
    re.IGNORECASE | re.DOTALL,
)
"""What stands in a web page's source and in no product's name."""
_SHORT = 12
"""No source is this short."""
_UNESCAPES = 5
"""`&amp;amp;amp;` has been seen; no text is unescaped for ever."""

NOTHING = frozenset({"", "nan", "null", "none", "n/a", "na", "<na>", "nat", "\\n", "undefined"})
"""What programs write where there is nothing, in lower case."""


def clean(value: Any) -> str:
    """One line of text, tags removed and entities unescaped to the end.

    Lists of strings are joined; anything else is no text and gives "".
    """
    if isinstance(value, list):
        value = " ".join(part for part in value if isinstance(part, str))
    if not isinstance(value, str) or not value:
        return ""
    if "&" in value:
        value = _unescaped(value)
    if "<" in value:
        value = _BLOCK.sub(" ", _INLINE.sub("", _CODE.sub(" ", value)))
    return encodable(" ".join(value.split()))


def clean_name(value: Any) -> str:
    """As `clean`, for titles and brands: "" also where the text is a page's source or a word for nothing."""
    if isinstance(value, list):
        value = " ".join(part for part in value if isinstance(part, str))
    if isinstance(value, str) and len(value) > _SHORT and _SOURCE.search(_unescaped(value)):
        return ""
    text = clean(value)
    return "" if text.lower() in NOTHING else text


def encodable(text: str) -> str:
    """Lone surrogates replaced: Arrow and Parquet hold UTF-8 only."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _unescaped(text: str) -> str:
    for _ in range(_UNESCAPES):
        shorter = html.unescape(text)
        if shorter == text:
            break
        text = shorter
    return text
