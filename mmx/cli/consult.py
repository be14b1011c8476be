"""Which space a command asks, and where: in this process, in a server, or on a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Optional

from mmx.cli.engine import Wants, connected
from mmx.cli.talk import Speaker
from mmx.declared import Option
from mmx.errors import UsageError
from mmx.models.store import missing
from mmx.network import Network
from mmx.options import Device
from mmx.spaces.question import Answer, Facts, Question, raised

if TYPE_CHECKING:
    from mmx.guided.avatar_given import Dressed, Order, Watcher
    from mmx.spaces.base import Space


@dataclass(frozen=True)
class SpaceChoice(Device):
    """Which joint embedding is used."""

    space: Annotated[
        Optional[str],
        Option(
            "--space",
            metavar="FOLDER",
            show_default=False,
            help="An image decoder's folder, or one of CLIP, SigLIP or CLAP; hf-hub: ids, too. Default: the starter.",
        ),
    ] = None
    bridge: Annotated[
        Optional[str],
        Option(
            "--bridge",
            metavar="FOLDER",
            show_default=False,
            help="By which sounds, or arrays such as drawings, come into an image decoder's space. Default: the "
            "starter, for sounds.",
        ),
    ] = None

    def check(self) -> None:
        """Raise UsageError for a folder that is not there, before any work."""
        for option, name in (("--space", self.space), ("--bridge", self.bridge)):
            if missing(name):
                raise UsageError(f"{option} {missing(name)}: no such model folder")

    def load(self) -> Space:
        """The space. From here on it is slow: torch and the models."""
        from mmx.spaces.load import load_space

        return load_space(self.space, bridge=self.bridge, device=self.device)


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


class Here:
    """A space in this process, and a language model where one writes. Raises ModelError, UsageError, NetworkError
    while they are loaded."""

    width = 1

    def __init__(self, choice: SpaceChoice, language: Language | None) -> None:
        space = choice.load()
        from mmx.spaces.answers import Consulted

        lm = None
        if language is not None:
            from mmx.device import placed
            from mmx.guided.language import load_language_model

            lm = load_language_model(language.lm, placed(choice.device, language.dtype))
        self.consulted = Consulted(space, lm)
        self.facts, self.models = asdict(self.consulted.facts), self.consulted.models

    def ask(self, question: Question) -> Iterator[Answer]:
        """As `Consulted.run`."""
        return self.consulted.run(question)

    def dress(self, order: Order, watcher: Watcher) -> Dressed:
        """As `mmx.guided.avatar_job.dress`."""
        from mmx.guided.avatar_job import dress

        return dress(self.consulted.space, order, watcher)

    def close(self) -> None:
        """They stay loaded."""


@dataclass(frozen=True)
class Consultation:
    """A space that a command asks, here or elsewhere. width: of how many questions at a time."""

    engine: Any
    facts: Facts
    say: Speaker
    models: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def width(self) -> int:
        return self.engine.width

    def dress(self, order: Order, watcher: Watcher) -> Dressed:
        """As `mmx.guided.avatar_job.dress`."""
        return self.engine.dress(order, watcher)

    def ask(self, question: Question) -> list[Answer]:
        """All answers; what is wrong is in the last one."""
        return list(self.engine.ask(question))

    def told(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """Answers whose notes are said. Raises what is wrong with the last one."""
        for answer in answers:
            for note in answer.notes:
                self.say.note(note)
            yield raised(answer)

    def each(self, question: Question) -> Iterator[Answer]:
        """Answers as they come. Raises as `told`."""
        return self.told(self.engine.ask(question))

    def one(self, question: Question) -> Answer:
        """The only answer. Raises as `told`."""
        (answer,) = self.each(question)
        return answer


@contextmanager
def consulting(
    command: str,
    choice: SpaceChoice,
    spread: Network,
    say: Speaker,
    *,
    language: Language | None = None,
    folders: tuple[str, ...] = (),
) -> Iterator[Consultation]:
    """A space while a command asks it. folders: that it is told of, beside the models'. Raises as `connected`."""
    models = {"space": choice.space, "bridge": choice.bridge} | ({"lm": language.lm} if language else {})
    placement = {"device": choice.device, "dtype": language.dtype if language else "auto"}
    placement |= {"low_memory": False, "compile": False}
    wants = Wants(command, models, placement, partial(Here, choice, language), folders)
    engine = connected(spread, wants, say.note)
    try:
        facts = engine.facts | {"modalities": tuple(engine.facts["modalities"])}
        yield Consultation(engine, Facts(**facts), say, engine.models)
    finally:
        engine.close()
