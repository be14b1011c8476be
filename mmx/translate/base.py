"""What every translator is: a bridge, the frozen decoder it was trained for, and what they give."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from weakref import WeakSet

import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.bridges.base import Bridge, WordsBridge
from mmx.decoders.base import Decoder
from mmx.errors import UsageError
from mmx.media.given import Watch
from mmx.media.notes import notes_of
from mmx.models.store import Located, locate


@dataclass(frozen=True)
class Blend:
    """Something else to put in, and how much of it: 0 is nothing of it, 1 nothing but it."""

    medium: Any
    weight: float = 0.5


@dataclass
class Translation:
    """What became of one source: pictures or utterances, what was heard, seconds by stage, what drove the decoder, and
    what the user should know. stopped: why it ended before its time, at step `until`, or nothing."""

    media: list[Any]
    heard: list[tuple[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    conditioning: Sequence[Tensor] = ()
    heard_each: list[list[tuple[str, float]]] = field(default_factory=list)  # of each medium, where they differ
    notes: list[str] = field(default_factory=list)
    stopped: str = ""
    until: int | None = None


@dataclass(frozen=True)
class Names:
    """Which bridge and encoder a command was asked for, by name; None is the starter or what the decoder brings."""

    bridge: str | None
    encoder: str | None


def generator_for(seed: int, index: int) -> torch.Generator:
    """The CPU generator of the `index`-th result of any source. It knows nothing of the batch, so neither does the
    result."""
    # hashed: neighbouring seeds with few bits set leave the generator in poor, similar states
    digest = hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Spherical interpolation of two vectors (D,), from a at t = 0 to b at t = 1; norms are interpolated linearly."""
    norm = (1 - t) * a.norm() + t * b.norm()
    a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    angle = torch.arccos((a @ b).clamp(-0.9999, 0.9999))
    return norm * (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


@dataclass(frozen=True)
class Excerpt:
    """Which part of a sound is heard: from `start` on, for `duration` seconds. strict: nothing of it may be missing."""

    start: float | None = None
    duration: float | None = None
    strict: bool = False


class Alone:
    """One thread at a time inside: schedulers and tokenizers remember what they were last asked.

    A forked child finds it free, whoever was inside.
    """

    _all: ClassVar[WeakSet[Alone]] = WeakSet()

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._all.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @classmethod
    def renew(cls) -> None:
        """In a forked child, whose parent's other threads do not live on."""
        for one in cls._all:
            one._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Alone.renew)


class Translator:
    """A bridge and its decoder, loaded. `translator(sources, num=4, seed=0)` gives media; subclasses say how."""

    bridge_kind: type[Bridge]  # that a command loads, unless it goes through words
    notice: ClassVar[str] = ""  # what every artifact has to say beyond being synthetic
    libraries: ClassVar[tuple[str, ...]] = ()  # that the bytes depend on, beyond those of every translator
    options: ClassVar[tuple[str, ...]] = ()  # of a job's settings, what `translate` takes
    watch: Watch | None = None  # is told of each step, where it goes by steps

    def __init__(
        self,
        task: str,
        bridge: Bridge | WordsBridge,
        decoder: Decoder,
        *,
        bridge_at: Located,
        decoder_at: Located,
        encoder_at: Located | None = None,
    ) -> None:
        bridge.require(decoder, bridge_at.name)
        self.task, self.bridge, self.decoder = task, bridge, decoder
        self.bridge_at, self.decoder_at, self.encoder_at = bridge_at, decoder_at, encoder_at
        self.alone = Alone()

    @classmethod
    def open(cls, task: str, names: Names, decoder: Any, decoder_at: Located) -> Translator:
        """Load the bridge, and the encoder where it has one, around a loaded decoder. Raises ModelError, UsageError."""
        bridge_at = locate(names.bridge, task, "bridge")
        own, encoder_at = cls.bridge_kind.load(bridge_at.folder), None
        if own.config.source is not None:
            encoder_at = locate(names.encoder, task, "encoder")
            own.attach(encoder_at)
        elif names.encoder is not None:
            raise UsageError(f"--encoder {names.encoder}: this bridge looks and listens by itself", hint="leave it out")
        return cls(task, own, decoder, bridge_at=bridge_at, decoder_at=decoder_at, encoder_at=encoder_at)

    @property
    def models(self) -> dict[str, Located]:
        """Where each of its models is, by role."""
        found = {"bridge": self.bridge_at, "decoder": self.decoder_at}
        return found | ({"encoder": self.encoder_at} if self.encoder_at else {})

    def read(
        self,
        source: Any,
        *,
        start: float | None = None,
        duration: float | None = None,
        name: str | None = None,
        strict: bool = False,
    ) -> Any:
        """A path, bytes or a decoded medium → what `translate` takes. Raises InputError, with `strict` also for a sound
        of which a part is missing."""
        return self._read(source, name, Excerpt(start, duration, strict))

    def _read(self, source: Any, name: str | None, excerpt: Excerpt) -> Any:
        """As `read`; what has no time takes no notice of the excerpt."""
        raise NotImplementedError

    def notes(self, name: str, medium: Any) -> list[str]:
        """What the user should know of an input that is usable but unusual."""
        return [f"{name}: {note}" for note in notes_of(medium)]

    def translate(self, medium: Any, *, indices: Sequence[int] = (0,), seed: int = 0, **options: Any) -> Translation:
        """One medium that `read` gave, or several to be taken together → a result for each of `indices`."""
        raise NotImplementedError

    def __call__(
        self,
        sources: Any,
        *,
        num: int = 1,
        seed: int = 0,
        start: float | None = None,
        duration: float | None = None,
        **options: Any,
    ) -> list:
        """A source, or a list of them → `num` results, or a list of such lists. `options` are those of `translate`."""
        several, results = isinstance(sources, list), []
        for source in sources if several else [sources]:
            medium = self.read(source, start=start, duration=duration)
            with self.alone:
                results.append(self.translate(medium, indices=range(num), seed=seed, **options).media)
        return results if several else results[0]
