"""`mmx inspect` and `mmx reproduce`."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from mmx.cli.options import Json
from mmx.cli.takes import takes
from mmx.digest import sha256
from mmx.errors import InputError, LastBitsError, MmxError, ModelError, UsageError
from mmx.media.credentials import is_signed, unsigned, verified
from mmx.media.files import Source, Target, given_file, plan
from mmx.media.names import printable
from mmx.media.provenance import ROLES, dumps, read_record
from mmx.network import Network
from mmx.options import Models, Overwrite, Saying
from mmx.tasks import find
from mmx.tasks import task as find_task

if TYPE_CHECKING:
    from mmx.guided.again import Remade
    from mmx.media.given import Artifact
    from mmx.translate.base import Translator

# of commands that no translator is for, what makes their artifacts again
GUIDED = {"avatar": "mmx.guided.avatar_job:again"}
MAGIC = {b"RIFF": ".wav", b"GIF8": ".gif", b"glTF": ".glb", b"ply\n": ".ply", b"# Sy": ".obj", b"\0\0\0 ": ".mp4"}
UNKNOWN = "unsealed"  # what older versions noted of a folder without SHA256SUMS


def _read(file: str) -> bytes:
    return Source(None if file == "-" else given_file(file), Path(file)).read()


def inspect(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="An artifact that mmx made, or - for stdin.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Say what made a file: inputs, models, seed, options."""
    data = _read(file)
    record = read_record(data, file)
    found = _credentials(data)
    if as_json:
        print(dumps(record | ({"credentials": found} if found else {})))
        return
    print(f"{printable(file)}: synthetic, made by mmx {record['version']} {record['command']}")
    for entry in record["inputs"]:
        print(f"  {entry['role']}: {entry['name']}  sha256 {entry['sha256']}")
    for role in (role for role in ROLES if role in record):
        beside = f", beside it {record[role]['companion']}" if "companion" in record[role] else ""
        print(f"  {role}: {record[role]['name']}  sha256 {record[role]['sha256']}{beside}")
    print(f"  result: {record['layout']} {', '.join(map(str, record['indices']))}")
    print(f"  settings: {', '.join(f'{k} {v}' for k, v in record['settings'].items() if v is not None)}")
    for heard in filter(None, record["heard"]):
        print(f"  heard: {', '.join(f'{label} {share:.2f}' for label, share in heard)}")
    if "machine" in record:
        print(f"  machine: {', '.join(f'{k} {v}' for k, v in record['machine'].items())}")
    print(f"  libraries: {', '.join(f'{k} {v}' for k, v in record['libraries'].items())}")
    if found:
        said = ", ".join(found["problems"])
        by = f", by {found['by']}" if found["by"] else ""
        print(printable(f"  Content Credentials: {found['state'].lower()}{by}{f' ({said})' if said else ''}"))


def _credentials(data: bytes) -> dict[str, Any] | None:
    """What a signed file's Content Credentials are worth; None where it is not signed."""
    if not is_signed(data):
        return None
    if importlib.util.find_spec("c2pa") is None:
        return {"state": "Unverified", "by": "", "issuer": "", "problems": ["pip install 'mmx[c2pa]' verifies them"]}
    return verified(data)


@dataclass(frozen=True)
class Again:
    """What is made again, from what, and where it goes."""

    file: Annotated[str, typer.Argument(metavar="FILE", help="An artifact that mmx made.", show_default=False)]
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="[INPUT...]",
            help="Its inputs. Default: found by sha256 beside it or in the current folder.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    output: Annotated[
        Optional[str],
        typer.Option("-o", "--output", metavar="OUT", show_default=False, help="Keep what was made again."),
    ] = None
    overwrite: Overwrite = False


@dataclass(frozen=True)
class SpaceName:
    """Which space guided it."""

    space: Annotated[
        Optional[str],
        typer.Option(
            "--space", metavar="FOLDER", show_default=False, help="Of what a space guided: that. Default: the starter."
        ),
    ] = None


@takes
def reproduce(again: Again, models: Models, space: SpaceName, network: Network, saying: Saying) -> None:
    """Make an artifact again from its inputs and compare the bytes. Exit code 0 only if they agree.

    It is computed with as many threads as the artifact was. Exit code 8 where only the last bits of what is seen or
    heard differ, as on another kind of processor, 1 where more does.
    """
    made = unsigned(_read(again.file))
    record = read_record(made, again.file)
    keep = _keep(again, made, as_json=saying.as_json)
    contents = _contents(record, again.inputs, Path(again.file))
    from mmx.device import threads  # from here on it is slow: torch and the models

    with threads(record.get("machine", {}).get("threads")):
        if record["command"] in GUIDED:
            artifact, different = _guided(record, contents, models, space.space)
        elif space.space is not None:
            raise UsageError(f"--space {space.space}: {again.file} was made without a space", hint="leave it out")
        else:
            artifact, different = _translated(record, contents, models)
    different += _other_machine(record, artifact.record)
    if keep:
        keep.write(artifact.data)
    same, far = artifact.data == made, _distance(made, artifact.data)
    if saying.as_json:
        about = {"schema": "mmx.reproduce/1", "file": again.file, "same": same, "differences": different}
        print(json.dumps(about | far))
    if not same:
        raise _difference(again.file, far, different)
    if not saying.quiet and not saying.as_json:
        print(f"{printable(again.file)}: the same bytes", file=sys.stderr)


def _translated(
    record: dict[str, Any], contents: list[tuple[str, bytes]], models: Models
) -> tuple[Artifact, list[str]]:
    """What a translator makes of a record, and which models are others now."""
    from mmx.translate.job import job_from_record, run
    from mmx.translate.load import load

    job = job_from_record(record, contents)
    given = {role: name for role, name in vars(models).items() if name is not None}
    translator = load(record["command"], **(_own_starters(record) | given), **job.settings.placement)
    different = _other_models(record, translator)
    return run(translator, job).artifacts[0], different


def _guided(
    record: dict[str, Any], contents: list[tuple[str, bytes]], models: Models, space: str | None
) -> tuple[Remade, list[str]]:
    """What a guided command makes of a record, and which models are others now."""
    from mmx.spaces.load import load_space

    for role in ("decoder", "encoder"):
        if getattr(models, role) is not None:
            raise UsageError(f"--{role}: it was made without one", hint="--space and --bridge name its space")
    loaded = load_space(space, bridge=models.bridge, device=record["settings"].get("device", "auto"))
    made = find(GUIDED[record["command"]])(record, contents, loaded)
    return made, _other_models(record, made)


def _keep(again: Again, made: bytes, *, as_json: bool) -> Target | None:
    """Where what is made again goes, if anywhere. Raises UsageError before any work where it can't."""
    if again.output is None:
        return None
    if as_json and again.output == "-":
        raise UsageError("--json and the result both want stdout", hint="give -o FILE")
    file, suffix = Path(again.file), MAGIC.get(made[:4], ".png")
    ((target,),) = plan([Source(file, Path(file.stem))], again.output, 1, suffix)
    target.check(overwrite=again.overwrite)
    return target


class _Differs(MmxError):
    exit_code = 1


def _distance(made: bytes, again: bytes) -> dict[str, int]:
    """How far two artifacts are from each other, as --json says it; nothing where they can't be compared."""
    from mmx.media.compare import largest_difference

    found = largest_difference(made, again)
    return {"max_difference": found[0], "of": found[1]} if found else {}


def _difference(file: str, far: dict[str, int], different: list[str]) -> MmxError:
    """What is said, and with which exit code, where the bytes of what was made again are others."""
    from mmx.media.compare import LAST_BITS

    size = f": max |d| = {far['max_difference']} of {far['of']}" if far else ""
    if not far or far["max_difference"] > LAST_BITS[far["of"]]:
        hint = "; ".join(different) or "the file was changed, or this machine computes differently"
        return _Differs(f"{file}: made again, and the bytes differ{size}", hint)
    what = "differs in the last bits" if far["max_difference"] else "differs only in what it says of itself"
    return LastBitsError(f"{file}: made again, it {what}{size}", "; ".join(different))


def _other_machine(record: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What else the last bits depend on, where it is not as it was."""
    was, here = record.get("machine"), now["machine"]
    if was is None:
        return ["it does not say with how many threads it was made"]
    if was["cpu"] == here["cpu"]:
        return []
    return [f"the processor's kernels were {was['cpu']}, are {here['cpu']}"]


def _own_starters(record: dict[str, Any]) -> dict[str, str]:
    """The starter models that an artifact was made with, where they are not its command's own. Raises UsageError."""
    own = {role: f"starter/{name}" for role, name in find_task(record["command"]).starters.items()}
    made = {role: record[role]["name"] for role in ROLES if role in record}
    return {role: name for role, name in made.items() if name.startswith("starter/") and name != own.get(role)}


def _other_models(record: dict[str, Any], translator: Translator | Remade) -> list[str]:
    """What is not as it was when the artifact was made. A model of another name must be given by the user."""
    different = []
    for role in ROLES:
        there, was = translator.models.get(role), record.get(role)
        if role == "bridge" and there is None and was is not None:  # a mapper, which no edit needs
            raise ModelError(f"it was made with the mapper {was['name']}", hint="give it: --bridge FOLDER")
        if there is None or was is None:
            if there or was:
                different.append(f"it was made {'without' if there else 'with'} an {role}")
            continue
        if was["name"] != there.name and not was["name"].startswith("starter/"):
            raise ModelError(f"it was made with the {role} {was['name']}", hint=f"give it: --{role} FOLDER")
        if was["sha256"] not in (there.sha256, UNKNOWN):
            different.append(f"the {role} {there.name} is another version")
        elif "companion" in was and was["companion"] != there.as_dict().get("companion"):
            different.append(f"what lies beside the {role} {there.name} is another version")
    here = {name: _installed(name) for name in record["libraries"]}
    return different + [
        f"{name} was {was}, is {here[name]}" for name, was in record["libraries"].items() if here[name] != was
    ]


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not here"


def _contents(record: dict[str, Any], given: list[str], file: Path) -> list[tuple[str, bytes]]:
    """The bytes of the inputs: those given, or files of their digests beside the artifact or in the current folder."""
    if given:
        return [(path, _read(path)) for path in given]
    wanted = {entry["sha256"] for entry in record["inputs"] if "text" not in entry}
    if not wanted:
        return []
    names = {entry["name"] for entry in record["inputs"]}
    found: list[tuple[str, bytes]] = []
    candidates = [Path(folder) / name for folder in (file.parent, Path.cwd()) for name in sorted(os.listdir(folder))]
    # files of the right name first: most often that is all that has to be read
    for path in sorted(candidates, key=lambda path: path.name not in names):
        if {sha256(data) for _, data in found} >= wanted:
            break
        if path.is_file() and path.stat().st_size < 1 << 30 and path != file:
            try:
                data = path.read_bytes()
            except OSError:
                continue
            if sha256(data) in wanted:
                found.append((str(path), data))
    if not found:
        raise InputError(
            f"{file}: none of its inputs lies beside it or in the current folder",
            hint="give them: mmx reproduce FILE INPUT...",
        )
    return found
