"""Google docstrings as Markdown: what ``clipvet explain`` shows and the pages in docs/methods hold."""

from __future__ import annotations

import re

__all__ = ["to_markdown"]

_HEADINGS = {
    "Args:": "Arguments",
    "Attributes:": "Settings",
    "Returns:": "Returns",
    "Raises:": "Raises",
    "Fails when:": "Fails when",
    "Reference:": "Reference",
    "Differs:": "Differs",
}
_LISTED = ("Arguments", "Settings", "Raises")
_HEAD = re.compile(rf"^({'|'.join(map(re.escape, _HEADINGS))})\s*(.*)$")
_ITEM = re.compile(r"^(\*{0,2}\w+): (.*)$")
_ROLE = re.compile(r":\w+:`~?([^`]+)`")


def to_markdown(doc: str) -> str:
    """Turn a cleaned docstring into Markdown: sections become headings, described names a list."""
    lines: list[str] = []
    section = ""
    for raw in doc.splitlines():
        head = _HEAD.match(raw)
        if head:
            section = _HEADINGS[head[1]]
            lines += ["", f"## {section}", "", *([head[2]] if head[2] else [])]
            continue
        lines.append(_line(raw, section))
    text = _ROLE.sub(r"`\1`", "\n".join(lines)).replace("``", "`")
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _line(raw: str, section: str) -> str:
    indent = len(raw) - len(raw.lstrip())
    if not section or indent == 0:
        return raw
    item = _ITEM.match(raw.strip()) if section in _LISTED and indent == 4 else None
    if item:
        return f"- `{item[1]}`: {item[2]}"
    return f"  {raw.strip()}" if section in _LISTED else raw.strip()
