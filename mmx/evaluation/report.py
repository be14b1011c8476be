"""What a protocol gives: tables, and examples to look at and listen to; written as JSON and as one HTML page that needs
nothing else.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmx.media.arrays import picture_of
from mmx.media.audio import Waveform, wav_bytes
from mmx.media.files import write_atomic
from mmx.media.image import png_bytes

SCHEMA = "mmx.eval/1"
Table = dict[str, dict[str, float]]  # row → column → value


@dataclass(frozen=True)
class Example:
    """One source and what became of it."""

    title: str
    source: Any
    results: Sequence[Any]


@dataclass
class Report:
    """Tables by name, examples, and what else was used to measure, such as the judge."""

    tables: dict[str, Table]
    examples: list[Example] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, about: dict[str, Any]) -> dict[str, Any]:
        """metrics.json and report.html into a folder; returns what metrics.json holds."""
        about = about | self.about
        result = {"schema": SCHEMA} | about | self.tables
        write_atomic(folder / "metrics.json", json.dumps(result, indent=1).encode())
        write_atomic(folder / "report.html", page(about, self.tables, self.examples).encode())
        return result


STYLE = """body{font:15px/1.45 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c1c1c}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}
td,th{padding:.2rem .7rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}
figure{display:flex;flex-wrap:wrap;gap:.5rem;align-items:center;margin:0 0 1.2rem}
figcaption{flex-basis:100%;color:#555}img{image-rendering:pixelated;height:128px}audio{height:2rem}.to{color:#999}"""


def page(about: dict[str, Any], tables: dict[str, Table], examples: Sequence[Example]) -> str:
    """The whole report as one HTML page: pictures and sounds are inside it."""
    title = html.escape(f"mmx eval {about['task']}, {about['split']} split")
    facts = ", ".join(f"{html.escape(k)} {html.escape(str(v))[:16]}" for k, v in about.items())
    shown = "".join(
        f"<figure><figcaption>{html.escape(e.title)}</figcaption>{media(e.source)}<span class=to>→</span>"
        f"{''.join(media(result) for result in e.results)}</figure>\n"
        for e in examples
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
        f"<p>{facts}</p>{''.join(_table(name, table) for name, table in tables.items())}"
        f"<h2>Inputs and outputs</h2>{shown}</html>\n"
    )


def columns_of(table: Table) -> list[str]:
    """The columns of a table, in the order in which its rows bring them."""
    return list(dict.fromkeys(column for row in table.values() for column in row))


def _table(name: str, table: Table) -> str:
    columns = columns_of(table)
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    rows = "".join(
        f"<tr><td>{html.escape(row)}</td>"
        + "".join(f"<td>{values[c]:.4g}</td>" if c in values else "<td></td>" for c in columns)
        + "</tr>"
        for row, values in table.items()
    )
    return f"<h2>{html.escape(name.replace('_', ' '))}</h2><table><tr><th></th>{head}</tr>{rows}</table>\n"


def media(medium: Any) -> str:
    """A picture, a sound, a text, or what an array looks like, as an HTML element that carries its bytes."""
    if isinstance(medium, str):
        return f"<q>{html.escape(medium)}</q>"
    if isinstance(medium, np.ndarray):
        medium = picture_of(medium)
    if isinstance(medium, Waveform):
        data, kind = wav_bytes(medium), "audio/wav"
        return f'<audio controls preload=none src="data:{kind};base64,{base64.b64encode(data).decode()}"></audio>'
    assert isinstance(medium, Image.Image)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(png_bytes(medium, {})).decode()}">'
