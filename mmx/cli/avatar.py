"""`mmx avatar`."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

from mmx.cli.consult import SpaceChoice, consulting
from mmx.cli.spaces import own_file
from mmx.cli.takes import takes
from mmx.cli.talk import Speaker
from mmx.declared import Argument, Option
from mmx.errors import UsageError
from mmx.extras import require
from mmx.guided.avatar_given import OFTEN, WRITTEN, AvatarJob, Dressed, Order, Piece, given_of
from mmx.media.files import Source, Target, given_file, is_stream
from mmx.media.formats import MESHES
from mmx.media.given import Given
from mmx.media.names import walk
from mmx.network import Serving
from mmx.options import Overwrite, Saying
from mmx.recipes.avatar import AvatarOptions
from mmx.spaces.query import parse_query

if TYPE_CHECKING:
    from mmx.progress import Progress


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

    def targets(self, frames: int) -> list[tuple[Target, Piece]]:
        """Where results go, and what each is. Raises UsageError before any work."""
        found = []
        for given in self.output or [f"{self.mesh.resolve().stem}-avatar.glb"]:
            suffix = Path(given).suffix.lower()
            if given == "-" or is_stream(given):
                found.append((Target(None if given == "-" else Path(given)), Piece(".glb")))
            elif suffix in WRITTEN and not given.endswith("/"):
                found.append((Target(Path(given)), Piece(suffix)))
            elif suffix and not os.path.isdir(given) and not given.endswith("/"):
                raise UsageError(f"{given}: this writes {', '.join(WRITTEN)}", hint="give such a name, or a folder")
            else:
                found += [(Target(Path(given) / f"{k:04d}.glb"), Piece(".glb", k)) for k in range(frames)]
        for target, _ in found:
            target.check(overwrite=self.overwrite)
        return found


@takes
def avatar(sitter: Sitter, options: AvatarOptions, choice: SpaceChoice, serving: Serving, saying: Saying) -> None:
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
    if options.texture and serving.server in (None, "none"):  # else whoever computes needs it
        require("a texture (--texture)", "xatlas")
    meshes = tuple(Given(str(path), Source(path, path).read(), "mesh") for path in files)
    job = AvatarJob(meshes, tuple(given_of(term) for term in terms), options, choice.device)
    order, say = Order(job, tuple(piece for _, piece in targets), preview is not None), Speaker(saying)
    with consulting("avatar", choice, serving, say) as space:
        watcher = _Shown(sitter.mesh, space.facts.name, options.steps, preview, say)
        with watcher.shown:
            made = space.dress(order, watcher)
        _write(order, made, [target for target, _ in targets], say)


@dataclass
class _Shown:
    """What is said of a mesh, shown of each step, and kept of some. bar: from the first one on, until `shown` ends."""

    mesh: Path
    space: str
    steps: int
    preview_at: Target | None
    say: Speaker
    shown: ExitStack = field(default_factory=ExitStack)
    bar: Progress | None = None

    def ready(self, notes: list[str], triangles: int) -> None:
        """As of `Watcher`. A second time where a server went away, and it is begun anew here."""
        self.shown.close()
        for note in notes:
            self.say.note(f"{self.mesh}: {note}")
        self.say.note(f"{triangles} triangles in the space {self.space}")
        if not self.say.saying.quiet:
            from mmx.progress import Progress

            self.bar = self.shown.enter_context(Progress("avatar", self.steps, 0, 1))

    def step(self, step: int, total: int, losses: dict[str, float]) -> None:
        """As of `Watcher`."""
        if self.bar is not None:
            self.bar.update(step, losses, {})

    def preview(self, png: bytes) -> None:
        """As of `Watcher`."""
        if self.preview_at is not None:
            self.preview_at.write(png)


def _write(order: Order, made: Dressed, targets: list[Target], say: Speaker) -> None:
    """The results, if there are any, and what there is to say of them. Raises where it ended before its time."""
    options = order.job.options
    for target, artifact in zip(targets, made.artifacts, strict=bool(made.step)):
        target.write(artifact.data)
    if made.step:
        names = [str(target.path or "-") for target in targets]
        about = {"schema": "mmx.avatar/1", "input": order.job.meshes[0].name, "outputs": names}
        about |= {"seed": options.seed, "steps": made.step, "stopped": made.stopped}
        say.result(about | {"losses": made.losses, "front": made.front})
        said = ", ".join("stdout" if name == "-" else name for name in names)
        say.note(f"{said}: after {made.step} of {options.steps} steps")
    wrong = made.wrong(options.steps)
    if wrong is not None:
        raise wrong
