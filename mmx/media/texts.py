"""Bytes → texts in one line."""

from __future__ import annotations

from mmx.errors import InputError

MAX_TEXT = 1000  # characters; a text tower reads some 77 tokens


def text_of(source: str | bytes, name: str = "text") -> str:
    """A text, or its bytes in UTF-8 → the text in one line. Raises InputError for none, or for too much of it."""
    try:
        text = source.decode("utf8") if isinstance(source, bytes) else source
    except UnicodeDecodeError:
        raise InputError(f"{name}: not a text in UTF-8") from None
    text = " ".join(text.split())
    if not text:
        raise InputError(f"{name}: there is no text in it")
    if len(text) > MAX_TEXT:
        raise InputError(f"{name}: {len(text)} characters of text", hint=f"give at most {MAX_TEXT}")
    return text
