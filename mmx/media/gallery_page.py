"""A gallery as one HTML page that needs nothing from elsewhere, and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections import Counter
from pathlib import Path

from mmx.media.gallery import Gallery, Item, Shown

STYLE, SCRIPT = (Path(__file__).with_name(f"gallery.{kind}").read_text(encoding="utf8") for kind in ("css", "js"))


def page(gallery: Gallery, title: str) -> str:
    """The whole page. Whatever files and records say is text in it, never markup or script."""
    allowed = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    )
    kept: dict[str, str] = {}  # data URLs, each once however many cards show it → what the page calls them
    cards = "".join(_card(item, kept) for item in gallery.items)
    labels = Counter(label for item in gallery.items for label in item.labels)
    commands = Counter(item.record["command"] for item in gallery.items if item.record)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{_text(title)}</title>'
        f"<style>{STYLE}</style><header><h1>{_text(title)}</h1>"
        f'<input id="find" type="search" placeholder="find" aria-label="find">'
        f"{_choice('label', labels)}{_choice('command', commands)}"
        f'<span id="count" role="status"></span><span><kbd>/</kbd> find <kbd>j</kbd> <kbd>k</kbd> move '
        f"<kbd>Enter</kbd> provenance <kbd>Space</kbd> play</span></header>"
        f"{''.join(_tables(name, tables) for name, tables in gallery.tables.items())}"
        f"{''.join(f'<p>{_text(problem)}</p>' for problem in gallery.problems)}"
        f"<main>{cards}</main><script>{SCRIPT}</script>"  # from here on the page works, and what it shows follows
        f"{''.join(f'<i hidden id={name}>{url}</i>' for url, name in kept.items())}</html>\n"
    )


def _text(text: object) -> str:
    return html.escape(str(text), quote=True)


def _choice(name: str, counts: Counter[str]) -> str:
    """A list to filter by, the most frequent first."""
    rows = "".join(f'<option value="{_text(one)}">{_text(one)} ({n})</option>' for one, n in counts.most_common())
    return f'<select id="{name}" aria-label="{name}"><option value="">any {name}</option>{rows}</select>'


def _card(item: Item, kept: dict[str, str]) -> str:
    record = item.record
    command = record.get("command", "")
    told = [
        item.output.name,
        item.output.text,
        command,
        *item.labels,
        *(f"{one.name} {one.text}" for one in item.inputs),
    ]
    heard = "; ".join(
        ", ".join(f"{label} {share:.2f}" for label, share in one) for one in record.get("heard", []) if _pairs(one)
    )
    about = f"<details><summary>provenance</summary><pre>{_text(json.dumps(record, indent=1))}</pre></details>"
    sources = "".join(_figure(one, kept) for one in item.inputs)
    arrow = '<span aria-hidden="true">→</span>' if item.inputs else ""
    return (
        f'<article tabindex="0" data-command="{_text(command)}" data-labels="{_text(json.dumps(item.labels))}" '
        f'data-text="{_text(" ".join(told).lower())}"><div class="labels">{_text(heard)}</div><div class="pair">'
        f"{f'<div class=side>{sources}</div>' if sources else ''}{arrow}"
        f'<div class="side">{_figure(item.output, kept)}</div>'
        f"</div>{about if record else ''}</article>\n"
    )


def _pairs(heard: object) -> bool:
    return isinstance(heard, list) and all(
        isinstance(one, list | tuple) and len(one) == 2 and isinstance(one[1], int | float) for one in heard
    )


def _figure(one: Shown, kept: dict[str, str]) -> str:
    url, drawing = ((kept.setdefault(own, f"m{len(kept)}") if own else "") for own in (one.url, one.drawing))
    body = {
        "image": f'<img alt="{_text(one.name)}" data-src="{url}" decoding="async">',
        "sound": f'<img class="drawing" alt="spectrogram" data-src="{drawing}" decoding="async">'
        f'<audio controls preload="none" data-src="{url}"></audio>',
        "video": f'<video controls preload="none" data-src="{url}"></video>',
        "text": f"<blockquote>{_text(one.text)}</blockquote>",
    }.get(one.kind, "<p>not shown</p>")
    name = f"{one.role}: {one.name}" if one.role and one.role != "source" else one.name
    return f"<figure style='margin:0'>{body}<figcaption>{_text(name)}</figcaption></figure>"


def _tables(name: str, tables: dict[str, dict[str, dict[str, float]]]) -> str:
    return f"<h2>{_text(name)}</h2>" + "".join(_table(title, rows) for title, rows in tables.items())


def _table(title: str, rows: dict[str, dict[str, float]]) -> str:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    head = "".join(f"<th>{_text(column)}</th>" for column in columns)
    body = "".join(
        f"<tr><td>{_text(row)}</td>"
        + "".join(f"<td>{values[c]:.4g}</td>" if c in values else "<td></td>" for c in columns)
        for row, values in rows.items()
    )
    return f"<table><tr><th>{_text(title)}</th>{head}</tr>{body}</table>"
