"""Sentences about the photos' things and looks, made of real captions, and sentences about other things."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from mmx.data.captions import TEMPLATES
from mmx.data.looks import LOOKS, SAID
from mmx.data.things import AMBIGUOUS, plural
from mmx.errors import InputError

OF_THINGS = (*TEMPLATES, "the {}", "a close-up of a {}", "a small {}", "a big {}", "an old {}", "a photo of an old {}")
OF_BOTH = (
    "a {look} {{}}",
    "a photo of a {look} {{}}",
    "a {look} photo of a {{}}",
    "a {look} picture of a {{}}",
    "a {{}} that is {look}",
    "a {{}} on a {look} background",
)
OF_LOOKS = (
    "a {look} picture",
    "a {look} photo",
    "a {look} image",
    "a photo that is {look}",
    "{look}",
    "something {look}",
    "everything is {look}",
    "a picture in {look} colours",
)
EVERY_VAL = 20  # of captions and of other nouns, one in so many is kept for val
# what names something is at times put after one of these: captions of pictures and sounds begin so
OF_PICTURES = ("image of {}", "a photo of {}", "a picture of {}", "an image of {}")
OF_SOUNDS = ("the sound of {}", "sound of {}")
INTRODUCED = 0.4  # share of what names something
NAMING = re.compile(r"^(?:a|an|the) (?!.*\b(?:photo|picture|image|sound)\b)")
# shares of a batch: about a thing, of these with a look, about a look alone; the rest is about other things
THING, WITH_LOOK, LOOK_ALONE = 0.6, 0.45, 0.1
NOUN = re.compile(r"\b(?:a|an|the) ([a-z]{3,}) (?:is|in|on|with|and|at|near|that|by|sits|stands|runs)\b")


@dataclass(frozen=True)
class Sentence:
    """group: of things, by number; as many as there are groups for anything, -1 for what no photo shows. look: by
    number in LOOKS, or -1. named: where in the text the thing's name begins."""

    text: str
    group: int
    look: int = -1
    named: int = 0


def read_captions(files: Sequence[Path]) -> list[str]:
    """The lines of text files. Raises InputError for one that can't be read or holds none."""
    lines: list[str] = []
    for file in files:
        try:
            found = [" ".join(line.lower().split()).rstrip(" .") for line in file.read_text("utf8").splitlines()]
        except (OSError, UnicodeDecodeError):
            raise InputError(f"{file}: no captions in UTF-8 can be read from it") from None
        lines += [line for line in found if line]
    if not lines:
        raise InputError(f"{', '.join(map(str, files)) or 'no file'}: there are no captions in it")
    return lines


def with_articles(text: str) -> str:
    """A sentence whose indefinite articles fit the letter after them."""
    text = re.sub(r"\ban(?= [^aeiou\W])", "a", text)
    return re.sub(r"\ba(?= [aeiou])", "an", text)


def introduced(
    rng: random.Random,
    sentence: str,
    share: float = INTRODUCED,
    openings: Sequence[str] = (*OF_PICTURES, *OF_SOUNDS),
) -> str:
    """A sentence that begins by naming something, at times as that of which there is a picture or a sound."""
    if not NAMING.match(sentence) or rng.random() >= share:
        return sentence
    return rng.choice(openings).format(sentence)


class Frames:
    """Captions with a place for a name where they had one of a known thing's, and captions about other things."""

    def __init__(self, captions: Sequence[str], names: Sequence[str]) -> None:
        sure = [name for name in names if not set(name.split()) <= AMBIGUOUS]
        self.forms = {name: "{}" for name in sure} | {plural(name): "{}s" for name in sure}
        self.singular = {form: name for name in sure for form in (plural(name), name)}
        about_looks = {*LOOKS, *chain(*SAID.values())}
        self.known = re.compile(rf"\b{_any_of(self.forms)}\b")
        self.unsure = re.compile(rf"\b{_any_of({*names, *map(plural, names)})}\b")
        self.coloured = re.compile(rf"\b{_any_of(about_looks)} (?=\{{)")
        # most captions have none of them, and are spared the long expressions
        self.firsts = {re.split(r"\W", word)[0] for name in names for word in (name, plural(name))}
        self.frames: list[str] = []
        self.said_of: list[str] = []  # what each of these had in its place
        self.others: list[str] = []
        for caption in captions:
            self._sort(caption)
        counts = Counter(noun for caption in self.others for noun in NOUN.findall(caption))
        self.nouns = sorted(noun for noun, count in counts.items() if count > 1 and noun not in about_looks)

    def _sort(self, caption: str) -> None:
        if "{" in caption or "}" in caption:
            return
        spoken = not self.firsts.isdisjoint(re.split(r"\W+", caption))
        found = self.known.findall(caption) if spoken else []
        if len(found) == 1:
            frame = self.known.sub(lambda match: self.forms[match[0]], caption)
            self.frames.append(self.coloured.sub("", frame))
            self.said_of.append(self.singular[found[0]])
        elif not (spoken and self.unsure.search(caption)):
            self.others.append(caption)


def _any_of(words: Iterable[str]) -> str:
    """An expression for any of these words, the longest first."""
    return f"(?:{'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))})"


class Sentences:
    """Draws sentences. names: of each group of things."""

    def __init__(self, captions: Sequence[str], names: Sequence[Sequence[str]]) -> None:
        self.names = names
        self.frames = Frames(captions, sorted(set(chain(*names))))
        self.weights = [len(own) for own in names]

    def draw(self, rng: random.Random) -> Sentence:
        """One of those for training."""
        kind = rng.random()
        if kind < THING:
            group = rng.choices(range(len(self.names)), self.weights)[0]
            look = rng.randrange(len(LOOKS)) if rng.random() < WITH_LOOK else -1
            name = rng.choice(self.names[group])
            text = self._about(rng, name, look)
            text = introduced(rng, with_articles(text) if rng.random() < 0.5 else text)
            return Sentence(text, group, look, max(0, text.find(name)))
        if kind < THING + LOOK_ALONE:
            look = rng.randrange(len(LOOKS))
            return Sentence(rng.choice(OF_LOOKS).format(look=self._word(rng, look)), len(self.names), look)
        return Sentence(introduced(rng, self._other(rng)), -1)

    def _word(self, rng: random.Random, look: int) -> str:
        return rng.choice(SAID.get(LOOKS[look], (LOOKS[look],)))

    def _about(self, rng: random.Random, name: str, look: int = -1) -> str:
        """A sentence about a thing."""
        word = self._word(rng, look) if look >= 0 else ""
        if rng.random() < 0.5 or not self.frames.frames:
            frame = rng.choice(OF_BOTH).format(look=word) if word else rng.choice(OF_THINGS)
            return frame.format(name)
        frame = _one_of(rng, self.frames.frames)
        return filled(frame, name, word)

    def _other(self, rng: random.Random) -> str:
        """A sentence about something that no photo shows; a third of the nouns are words that there are not."""
        kind, others, nouns = rng.random(), self.frames.others, self.frames.nouns
        if not nouns or (kind < 0.5 and others):
            return _one_of(rng, others) if others else rng.choice(OF_THINGS).format(_invented(rng, ["nothing"]))
        noun = _one_of(rng, nouns) if rng.random() < 0.67 else _invented(rng, nouns)
        return self._about(rng, noun, rng.randrange(len(LOOKS)) if rng.random() < 0.2 else -1)

    def held_out(self, rng: random.Random, count: int) -> tuple[list[str], list[str]]:
        """Sentences for val, of captions and nouns that `draw` leaves out: about things, and about others."""
        frames = self.frames.frames[::EVERY_VAL] or list(OF_THINGS)
        others = self.frames.others[::EVERY_VAL] or ["nothing"]
        nouns = self.frames.nouns[::EVERY_VAL] or ["nothing"]
        names = [rng.choice(rng.choice(self.names)) for _ in range(count)]
        about = [filled(rng.choice((frames, OF_THINGS)[k % 2]), name) for k, name in enumerate(names)]
        other = [rng.choice(others) if k % 2 else rng.choice(OF_THINGS).format(rng.choice(nouns)) for k in range(count)]
        return about, other


def filled(frame: str, name: str, look: str = "") -> str:
    """A frame with a thing's name in it, and a look before the name."""
    before = f"{look} " if look else ""
    return frame.replace("{}s", before + plural(name)).replace("{}", before + name)


def _one_of(rng: random.Random, items: Sequence[str]) -> str:
    """One that is not for val, where there are others."""
    number = rng.randrange(len(items))
    if number % EVERY_VAL == 0 and len(items) > 1:
        number = number + 1 if number + 1 < len(items) else number - 1
    return items[number]


def _invented(rng: random.Random, nouns: Sequence[str]) -> str:
    """The beginning of one word and the end of another."""
    first, last = rng.choice(nouns), rng.choice(nouns)
    return first[: rng.randint(1, 3)] + last[-rng.randint(2, 5) :] + rng.choice(("", "o", "ix", "er"))
