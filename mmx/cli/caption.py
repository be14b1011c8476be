"""`mmx caption`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

from mmx.cli.batch import each
from mmx.cli.spaces import Cutting, SpaceChoice
from mmx.cli.takes import takes
from mmx.cli.talk import Speaker, report
from mmx.declared import Argument, Option
from mmx.errors import MmxError, PartialFailure, UsageError
from mmx.guided.asked import Asked, asked
from mmx.media.files import Target, is_stream
from mmx.models.store import missing
from mmx.options import Overwrite, Saying, Seed

if TYPE_CHECKING:
    from torch import Tensor

    from mmx.guided.captioner import Captioner

SCHEMA = "mmx.caption/1"
SUFFIXES = (".txt", ".jsonl")


@dataclass(frozen=True)
class Captioned:
    """What is captioned, and where the captions go."""

    inputs: Annotated[
        list[str],
        Argument(
            metavar="INPUT...",
            help="Pictures, sounds, videos, folders, globs, - for stdin, or sums as of mmx search.",
            show_default=False,
        ),
    ]
    output: Annotated[
        Optional[str],
        Option(
            "-o",
            "--output",
            metavar="OUT",
            show_default=False,
            help="Also into a file: .txt, a caption a line, or .jsonl, with what made each. Default: stdout alone.",
        ),
    ] = None
    num: Annotated[int, Option("-n", "--num", min=1, max=64, help="How many captions of each input.")] = 1
    overwrite: Overwrite = False

    def target(self) -> Target | None:
        """The file. Raises UsageError before any work."""
        if self.output is None:
            return None
        if self.output == "-" or not (is_stream(self.output) or Path(self.output).suffix.lower() in SUFFIXES):
            raise UsageError(
                f"-o {self.output}: captions go into {' or '.join(SUFFIXES)} files",
                hint="without -o they go to stdout",
            )
        target = Target(Path(self.output))
        target.check(overwrite=self.overwrite)
        return target


@dataclass(frozen=True)
class Writing:
    """How a caption is written."""

    prefix: Annotated[
        Optional[str],
        Option(
            metavar="TEXT",
            show_default=False,
            help='What captions begin with. Default: "Image of a", of sounds "The sound of a".',
        ),
    ] = None
    steps: Annotated[
        Optional[int],
        Option(
            min=0,
            max=100,
            show_default=False,
            help="Gradient steps a token; 0 leaves the language model alone, and the space only chooses. With --fast "
            "the times a sentence is gone over. Default: 5; with --fast 3.",
        ),
    ] = None
    candidates: Annotated[
        int,
        Option(min=2, max=100_000, help="Of so many likely next tokens the space says how they fit."),
    ] = 128
    beam: Annotated[
        int, Option(min=1, max=64, help="Captions that are written side by side; the space chooses among them.")
    ] = 5
    fast: Annotated[
        bool, Option("--fast", help="Draw captions by Gibbs sampling instead, without gradients: rougher ones.")
    ] = False
    batch: Annotated[
        int,
        Option(min=1, max=256, help="Inputs that are captioned side by side: faster, but the last bits may differ."),
    ] = 1
    seed: Seed = 0


@dataclass(frozen=True)
class Language:
    """Which language model writes, and in what it computes."""

    lm: Annotated[
        Optional[str],
        Option(
            metavar="FOLDER",
            show_default=False,
            help="A causal language model: what mmx train-lm made, or any of the transformers library; hf-hub: ids, "
            "too. Default: the starter.",
        ),
    ] = None
    dtype: Annotated[str, Option("--dtype", help="Of the language model: auto, fp32, bf16 or fp16.")] = "auto"

    def check(self) -> None:
        """Raise UsageError for a folder that is not there, before any work."""
        if missing(self.lm):
            raise UsageError(f"--lm {missing(self.lm)}: no such model folder")


@takes
def caption(
    what: Captioned, writing: Writing, language: Language, cutting: Cutting, choice: SpaceChoice, saying: Saying
) -> None:
    """Say in words what pictures, sounds and sums of them show, by a language model that a space guides.

    mmx caption photo.jpg bark.wav

    mmx caption "beach.jpg + bark.wav" -n 3

    Nothing is trained for it (ZeroCap): for each word the language model's memory is shifted toward what fits.
    """
    target, things = what.target(), asked(what.inputs)
    choice.check()
    language.check()
    say = Speaker(saying)
    captioner = _captioner(what, writing, language, choice)
    made = Made(what, writing, captioner, say)
    pending: list[tuple[Asked, Tensor]] = []

    def work(thing: Asked) -> None:
        pending.append((thing, captioner.compass.query(thing.terms, thing.stdin, cutting.cuts())))
        if len(pending) >= writing.batch:
            made.caption(pending)

    def failed(thing: Asked, error: MmxError) -> None:
        report(error, as_json=saying.as_json, input=thing.name)

    try:
        try:
            each(things, work, name=lambda thing: thing.name, failed=failed)
        except PartialFailure:
            made.caption(pending)
            raise
        made.caption(pending)
    finally:
        if target is not None and made.lines:
            target.write(made.payload(target))
    say.note(f"written by {captioner.lm.at.name}, guided in the space {captioner.space.name}; synthetic")


def _captioner(what: Captioned, writing: Writing, language: Language, choice: SpaceChoice) -> Captioner:
    """From here on it is slow: torch and the models."""
    from mmx.device import placed
    from mmx.guided.caption import Guidance
    from mmx.guided.captioner import Captioner
    from mmx.guided.gibbs import SWEEPS
    from mmx.guided.language import load_language_model

    space = choice.load()
    lm = load_language_model(language.lm, placed(choice.device, language.dtype))
    steps = writing.steps if writing.steps is not None else SWEEPS if writing.fast else Guidance().steps
    guidance = Guidance(steps=steps, candidates=writing.candidates, beam=max(writing.beam, what.num))
    captioner = Captioner(space, lm, guidance, fast=writing.fast)
    if writing.prefix is not None:
        captioner.begin(writing.prefix)
    return captioner


class Made:
    """The captions so far, said as they come. lines: objects of the schema."""

    def __init__(self, what: Captioned, writing: Writing, captioner: Captioner, say: Speaker) -> None:
        self.what, self.writing, self.captioner, self.say = what, writing, captioner, say
        self.lines: list[dict[str, Any]] = []

    def caption(self, pending: list[tuple[Asked, Tensor]]) -> None:
        """All that is pending, side by side where it begins alike; then nothing is."""
        import torch

        given, pending[:] = list(pending), []
        for prefix in dict.fromkeys(self._prefix(thing) for thing, _ in given):
            own = [(thing, point) for thing, point in given if self._prefix(thing) == prefix]
            points = torch.stack([point for _, point in own])
            found = self.captioner.captions(points, prefix, self.what.num, seed=self.writing.seed)
            for (thing, _), captions in zip(own, found, strict=True):
                about = self._about(thing, prefix) | {"captions": [vars(caption) for caption in captions]}
                self.lines.append(about)
                self.say.result(about, "\n".join(f"{thing.name}: {caption.text}" for caption in captions))

    def _prefix(self, thing: Asked) -> str:
        return thing.opening if self.writing.prefix is None else self.writing.prefix

    def _about(self, thing: Asked, prefix: str) -> dict[str, Any]:
        import mmx

        captioner = self.captioner
        settings = {"prefix": prefix, "seed": self.writing.seed, "fast": self.writing.fast}
        settings |= {name: getattr(captioner.guidance, name) for name in ("steps", "candidates", "beam")}
        return {
            "schema": SCHEMA,
            "version": mmx.__version__,
            "synthetic": True,
            "input": thing.name,
            "inputs": thing.about(),
            "settings": settings,
            "lm": captioner.lm.at.as_dict(),
            "space": {"name": captioner.space.name, "sha256": captioner.space.fingerprint},
        }

    def payload(self, target: Target) -> bytes:
        """What goes into the file: an object a line, or a caption a line."""
        if str(target.path).lower().endswith(".jsonl"):
            return "".join(f"{json.dumps(line)}\n" for line in self.lines).encode()
        return "".join(f"{caption['text']}\n" for line in self.lines for caption in line["captions"]).encode()
