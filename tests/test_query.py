"""What is searched for, as it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmx.errors import UsageError
from mmx.spaces.query import Term, parse_query

TEXT, FILE = "text", "file"


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("bark.wav", "beach.jpg", "a - b.jpg", "2*x.wav", "räv – 狐.png", "odd"):
        Path(name).touch()


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ("a dog in the snow", [Term(TEXT, "a dog in the snow")]),
        ("bark.wav", [Term(FILE, "bark.wav")]),
        ("-", [Term("stdin", "-")]),
        ("odd", [Term(FILE, "odd")]),
        ("räv – 狐.png", [Term(FILE, "räv – 狐.png")]),
        ("bark.wav + beach.jpg - 'rain'", [Term(FILE, "bark.wav"), Term(FILE, "beach.jpg"), Term(TEXT, "rain", -1)]),
        ("0.5*bark.wav + 2 * 'a sea'", [Term(FILE, "bark.wav", 0.5), Term(TEXT, "a sea", 2)]),
        (".5*a dog - 3.*bark.wav", [Term(TEXT, "a dog", 0.5), Term(FILE, "bark.wav", -3)]),
        ("a - b.jpg", [Term(FILE, "a - b.jpg")]),  # as a whole it names a file
        ("2*x.wav", [Term(FILE, "2*x.wav")]),
        ("2*x.wav + 2*2*x.wav", [Term(FILE, "2*x.wav"), Term(FILE, "2*x.wav", 2)]),
        ("a black-and-white dog", [Term(TEXT, "a black-and-white dog")]),
        ("C++ and a+b", [Term(TEXT, "C++ and a+b")]),
        ("'bark.wav'", [Term(TEXT, "bark.wav")]),
        ("\"rock 'n' roll\"", [Term(TEXT, "rock 'n' roll")]),
        ("'a + b' - \"c - d\"", [Term(TEXT, "a + b"), Term(TEXT, "c - d", -1)]),
        ("a dog's life + rain", [Term(TEXT, "a dog's life"), Term(TEXT, "rain")]),
        ("- 'rain'", [Term(TEXT, "rain", -1)]),
        ("+ rain", [Term(TEXT, "rain")]),
        ("rain - -", None),
        ("look at song.wav now", [Term(TEXT, "look at song.wav now")]),
        ("", None),
        ("   ", None),
        ("+", None),
        ("a +", None),
        ("a + ", None),
        ("a + + b", None),
        ("bark.wav - ", None),
        ("'a", None),
        ("'a' b", None),
        ("''", None),
        ("0*a", None),
        ("2*", None),
        ("2* + a", None),
        (f"{'9' * 400}*a", None),
        ("nope.wav", None),
        ("a + nope.JPG", None),
    ],
)
def test_a_query_is_its_terms(query: str, terms: list[Term] | None) -> None:
    if terms is not None:
        assert parse_query(query) == terms
        return
    with pytest.raises(UsageError) as raised:
        parse_query(query)
    assert raised.value.message and "\n" not in raised.value.message
