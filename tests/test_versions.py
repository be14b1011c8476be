"""The lists of the oldest and the newest versions (.ci/versions lock) are of what pyproject.toml allows."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import ROOT

# those of .ci/versions
EXTRAS = ("train", "recipes", "onnx", "search", "serve", "peers", "avatar", "cluster", "c2pa", "test")


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(which: str) -> dict[str, Version]:
    lines = (ROOT / ".ci" / f"{which}.txt").read_text(encoding="utf8").splitlines()
    return {plain(name): Version(version) for name, _, version in (line.partition("==") for line in lines)}


def required() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    extras = [line for name in EXTRAS for line in project["optional-dependencies"][name]]
    found = [Requirement(line) for line in (*project["dependencies"], *extras)]
    return [requirement for requirement in found if requirement.name != "mmx"]


@pytest.mark.skipif(not (ROOT / ".ci").exists(), reason="the lists are in the repository only")
@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_every_requirement_is_met_by_the_list(which: str) -> None:
    found = pins(which)
    unmet = [str(need) for need in required() if not need.specifier.contains(found[plain(need.name)], prereleases=True)]
    assert not unmet, "run .ci/versions lock"


@pytest.mark.skipif(not (ROOT / ".ci").exists(), reason="the lists are in the repository only")
def test_the_oldest_are_the_lower_bounds() -> None:
    """Or the bounds allow what nothing was tested with."""
    found = pins("oldest")
    for need in required():
        bound = next(Version(part.version) for part in need.specifier if part.operator in (">=", "~="))
        assert found[plain(need.name)].release[: len(bound.release)] == bound.release, need
