"""`mmx caption`."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Optional

from mmx.cli.consult import Consultation, Language, SpaceChoice, consulting
from mmx.cli.spaces import each_source
from mmx.cli.takes import takes
from mmx.cli.talk import Speaker
from mmx.declared import Argument, Option
from mmx.errors import PartialFailure, UsageError
from mmx.guided.asked import Asked, asked
from mmx.media.files import Target, is_stream
from mmx.network import Spread
from mmx.options import Overwrite, Saying
from mmx.recipes.asking import Captioning, Captions, Cutting, Writing
from mmx.spaces.question import Answer, Question

SCHEMA = "mmx.caption/1"
SUFFIXES = (".txt", ".jsonl")
Numbered = tuple[int, Asked]


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
    num: Captions = 1
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
class SideBySide(Writing):
    """How captions are written, and of how many inputs at a time."""

    batch: Annotated[
        int,
        Option(min=1, max=256, help="Inputs that are captioned side by side: faster, but the last bits may differ."),
    ] = 1


@takes
def caption(
    what: Captioned,
    writing: SideBySide,
    language: Language,
    cutting: Cutting,
    choice: SpaceChoice,
    spread: Spread,
    saying: Saying,
) -> None:
    """Say in words what pictures, sounds and sums of them show, by a language model that a space guides.

    mmx caption photo.jpg bark.wav

    mmx caption "beach.jpg + bark.wav" -n 3

    Nothing is trained for it (ZeroCap): for each word the language model's memory is shifted toward what fits.
    """
    target, things = what.target(), asked(what.inputs)
    choice.check()
    language.check()
    spread.check()
    if spread.on_ray and writing.batch > 1:
        raise UsageError("--batch is for one machine", hint="--engine ray captions inputs side by side as it is")
    say = Speaker(saying)
    written = {option.name: getattr(writing, option.name) for option in fields(Writing)}
    options = Captioning(**written, num=what.num, every=cutting.every)
    with consulting("caption", choice, spread, say, language=language) as space:
        made = Made(space, options)
        try:
            if writing.batch > 1:
                _side_by_side(made, things, writing.batch)
            else:
                _one_by_one(made, things)
        finally:
            if target is not None and made.of:
                target.write(made.payload(target))
        say.note(f"written by {space.models['lm']['name']}, guided in the space {space.facts.name}; synthetic")


def _one_by_one(made: Made, things: list[Asked]) -> None:
    """Caption everything, each for itself. Raises as `each` does."""

    def work(numbered: Numbered) -> list[Answer]:
        return made.space.ask(Question("caption", made.options, numbered[1].contents()))

    def said(numbered: Numbered, answers: list[Answer]) -> None:
        (answer,) = made.space.told(answers)
        made.add(numbered, answer.results[0])

    each_source(things, made.space, work=work, said=said)


def _side_by_side(made: Made, things: list[Asked], batch: int) -> None:
    """Caption everything, several that can be read at a time. Raises as `each` does."""
    pending: list[tuple[Numbered, bytes]] = []

    def work(numbered: Numbered) -> None:
        question = Question("point", made.options, numbered[1].contents())
        pending.append((numbered, made.space.one(question).blobs[0]))
        if len(pending) >= batch:
            made.caption(pending)

    try:
        each_source(things, made.space, work=work)
    except PartialFailure:
        made.caption(pending)
        raise
    made.caption(pending)


class Made:
    """The captions so far, said as they come. of: by the input's number, objects of the schema."""

    def __init__(self, space: Consultation, options: Captioning) -> None:
        self.space, self.options = space, options
        self.guidance: dict[str, int] = space.one(Question("caption", options)).results[0]
        self.of: dict[int, dict[str, Any]] = {}

    def caption(self, pending: list[tuple[Numbered, bytes]]) -> None:
        """All that is pending, side by side where it begins alike; then nothing is."""
        given, pending[:] = list(pending), []
        for prefix in dict.fromkeys(self._prefix(numbered[1]) for numbered, _ in given):
            own = [(numbered, point) for numbered, point in given if self._prefix(numbered[1]) == prefix]
            options = replace(self.options, prefix=prefix)
            found = self.space.one(Question("caption", options, blobs=tuple(point for _, point in own))).results
            for (numbered, _), result in zip(own, found, strict=True):
                self.add(numbered, result)

    def add(self, numbered: Numbered, result: dict[str, Any]) -> None:
        """Say what was written of a thing, and keep it."""
        number, thing = numbered
        about = self._about(thing, self._prefix(thing)) | result
        self.of[number] = about
        self.space.say.result(about, "\n".join(f"{thing.name}: {caption['text']}" for caption in result["captions"]))

    def _prefix(self, thing: Asked) -> str:
        return thing.opening if self.options.prefix is None else self.options.prefix

    def _about(self, thing: Asked, prefix: str) -> dict[str, Any]:
        import mmx

        return {
            "schema": SCHEMA,
            "version": mmx.__version__,
            "synthetic": True,
            "input": thing.name,
            "inputs": thing.about(),
            "settings": {"prefix": prefix, "seed": self.options.seed, "fast": self.options.fast} | self.guidance,
            "lm": self.space.models["lm"],
            "space": {"name": self.space.facts.name, "sha256": self.space.facts.fingerprint},
        }

    def payload(self, target: Target) -> bytes:
        """What goes into the file, in the inputs' order: an object a line, or a caption a line."""
        lines = [self.of[number] for number in sorted(self.of)]
        if str(target.path).lower().endswith(".jsonl"):
            return "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        return "".join(f"{caption['text']}\n" for line in lines for caption in line["captions"]).encode()
