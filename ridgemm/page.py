"""One self-contained HTML page of tables and pictures: no script, no link, nothing fetched."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ridgemm.errors import InputError
from ridgemm.store import check_folder, replaced

_DPI = 130
_SOFT, _WHOLE = ' class="soft"', ' class="whole"'
_STYLE = """
:root { color-scheme: light dark; --ink: #1c1f23; --soft: #5b6470; --page: #ffffff;
  --card: #f4f6f8; --line: #d9dee4; --accent: #005a92; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #a3adb8; --page: #15181c;
  --card: #1f242a; --line: #363d46; --accent: #6db7ea; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 62rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; padding-bottom: .25rem;
  border-bottom: 2px solid var(--accent); }
p { margin: .4rem 0; max-width: 46rem; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .6rem;
  margin: 1.2rem 0; padding: 0; }
.facts div { background: var(--card); border-radius: .4rem; padding: .6rem .8rem; }
.facts dt { color: var(--soft); font-size: .85rem; }
.facts dd { margin: 0; font-size: 1.25rem; font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem 1rem .3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--soft); }
td:not(:first-child) { overflow-wrap: anywhere; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
td.number + td:not(.number), th.number + th:not(.number) { padding-left: 1rem; }
ul { padding-left: 1.2rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
  gap: 1.2rem; }
figure { margin: 0; }
figure.whole { grid-column: 1 / -1; }
img { display: block; max-width: 100%; height: auto; background: #fff;
  border: 1px solid var(--line); border-radius: .4rem; }
figure.whole img { max-width: min(100%, 36rem); }
@media (max-width: 30rem) { table { font-size: .8rem; } th, td { padding-right: .5rem; } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --page: #fff;
  --card: #f4f6f8; --line: #ccc; --accent: #005a92; }
  body { padding: 0; max-width: none; font-size: 11pt; }
  figure, tr, .facts div { break-inside: avoid; } h2 { break-after: avoid; }
  .wide { overflow: visible; } }
"""


def facts(pairs: Iterable[tuple[str, Any]]) -> str:
    """A few numbers that matter most, large."""
    cells = (f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="facts">{"".join(cells)}</dl>'


def table(rows: Iterable[Sequence[Any]], header: Sequence[str] = ()) -> str:
    """A table, or nothing without rows; columns of numbers, or texts of such, stand to the right.

    Examples
    --------
    >>> "<td>a &lt; b</td>" in table([("a < b", 1)])
    True
    """
    rows = [tuple(row) for row in rows]
    if not rows:
        return ""
    numeric = [all(_is_number(cell) for cell in column) for column in zip(*rows, strict=True)]

    def line(cells: Sequence[Any], tag: str) -> str:
        marks = (' class="number"' if right else "" for right in numeric)
        pairs = zip(cells, marks, strict=True)
        return f"<tr>{''.join(f'<{tag}{m}>{_text(c)}</{tag}>' for c, m in pairs)}</tr>"

    head = f"<thead>{line(header, 'th')}</thead>" if header else ""
    body = "".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'


def paragraph(text: str, soft: bool = False) -> str:
    """A paragraph of plain text."""
    return f"<p{_SOFT if soft else ''}>{_text(text)}</p>"


def bullets(texts: Sequence[str]) -> str:
    """A list of plain texts; nothing where there are none."""
    return f"<ul>{''.join(f'<li>{_text(text)}</li>' for text in texts)}</ul>" if texts else ""


def picture(figure: Any, caption: str, whole: bool = False) -> str:
    """A matplotlib figure inside the page.

    Parameters
    ----------
    figure : Figure
    caption : str
        Also what is read to those who do not see it.
    whole : bool
        It takes the whole width.
    """
    data = io.BytesIO()
    # no name of software and version: the same figure gives the same page
    figure.savefig(data, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    content = base64.b64encode(data.getvalue()).decode("ascii")
    width, height = (round(inches * _DPI) for inches in figure.get_size_inches())
    return (
        f'<figure{_WHOLE if whole else ""}><img width="{width}" height="{height}" '
        f'alt="{_text(caption)}" src="data:image/png;base64,{content}">'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )


def section(title: str, *parts: str) -> str:
    """A heading and what belongs to it; nothing where it is empty."""
    content = "".join(parts)
    return f"<section><h2>{_text(title)}</h2>{content}</section>" if content else ""


def pictures(parts: Sequence[str]) -> str:
    """Pictures beside each other where the window is wide enough."""
    return f'<div class="pictures">{"".join(parts)}</div>' if parts else ""


def write_page(path: Path, title: str, subtitle: str, parts: Iterable[str]) -> Path:
    """Write the page, whole or not at all.

    Raises
    ------
    InputError
        `path` does not end in ``.html``.
    StorageError
        It cannot be written.
    """
    if path.suffix not in (".html", ".htm"):
        raise InputError(f"path={str(path)!r} must end in .html.")
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>\n<body>"
        f"<header><h1>{_text(title)}</h1>{paragraph(subtitle, soft=True)}</header>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )
    check_folder(path.parent, "path")
    with replaced(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def _text(thing: Any) -> str:
    return escape(str(thing), quote=True)


def _is_number(cell: Any) -> bool:
    try:
        float(str(cell).split(" ")[0].rstrip("%"))
        return True
    except ValueError:
        return str(cell) in ("", "-")
