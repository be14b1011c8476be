"""The training-free sound bridge: CLAP names what it hears, and a text prior turns the names into conditioning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.bridges.audio_encoders import Listener
from mmx.bridges.base import WordsBridge, likeliest
from mmx.bridges.words_prompt import Prompter
from mmx.decoders.base import Decoder
from mmx.errors import ModelError
from mmx.media.audio import Waveform

PROMPT = "the sound of {}"  # what CLAP is asked for, of each tag
SHOWN = "a photo of {}"
BESIDE = 0.5  # of the likeliest tag's share: a second tag that is heard at least so much is shown, too
TAGS = (
    "a dog barking", "a cat meowing", "a bird singing", "an owl hooting", "a rooster crowing", "a cow mooing",
    "a sheep bleating", "a horse neighing", "a pig grunting", "a lion roaring", "a wolf howling",
    "a monkey screaming", "an elephant trumpeting", "a frog croaking", "crickets chirping", "a swarm of bees",
    "a baby crying", "children playing", "a crowd cheering", "people talking", "a person laughing", "a choir singing",
    "rain falling", "a thunderstorm", "wind in trees", "ocean waves on a beach", "a waterfall",
    "a stream in a forest", "a campfire", "a volcano erupting", "footsteps on gravel", "a car driving",
    "a motorcycle", "a truck", "a racing car", "a train passing", "a subway", "a tram", "a helicopter",
    "an airplane taking off", "a ship's horn", "a fire engine siren", "a police car siren", "church bells",
    "a clock ticking", "an alarm clock", "a telephone ringing", "a keyboard typing", "a printer", "a washing machine",
    "a vacuum cleaner", "a hair dryer", "a kettle boiling", "frying food", "a glass breaking", "a door knock",
    "a creaking door", "a hammer", "a chainsaw", "a lawn mower", "a drill", "a construction site", "fireworks",
    "a gun shot", "a piano", "an acoustic guitar", "an electric guitar", "a violin", "a cello", "a flute",
    "a trumpet", "a saxophone", "a drum kit", "an accordion", "a harp", "an orchestra", "a rock concert",
    "a fountain", "a ping-pong game", "a basketball game", "a bowling alley", "a market", "a restaurant",
)  # fmt: skip


class TagsBridge(WordsBridge):
    """Sound → CLAP → the likeliest of some tags → a text prior. What no tag says is lost. Points are those of CLAP's
    space."""

    looks = False

    def __init__(self, listener: Listener, prompter: Prompter, tags: Sequence[str] = TAGS) -> None:
        if listener.kind != "clap":
            raise ModelError(
                f"{listener.name} can't be asked in words", hint="--bridge tags wants a CLAP model: --encoder clap"
            )
        self.listener, self.prompter, self.tags = listener, prompter, list(tags)
        self.points = self.points_of(tags)
        self.rate = listener.rate

    @property
    def logit_scale(self) -> float:
        """CLAP's own inverse temperature."""
        return self.listener.logit_scale

    def labelled(self, decoder: Decoder) -> tuple[list[str], Tensor]:
        """The K tags, and their texts in CLAP's space, unit norm (K, C)."""
        return self.tags, self.points

    def points_of(self, names: Sequence[str]) -> Tensor:
        """What may be heard → unit-norm CLAP embeddings (K, C)."""
        return F.normalize(self.listener.embed_texts([PROMPT.format(name) for name in names]), dim=-1)

    def point(self, wave: Waveform) -> Tensor:
        """A sound → its unit-norm CLAP embedding (C,)."""
        return F.normalize(self.listener.listen(wave), dim=-1)

    def shares(self, point: Tensor) -> Tensor:
        """A point (C,) → probabilities (K,) over the tags."""
        return (self.points @ point * self.logit_scale).softmax(0)

    def prompt(self, point: Tensor) -> str:
        """What the decoder's text prior is given for a point (C,)."""
        (first, share), *others = likeliest(self.shares(point), self.tags, 2)
        return SHOWN.format(" and ".join([first, *(name for name, other in others if other >= BESIDE * share)]))

    def sample(self, point: Tensor, generator: torch.Generator) -> Tensor:
        """A point (C,) → one raw conditioning (D,) for the decoder."""
        return self.prompter(self.prompt(point), generator)
