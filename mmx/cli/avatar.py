"""`mmx avatar`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

from mmx.cli.consult import SpaceChoice
from mmx.cli.spaces import own_file
from mmx.cli.takes import takes
from mmx.cli.talk import Speaker
from mmx.declared import Argument, Option
from mmx.errors import Interrupted, NonFiniteError, UsageError
from mmx.extras import require
from mmx.media.files import Source, Target, given_file, is_stream
from mmx.media.formats import MESHES
from mmx.media.given import Given
from mmx.media.names import walk
from mmx.network import Network
from mmx.options import Overwrite, Saying
from mmx.recipes.avatar import AvatarOptions
from mmx.spaces.query import Term, parse_query

if TYPE_CHECKING:
    from mmx.guided.avatar_job import Portrait
    from mmx.guided.residual import Outcome, Step
    from mmx.training.engine.progress import Progress

WRITTEN = (".glb", ".obj", ".ply", ".gif", ".png", ".mp4")
OFTEN = 10  # steps from one preview to the next


@dataclass(frozen=True)
class Sitter:
    """What is dressed, as what, and where it goes."""

    mesh: Annotated[
        Path,
        Argument(metavar="MESH", help="A mesh, or a folder of them, which is a motion of one.", show_default=False),
    ]
    query: Annotated[
        str,
        Argument(
            metavar="QUERY",
            help="What it is to look like: a text, a sound, a picture, or a sum as of mmx search.",
            show_default=False,
        ),
    ]
    output: Annotated[
        list[str],
        Option(
            "-o",
            "--output",
            metavar="OUT",
            show_default=False,
            help="A .glb, .obj, .ply, .gif, .png or .mp4; several may be given. A folder: a .glb of each frame. "
            "Default: MESH-avatar.glb.",
        ),
    ] = field(default_factory=list)
    preview: Annotated[
        Optional[Path],
        Option(
            "--preview", metavar="FILE.png", show_default=False, help=f"Keep a picture of every {OFTEN}th step there."
        ),
    ] = None
    overwrite: Overwrite = False

    def files(self) -> list[Path]:
        """The mesh, or the frames of the motion by name. Raises UsageError."""
        if not self.mesh.is_dir():
            return [given_file(self.mesh, stdin=False)]
        found = [path for path in walk(self.mesh, MESHES) if path.parent == self.mesh]
        if not found:
            raise UsageError(f"{self.mesh}: no mesh in this folder", hint=f"one of {', '.join(MESHES)}")
        return found

    def targets(self, frames: int) -> list[tuple[Target, str, int | None]]:
        """Where results go, of which kind, and of which frame. Raises UsageError before any work."""
        found = []
        for given in self.output or [f"{self.mesh.resolve().stem}-avatar.glb"]:
            suffix = Path(given).suffix.lower()
            if given == "-" or is_stream(given):
                found.append((Target(None if given == "-" else Path(given)), ".glb", None))
            elif suffix in WRITTEN and not given.endswith("/"):
                found.append((Target(Path(given)), suffix, None))
            elif suffix and not os.path.isdir(given) and not given.endswith("/"):
                raise UsageError(f"{given}: this writes {', '.join(WRITTEN)}", hint="give such a name, or a folder")
            else:
                found += [(Target(Path(given) / f"{k:04d}.glb"), ".glb", k) for k in range(frames)]
        for target, *_ in found:
            target.check(overwrite=self.overwrite)
        return found


@takes
def avatar(sitter: Sitter, options: AvatarOptions, choice: SpaceChoice, network: Network, saying: Saying) -> None:
    """Colour and shape a mesh until it looks like what a text says, or what a sound is of.

    mmx avatar spot.obj "a red police van" -o van.glb -o van.gif

    mmx avatar spot.obj cow.wav --steps 300 -o cow.obj

    mmx avatar walk/ "a lion" -o walk.gif
    """
    files, terms = sitter.files(), parse_query(sitter.query)
    if any(term.kind == "stdin" for term in terms):
        raise UsageError("avatar takes no stdin", hint="give a text or a file")
    targets = sitter.targets(len(files))
    preview = own_file(sitter.preview, ".png", "--preview", overwrite=sitter.overwrite)
    choice.check()
    if options.texture:
        require("a texture (--texture)", "xatlas")
    from mmx.guided.avatar_job import AvatarJob, portrait  # from here on it is slow: torch and the models

    meshes = [Given(str(path), Source(path, path).read(), "mesh") for path in files]
    query = [_given(term) for term in terms]
    job = AvatarJob(tuple(meshes), tuple(query), options, choice.device)
    say = Speaker(saying)
    made = portrait(choice.load(), job)
    for note in made.mesh.notes:
        say.note(f"{sitter.mesh}: {note}")
    say.note(f"{len(made.mesh.faces)} triangles in the space {made.sight.space.name}")
    from mmx.training.engine.progress import Progress

    with Progress("avatar", options.steps, 0, 1, quiet=saying.quiet) as progress:
        outcome = made.optimised(_watch(made, preview, progress))
    _write(made, outcome, targets, say)


def _given(term: Term) -> Given:
    if term.kind == "text":
        return Given(term.value, term.value.encode(), "query", term.weight, is_text=True)
    role = "array" if term.kind == "array" else "query"
    return Given(term.value, Source(Path(term.value), Path(term.value)).read(), role, term.weight)


def _watch(made: Portrait, preview: Target | None, progress: Progress) -> Callable[[Step, Sequence[Any]], None]:
    """What is shown of each step."""
    from mmx.guided.avatar_job import preview_bytes

    def watch(step: Step, weights: Sequence[Any]) -> None:
        progress.update(step.index + 1, step.losses, {})
        if preview is not None and step.index % OFTEN == 0:
            preview.write(preview_bytes(made, weights))

    return watch


def _write(made: Portrait, outcome: Outcome, targets: list[tuple[Target, str, int | None]], say: Speaker) -> None:
    """The results, if there are any, and what there is to say of them. Raises where it ended before its time."""
    from mmx.guided.avatar_job import artifact

    total, wrong = made.job.options.steps, outcome.stopped
    if wrong:
        made = replace(made, job=replace(made.job, until=outcome.step))
    at = f"after {outcome.step} of {total} steps"
    if outcome.step:
        for target, suffix, frame in targets:
            target.write(artifact(made, outcome.residual, suffix, frame))
        names = [str(target.path or "-") for target, *_ in targets]
        about = {"schema": "mmx.avatar/1", "input": made.job.meshes[0].name, "outputs": names}
        about |= {"seed": made.job.options.seed, "steps": outcome.step, "stopped": wrong}
        about |= {"losses": outcome.steps[-1].losses, "front": math.degrees(made.sight.front)}
        say.result(about)
        say.note(f"{', '.join('stdout' if name == '-' else name for name in names)}: {at}")
    kept = f"what there was {at} is written" if outcome.step else "nothing was made yet"
    if wrong == "nonfinite":
        raise NonFiniteError(f"the losses are no numbers any more; {kept}", hint="another --seed, or --dtype fp32")
    if wrong == "interrupted":
        raise Interrupted(f"interrupted; {kept}")
