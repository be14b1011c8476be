"""`mmx train-decoder speech`: discrete units of speech, then the vocoder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.data.spoken_captions import load_spoken
from mmx.decoders.base import fingerprint
from mmx.decoders.speech import PARTS, SpeechDecoder, save_speech_decoder
from mmx.device import device_of
from mmx.models.store import seal
from mmx.nets.speech import HOP, UnitCodec, Vocos, speech_mel
from mmx.training.card import speech_card
from mmx.training.decoders.stages import Stages, data_digest
from mmx.training.engine.initial import take_fitting
from mmx.training.engine.loop import LoopConfig

FRAMES = 96  # of mel in a training crop of the codec: 1.5 s
SEGMENT = 32  # of mel in a training crop of the vocoder: 0.5 s


@dataclass
class Clips:
    """Utterances in memory: waveforms (T,) float16, their log-mels (F, 80) float16, the voice's number and the metadata
    of each.
    """

    waves: list[Tensor]
    mels: list[Tensor]
    voices: Tensor
    meta: list[dict]


@dataclass
class SpeechRecipe:
    """Everything `mmx train-decoder speech` was asked for. start: a finished decoder, whose weights are gone on from
    where they fit.
    """

    data: Path
    run: Path
    seed: int = 0
    device: str = "cpu"
    steps: dict[str, int] = field(default_factory=dict)
    start: Path | None = None
    units: dict = field(default_factory=lambda: {"units": 512})
    vocoder: dict = field(default_factory=lambda: {"rounds": 4})
    quiet: bool = False
    command: str = ""
    notes: str = ""

    def schedule(self, stage: str) -> LoopConfig:
        """The stage's schedule with the recipe's seed, device and number of steps."""
        usual = SCHEDULES[stage]
        steps = self.steps.get(stage, usual.max_steps)
        return replace(
            usual, max_steps=steps, warmup=min(usual.warmup, steps // 10), seed=self.seed, device=self.device
        )


SCHEDULES = {
    "units": LoopConfig(4000, 32, 1e-3, weight_decay=0.01, ema=0.998, warmup=200, validate_steps=500),
    "vocoder": LoopConfig(16000, 16, 8e-4, weight_decay=0.01, ema=0.998, warmup=200, validate_steps=1000, bf16=False),
}


def load_clips(folder: Path) -> tuple[Clips, Clips, list[str]]:
    """The utterances of a folder → train and val clips and the voices' names."""
    found = list(load_spoken(folder))
    voices = list(dict.fromkeys(meta["voice"] for _, meta in found))
    parts = []
    for val in (False, True):
        own = [(wave, meta) for wave, meta in found if (meta["split"] != "train") == val]
        waves = [torch.from_numpy(wave.samples) for wave, _ in own]
        parts.append(
            Clips(
                [wave.half() for wave in waves],
                [speech_mel(wave[None])[0].half() for wave in waves],
                torch.tensor([voices.index(meta["voice"]) for _, meta in own]),
                [meta for _, meta in own],
            )
        )
    return parts[0], parts[1], voices


def crop_mels(clips: Clips, picks: list[int], places: list[float], frames: int) -> tuple[Tensor, list[int]]:
    """A stretch of each picked clip's mel (B, frames, 80), and where it starts; short clips are filled up with their
    last frame.
    """
    starts = [int(place * max(1, len(clips.mels[pick]) - frames)) for pick, place in zip(picks, places, strict=True)]
    cut = [clips.mels[pick][start : start + frames].float() for pick, start in zip(picks, starts, strict=True)]
    return torch.stack([torch.cat((c, c[-1:].expand(frames - len(c), -1))) for c in cut]), starts


def _even(mel: Tensor, device: torch.device) -> Tensor:
    """A mel (F, 80) as the codec takes it: (1, F or F - 1, 80) float32 on `device`."""
    return mel[: len(mel) // 2 * 2].to(device).float()[None]


class UnitTask:
    """The unit codec: L1 on the mel through a straight-through quantiser (VQ-VAE, van den Oord et al. 2017)."""

    name = "units"
    lower_is_better = ("val_l1",)
    commit = 0.25

    def __init__(self, train: Clips, val: Clips, config: dict, seed: int = 0) -> None:
        self.train, self.val = train, val
        torch.manual_seed(seed)
        self.module = UnitCodec(**config)
        book = self.module.book
        book.uses.zero_()  # no code is in use yet: the first batch places them all
        frames = torch.cat([mel.float() for mel in train.mels])
        self.module.mean.copy_(frames.mean(0))
        self.module.std.copy_(frames.std(0) + 1e-3)
        # long clips are seen as often as they are long
        self.weights = torch.tensor([float(len(mel)) for mel in train.mels])

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        picks = torch.multinomial(self.weights, size, replacement=True, generator=generator).tolist()
        mel, _ = crop_mels(self.train, picks, torch.rand(size, generator=generator).tolist(), FRAMES)
        return {"mel": mel, "voices": self.train.voices[picks]}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        codec = self.module
        vectors = codec.vectors(batch["mel"]).float()
        chosen = codec.book.nearest(vectors.detach())
        codec.book.follow(vectors.detach().flatten(0, 1), chosen.flatten(), generator)
        codes = codec.book.rows[codec.book.nearest(vectors.detach())]
        rebuilt = codec.render(vectors + (codes - vectors).detach(), batch["voices"]).float()
        l1 = ((rebuilt - batch["mel"]) / codec.std).abs().mean()
        commit = F.mse_loss(vectors, codes)
        return l1 + self.commit * commit, {"l1": l1.item(), "commit": commit.item()}

    def validate(self, module: nn.Module) -> dict[str, float]:
        errors, used = [], []
        for mel, voice in zip(self.val.mels, self.val.voices, strict=True):
            even = _even(mel, device_of(module))
            units = module.encode(even)
            errors.append(((module.decode(units, voice[None].to(even.device)) - even) / module.std).abs().mean())
            used.append(units.flatten())
        shares = torch.bincount(torch.cat(used), minlength=len(module.book.rows)).float()
        shares = shares / shares.sum()
        perplexity = torch.exp(-(shares * (shares + 1e-9).log()).sum()).item()
        return {"val_l1": torch.stack(errors).mean().item(), "unit_perplexity": perplexity}

    def preview(self, module: nn.Module, path: Path) -> None:
        """What is said again is heard, not seen; the vocoder's stage writes sound."""


def spectral_distance(a: Tensor, b: Tensor) -> Tensor:
    """Multi-resolution STFT loss (Yamamoto et al. 2020): spectral convergence and L1 of log magnitudes. a, b:
    (B, T).
    """
    total = a.new_zeros(())
    for size in (256, 512, 1024, 2048):
        window = torch.hann_window(size, device=a.device)
        x, y = (
            torch.stft(wave, size, size // 4, size, window, return_complex=True).abs().clamp(min=1e-5)
            for wave in (a, b)
        )
        convergence = (y - x).norm(dim=(1, 2)) / (y.norm(dim=(1, 2)) + 1e-3)
        total = total + convergence.mean() + (x.log() - y.log()).abs().mean()
    return total / 4


class VocoderTask:
    """Mel → waveform. Half of the crops are mels that the unit codec has rebuilt, as they will be in use."""

    name = "vocoder"
    lower_is_better = ("val_stft",)
    rebuilt_share = 0.5
    mel_weight = 10.0  # log10-mels are close to each other where magnitudes are not

    def __init__(self, train: Clips, val: Clips, codec: UnitCodec, config: dict, seed: int = 0) -> None:
        self.train, self.val, self.codec = train, val, codec.eval().requires_grad_(False)
        torch.manual_seed(seed)
        self.module = Vocos(**config)
        self.weights = torch.tensor([float(len(mel)) for mel in train.mels])
        with torch.no_grad():
            self.rebuilt = [
                self._said_again(mel, voice).half().cpu() for mel, voice in zip(train.mels, train.voices, strict=True)
            ]

    def _said_again(self, mel: Tensor, voice: Tensor) -> Tensor:
        """A mel (F, 80) through the units of the codec, where the codec is."""
        device = device_of(self.codec)
        return self.codec.decode(self.codec.encode(_even(mel, device)), voice[None].to(device))[0]

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        picks = torch.multinomial(self.weights, size, replacement=True, generator=generator).tolist()
        places = torch.rand(size, generator=generator).tolist()
        mels, starts = crop_mels(self.train, picks, places, SEGMENT)
        again, waves = [], []
        for pick, start in zip(picks, starts, strict=True):
            wave = self.train.waves[pick][start * HOP : (start + SEGMENT) * HOP].float()
            waves.append(F.pad(wave, (0, SEGMENT * HOP - len(wave))))
            cut = self.rebuilt[pick][start : start + SEGMENT].float()
            again.append(torch.cat((cut, cut[-1:].expand(SEGMENT - len(cut), -1))))
        through = torch.rand(size, 1, 1, generator=generator) < self.rebuilt_share
        return {"mel": torch.where(through, torch.stack(again), mels), "waves": torch.stack(waves)}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        said = self.module(batch["mel"])
        distance = spectral_distance(said, batch["waves"])
        mel = (speech_mel(said) - speech_mel(batch["waves"])).abs().mean()
        return distance + self.mel_weight * mel, {"stft": distance.item(), "mel": mel.item()}

    def validate(self, module: nn.Module) -> dict[str, float]:
        errors = []
        for mel, wave in list(zip(self.val.mels, self.val.waves, strict=True))[:24]:
            said = module(mel.to(device_of(module)).float()[None])[0, : len(wave)]
            errors.append(spectral_distance(said[None], wave.to(said.device).float()[None, : len(said)]))
        return {"val_stft": torch.stack(errors).mean().item()}

    def preview(self, module: nn.Module, path: Path) -> None:
        """A val utterance through units and vocoder, as a sound."""
        from mmx.decoders.speech import polished
        from mmx.media.audio import Waveform, wav_bytes
        from mmx.nets.speech import SAMPLE_RATE

        again = self._said_again(self.val.mels[0], self.val.voices[0])
        said = module(again.to(device_of(module))[None])[0].cpu()
        path.with_suffix(".wav").write_bytes(wav_bytes(Waveform(polished(said.numpy()), SAMPLE_RATE)))


def train_speech_decoder(recipe: SpeechRecipe) -> SpeechDecoder:
    """Both stages; the result is the folder `run/decoder`, with its card. The same recipe on the same run resumes."""
    train, val, voices = load_clips(recipe.data)
    configs = {"units": recipe.units | {"voices": len(voices)}, "vocoder": recipe.vocoder}
    data = data_digest((*train.waves, *val.waves), train.meta + val.meta)
    first = recipe.start and SpeechDecoder.load(recipe.start)
    init = recipe.start and fingerprint(recipe.start, PARTS)
    stages = Stages(recipe, {"family": "speech", "data": data, "init": init, **configs})
    units = UnitTask(train, val, configs["units"], recipe.seed)
    if first:
        take_fitting(units.module, first.codec.state_dict())
    codec = stages.train(units)
    vocoding = VocoderTask(train, val, codec, configs["vocoder"], recipe.seed)
    if first:
        take_fitting(vocoding.module, first.vocoder.state_dict())
    vocoder = stages.train(vocoding)
    folder = recipe.run / "decoder"
    save_speech_decoder(folder, codec.cpu(), vocoder.cpu(), configs, voices, name="starter-speech/units")
    card = {
        "command": recipe.command,
        "notes": recipe.notes,
        "seed": recipe.seed,
        "utterances": len(train.meta),
        "voices": voices,
        "val": stages.metrics(SCHEDULES),
    }
    (folder / "metrics.json").write_text(json.dumps(card, indent=1), encoding="utf8")
    (folder / "README.md").write_text(speech_card(card), encoding="utf8")
    seal(folder)
    return SpeechDecoder.load(folder)
