"""What is typed: whatever it is, it is read as the same thing that was written, or refused in one line."""

from __future__ import annotations

import math
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mmx.cli.settings import KEYS
from mmx.cli.sound2img import _weighted
from mmx.data.shards import urls
from mmx.errors import MmxError, UsageError
from mmx.serving.address import find_server
from mmx.serving.query import parameters
from mmx.spaces.query import Term, parse_query

pytest.importorskip("braceexpand")
# the same examples in every run, and no clock: machines differ
settings.register_profile(
    "mmx", derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
settings.load_profile("mmx")
MANY = settings(max_examples=300)
TEXTS = st.text(max_size=40)
WORDS = st.text(string.ascii_letters + "äß狐 -+'\"", min_size=1, max_size=12)
WEIGHTS = st.floats(0.001, 1e6).map(lambda weight: round(weight, 3))


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mmx.data.shards.MOST", 1000)


@MANY
@given(st.text("'\"*+-. 0123456789abä狐\t", max_size=30))
@example("'" * 30)
def test_any_query_is_terms_or_refused(query: str) -> None:
    try:
        terms = parse_query(query)
    except UsageError as error:
        assert len(error.message.splitlines()) <= 1 or "\n" in query
        return
    assert terms and all(term.value.strip() and math.isfinite(term.weight) and term.weight for term in terms)


@MANY
@given(st.lists(st.tuples(st.sampled_from("+-"), WEIGHTS, WORDS), min_size=1, max_size=4))
def test_a_query_is_read_as_it_was_written(parts: list[tuple[str, float, str]]) -> None:
    wanted, written = [], ""
    for sign, weight, word in parts:
        if not word.strip() or ("'" in word and '"' in word):
            continue
        quote = '"' if "'" in word else "'"
        wanted.append(Term("text", word.strip(), weight if sign == "+" else -weight))
        written += f" {sign} {weight:f}*{quote}{word}{quote}"
    if wanted:
        found = parse_query(written)
        assert [(t.kind, t.value) for t in found] == [(t.kind, t.value) for t in wanted]
        assert [t.weight for t in found] == pytest.approx([t.weight for t in wanted])


@MANY
@given(st.text(string.ascii_letters + " .:/", max_size=20), st.floats(0, 1))
def test_a_weight_after_a_colon_is_the_files(name: str, weight: float) -> None:
    assert _weighted(f"{name}:{weight!r}", 0.5) == (name, weight)


@MANY
@given(TEXTS | st.text(":.0123456789einfna-+", max_size=12))
@example("x:nan")
@example("x:inf")
@example("x:-0.1")
@example("x:1e999")
def test_any_weight_lies_between_0_and_1_or_is_refused(text: str) -> None:
    try:
        name, weight = _weighted(text, 0.5)
    except UsageError:
        return
    assert 0 <= weight <= 1 and text.startswith(name)


@MANY
@given(st.integers(0, 300), st.integers(0, 40), st.integers(0, 4), st.integers(1, 5))
def test_a_range_of_shards_is_all_of_them(first: int, count: int, width: int, step: int) -> None:
    last = first + count
    wide = max(len(str(last)), width)
    pattern = f"a-{{{first:0{wide}d}..{last:0{wide}d}..{step}}}.tar"
    assert urls(pattern) == [f"a-{number:0{wide}d}.tar" for number in range(first, last + 1, step)]


@settings(max_examples=100)
@given(st.text("{}.,09\\-az", max_size=16))
@example("{0..99999999999}")
@example("{-99999999999999999999..0}.tar")
@example("x{0..999999}{a,b}")
@example("{1,2}" * 40)
@example("a{0..9")
def test_any_pattern_of_shards_is_few_names_or_refused(pattern: str) -> None:
    try:
        found = urls(pattern)
    except MmxError as error:
        assert error.exit_code in (2, 3) and len(error.message.splitlines()) == 1
        return
    assert 0 < len(found) <= 1000


@MANY
@given(TEXTS)
def test_any_text_is_a_value_of_a_setting_or_refused(text: str) -> None:
    for key in KEYS.values():
        try:
            assert type(key.read(text, "x")) is key.kind
        except UsageError:
            continue


@MANY
@given(st.sampled_from(sorted(parameters("sound2img"))), TEXTS | st.floats().map(str))
def test_any_text_is_a_value_of_a_requests_parameter_or_refused(name: str, text: str) -> None:
    one = parameters("sound2img")[name]
    try:
        value = one.read(text)
    except UsageError:
        return
    assert type(value) is one.kind and (one.low is None or value >= one.low) and (one.high is None or value <= one.high)


@MANY
@given(TEXTS | st.text("htp:/[]@.0123456789", max_size=24).map("http://".__add__))
def test_any_server_is_on_this_machine_or_refused(text: str) -> None:
    try:
        found = find_server(text)
    except UsageError:
        return
    assert found is None or found.socket is not None or found.host in ("localhost", "::1") or found.host[:4] == "127."
