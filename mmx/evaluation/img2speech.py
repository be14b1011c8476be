"""The protocol of picture → speech: what a recogniser hears, what the units keep of speech, and whether the speech is
fit to be heard.

Every table has an oracle row and a random row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmx.compat import torchaudio
from mmx.data.photos import Photos, load_photos
from mmx.data.spoken_captions import SPOKEN, load_spoken, with_article
from mmx.decoders.base import Decoder
from mmx.decoders.speech import EDGE, SpeechDecoder, polished
from mmx.errors import UsageError
from mmx.evaluation.metrics import first_of_each
from mmx.evaluation.recogniser import Ear, NameEar
from mmx.evaluation.report import Example, Report, Table
from mmx.media.audio import Waveform
from mmx.nets.speech import FFT, HOP, MELS, SAMPLE_RATE, collapse, mel_filters, speech_mel
from mmx.nets.writer import MAX_UNITS
from mmx.recipes.base import Measuring
from mmx.translate.img2speech import ImageTranslator

Clip = tuple[Waveform, dict]
CEPSTRA = 13  # mel-cepstral coefficients compared, without the zeroth: loudness
PAUSE = 50.0  # dB below the loudest
BAND = (0.6, 6.0)  # seconds that an utterance should last


def mel_cepstral_distortion(a: Tensor, b: Tensor) -> float:
    """Mean distance in dB of a log10-mel (F, 80) to that of the original, b (Kubichek 1993): 10 / ln 10 * sqrt(2 * sum
    of squares).

    Frames more than 50 dB below the original's loudest are pauses and do not count.
    """
    length = min(len(a), len(b))
    spoken = b[:length].amax(1) > b.max() - PAUSE / 20
    floor = float(b.max()) - 2 * PAUSE / 20
    a, b = (mel[:length][spoken].clamp(min=floor) for mel in (a, b))
    basis = torchaudio.functional.create_dct(CEPSTRA + 1, MELS, "ortho")[:, 1:]
    squares = ((a - b) * np.log(10) @ basis).square().sum(1)
    return float((10 / np.log(10) * (2 * squares).sqrt()).mean())


def griffin_lim(mel: Tensor, seed: int = 0, rounds: int = 60) -> Waveform:
    """Log10-mel (F, 80) → speech without a trained vocoder (Griffin and Lim 1984): the row to compare a
    vocoder with.
    """
    import librosa  # brings numba, which takes seconds

    magnitudes = (10**mel @ torch.linalg.pinv(mel_filters())).T.clamp(min=1e-8)
    samples = librosa.griffinlim(
        magnitudes.numpy(), n_iter=rounds, hop_length=HOP, win_length=FFT, n_fft=FFT, random_state=seed
    )
    return Waveform(polished(samples), SAMPLE_RATE)


def word_errors(heard: Sequence[str], said: Sequence[str]) -> float:
    """Word error rate of all sentences together."""
    from torchmetrics.functional.text import word_error_rate

    return word_error_rate(list(heard), list(said)).item()


def loudness(waves: Sequence[Waveform]) -> Tensor:
    """Integrated loudness in LUFS (ITU-R BS.1770-4) of each; the silence that fills up the shorter ones is
    gated out.
    """
    longest = max(SAMPLE_RATE // 2, *(len(wave.samples) for wave in waves))
    padded = np.stack([np.pad(wave.samples, (0, longest - len(wave.samples))) for wave in waves])
    return torchaudio.functional.loudness(torch.from_numpy(padded)[:, None], SAMPLE_RATE)


def resynthesis(decoder: SpeechDecoder, clips: Sequence[Clip], ear: NameEar) -> dict[str, dict[str, float]]:
    """Spoken captions again: as they are, through the vocoder, through units and vocoder, and by Griffin-Lim of the
    same mels.

    wer: of the recogniser that knows which sentences there are; wer_free: of the one that does not; mcd: dB to the
    original. The random row is another clip's speech.
    """
    free = Ear()
    said = [meta["text"] for _, meta in clips]
    waves = [wave for wave, _ in clips]
    mels = [speech_mel(torch.from_numpy(wave.samples)[None])[0] for wave in waves]
    units = decoder.targets(waves)
    rebuilt = [
        decoder.mel(u, voice=meta["voice"] if meta["voice"] in decoder.voices else None)
        for u, (_, meta) in zip(units, clips, strict=True)
    ]
    rows = {
        "original": (waves, mels),
        "oracle: vocoder on the original's mel": ([decoder.vocode(mel) for mel in mels], None),
        "Griffin-Lim on the original's mel": ([griffin_lim(mel) for mel in mels], None),
        "units and vocoder": ([decoder.vocode(mel) for mel in rebuilt], None),
        "units and Griffin-Lim": ([griffin_lim(mel) for mel in rebuilt], None),
        "random: another clip": (waves[1:] + waves[:1], None),
    }
    table = {}
    for name, (spoken, known) in rows.items():
        again = known or [
            speech_mel(torch.from_numpy(level(w, o).samples)[None])[0] for w, o in zip(spoken, waves, strict=True)
        ]
        table[name] = {
            "wer": word_errors([ear.sentence(wave) for wave in spoken], said),
            "wer_free": word_errors([free(wave) for wave in spoken], said),
            "mcd": float(np.mean([mel_cepstral_distortion(a, b) for a, b in zip(again, mels, strict=True)])),
        }
    return table


def people(decoder: SpeechDecoder, clips: Sequence[Clip]) -> dict[str, dict[str, float]]:
    """The same for people who read, by the recogniser that knows no sentences."""
    free = Ear()
    said = ["".join(c for c in meta["text"].lower() if c.isalpha() or c in " '") for _, meta in clips]
    waves = [wave for wave, _ in clips]
    voices = [meta["voice"] if meta["voice"] in decoder.voices else None for _, meta in clips]
    again = [decoder.decode([u], voice=v)[0] for u, v in zip(decoder.targets(waves), voices, strict=True)]
    return {
        name: {"wer_free": word_errors([free(wave) for wave in spoken], said)}
        for name, spoken in {
            "original": waves,
            "units and vocoder": again,
            "random: another clip": waves[1:] + waves[:1],
        }.items()
    }


def level(wave: Waveform, like: Waveform) -> Waveform:
    """A wave at another's root mean square: polishing changed it, and distances should not see that."""
    own, other = (np.sqrt(np.mean(np.square(w.samples, dtype=np.float64))) + 1e-9 for w in (wave, like))
    return Waveform((wave.samples * (other / own)).astype(np.float32), SAMPLE_RATE)


def unit_bleu(written: Sequence[Tensor], references: Sequence[Sequence[Tensor]]) -> float:
    """BLEU-4 (Papineni et al. 2002) over collapsed units, each utterance against all references of its own."""
    from torchmetrics.functional.text import bleu_score

    def line(units: Tensor) -> str:
        return " ".join(map(str, collapse(units)[0].tolist()))

    return bleu_score([line(u) for u in written], [[line(u) for u in own] for own in references]).item()


def name_accuracy(
    heard: Sequence[str | None], truth: Sequence[str], concepts: dict[str, str | None]
) -> dict[str, float]:
    """How often the right name is heard, how often that or another of the same concept, and how often none."""
    right = [h == t for h, t in zip(heard, truth, strict=True)]
    kin = [
        r or (h is not None and concepts[h] is not None and concepts[h] == concepts[t])
        for r, h, t in zip(right, heard, truth, strict=True)
    ]
    return {
        "name": float(np.mean(right)),
        "name_or_concept": float(np.mean(kin)),
        "nothing": float(np.mean([h is None for h in heard])),
    }


def fitness(waves: Sequence[Waveform], written: Sequence[Tensor]) -> dict[str, float]:
    """Whether utterances end, how long and loud they are, and how large their first and last millisecond."""
    seconds = np.array([wave.seconds for wave in waves])
    edge = int(EDGE * SAMPLE_RATE) // 8
    return {
        "ends": float(np.mean([len(collapse(u)[0]) < MAX_UNITS for u in written])),
        "in_time": float(np.mean((seconds >= BAND[0]) & (seconds <= BAND[1]))),
        "shortest_s": float(seconds.min()),
        "longest_s": float(seconds.max()),
        "peak": float(max(np.abs(wave.samples).max() for wave in waves)),
        "quietest_lufs": float(loudness(waves).min()),
        "edge": float(max(np.abs(np.r_[w.samples[:edge], w.samples[-edge:]]).max() for w in waves)),
    }


def measure(translator: ImageTranslator, options: Measuring) -> Report:
    """The whole protocol on one split. Raises InputError, UsageError where the data does not allow it."""
    photos = load_photos(Path(options.data), translator.side, split=options.split)
    clips = list(load_spoken(Path(options.data)))
    if not len(photos):
        raise UsageError(f"--split {options.split}: the data has no such split")
    # new photos may come without new speech: what is said again is then that of val
    spoken = options.split if any(meta["split"] == options.split for _, meta in clips) else "val"
    return evaluate(translator, photos, clips, spoken, seed=options.seed, limit=options.limit or 5)


@dataclass
class Utterances:
    """What was said of photos, and what the corpus says of them. Of each photo: the name of what it shows, the photo,
    the speech, its units, a true caption, that caption's units, and the units of all captions of the name. shuffled:
    other photos in their places."""

    names: list[str]
    pictures: list[Image.Image]
    waves: list[Waveform]
    written: list[Tensor]
    captions: list[Clip]
    caption_units: list[Tensor]
    references: list[list[Tensor]]
    shuffled: list[int]


def utterances(
    translator: ImageTranslator, photos: Photos, spoken: Sequence[Clip], seed: int, limit: int
) -> Utterances:
    """At most `limit` photos of each synset that the corpus has captions of."""
    by_synset = {meta["synset"]: with_article(meta["name"]) for _, meta in spoken}
    picks = first_of_each([meta.get("synset") for meta in photos.meta], sorted(by_synset), limit)
    names = [by_synset[photos.meta[i]["synset"]] for i in picks]
    pictures = [Image.fromarray(photos.pixels[i].numpy()) for i in picks]
    said = [translator.translate(picture, seed=seed) for picture in pictures]
    clips: dict[str, list[tuple[Clip, Tensor]]] = {}
    for clip in spoken:
        own = (clip, translator.decoder.targets([clip[0]])[0])
        clips.setdefault(with_article(clip[1]["name"]), []).append(own)
    draw = np.random.default_rng(seed)
    drawn = [clips[name][int(draw.integers(len(clips[name])))] for name in names]
    return Utterances(
        names,
        pictures,
        waves=[one.media[0] for one in said],
        written=[one.conditioning[0] for one in said],
        captions=[clip for clip, _ in drawn],
        caption_units=[units for _, units in drawn],
        references=[[units for _, units in clips[name]] for name in names],
        shuffled=draw.permutation(len(names)).tolist(),
    )


def evaluate(
    translator: ImageTranslator, photos: Photos, clips: Sequence[Clip], split: str, *, seed: int = 0, limit: int = 5
) -> Report:
    """Tables, with at most `limit` photos a synset, and each synset's first photo with its utterance.

    clips: all utterances of the corpus, with their metadata. split: of those that are said again.
    """
    decoder = translator.decoder
    spoken = [clip for clip in clips if clip[1]["kind"] == "spoken"]
    again = [clip for clip in spoken if clip[1]["split"] == split]
    read = [clip for clip in clips if clip[1]["kind"] == "speech" and clip[1]["split"] == split]
    concepts = {with_article(meta["name"]): meta.get("concept") for _, meta in spoken}
    ear = NameEar(sorted(concepts), SPOKEN)
    said = utterances(translator, photos, spoken, seed, limit)
    heard = [ear(wave) for wave in said.waves]
    original = [wave for wave, _ in said.captions]
    tables: dict[str, Table] = {
        "naming": naming(decoder, said, heard, ear, concepts),
        "unit_bleu": bleus(said),
        "utterances": {
            "img2speech": fitness(said.waves, said.written),
            "original": fitness(original, said.caption_units),
        },
        # of a decoder without a mel between units and samples only the whole way can be measured
        "resynthesis": resynthesis(decoder, again, ear)
        if isinstance(decoder, SpeechDecoder)
        else people(decoder, again),
    }
    if read:
        tables["people"] = people(decoder, read)
    firsts = first_of_each(said.names, list(dict.fromkeys(said.names)), 1)
    titles = [f"{said.names[k]}; heard: {heard[k] or 'nothing'}" for k in firsts]
    shown = zip(titles, firsts, strict=True)
    return Report(tables, [Example(title, said.pictures[k], [said.waves[k]]) for title, k in shown])


def naming(
    decoder: Decoder, said: Utterances, heard: Sequence[str | None], ear: NameEar, concepts: dict[str, str | None]
) -> Table:
    """Which names are heard in what was said, in true captions and in what was said of other photos."""
    oracle = [ear(wave) for wave in decoder.decode(said.caption_units)]
    original = [ear(wave) for wave, _ in said.captions]
    return {
        "img2speech": name_accuracy(heard, said.names, concepts),
        "oracle: units of a true caption": name_accuracy(oracle, said.names, concepts),
        "original: the synthesiser's caption": name_accuracy(original, said.names, concepts),
        "random: another photo's utterance": name_accuracy([heard[i] for i in said.shuffled], said.names, concepts),
    }


def bleus(said: Utterances) -> Table:
    """BLEU of the units against those of all captions of the name."""
    others = [
        [units for units in own if units is not caption]
        for caption, own in zip(said.caption_units, said.references, strict=True)
    ]
    shuffled = [said.written[i] for i in said.shuffled]
    return {
        "img2speech": {"bleu": unit_bleu(said.written, said.references)},
        "oracle: a true caption against the others": {"bleu": unit_bleu(said.caption_units, others)},
        "random: another photo's utterance": {"bleu": unit_bleu(shuffled, said.references)},
    }
