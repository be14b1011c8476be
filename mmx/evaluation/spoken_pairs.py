"""The protocol of speech from anybody's pairs of a picture and what is said of it: no labels, no texts.

How like the target's units the written ones are, what a recogniser hears in both, and whether the speech is fit to be
heard.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from mmx.bridges.frontends import MAX_SECONDS
from mmx.evaluation.img2speech import fitness, unit_bleu, word_errors
from mmx.evaluation.pairs import SHOWN, read_pairs
from mmx.evaluation.recogniser import Ear
from mmx.evaluation.report import Example, Report, Table
from mmx.media.audio import Waveform, read_audio
from mmx.nets.speech import SAMPLE_RATE
from mmx.recipes.base import Measuring
from mmx.translate.img2speech import ImageTranslator


def measure(translator: ImageTranslator, options: Measuring) -> Report:
    """The whole protocol on one split of a manifest, of two folders or of shards that hold both sides.

    Raises InputError, UsageError.
    """

    def speech(data: bytes, name: str) -> Waveform:
        return read_audio(data, sample_rate=SAMPLE_RATE, name=name, duration=MAX_SECONDS)

    found = read_pairs(options, translator, speech)
    report = evaluate(translator, found.sources, found.targets, found.names, options.seed)
    report.tables["data"] = found.counts
    return report


def evaluate(
    translator: ImageTranslator,
    pictures: Sequence[Image.Image],
    targets: Sequence[Waveform],
    names: Sequence[str],
    seed: int = 0,
) -> Report:
    """Tables, each with an oracle row (the target's own units, said again) and a random row (another's utterance)."""
    decoder, task = translator.decoder, translator.task
    units = decoder.targets(targets)
    said = [translator.translate(picture, seed=seed) for picture in pictures]
    waves, written = [one.media[0] for one in said], [one.conditioning[0] for one in said]
    rebuilt = decoder.decode(units)
    spoken = {
        "oracle: the target's units": rebuilt,
        task: waves,
        "random: another picture's utterance": waves[1:] + waves[:1],
    }
    references = [[own] for own in units]
    tables: dict[str, Table] = {
        "unit_bleu": {
            "oracle: the target's units, said and heard again": {
                "bleu": unit_bleu(decoder.targets(rebuilt), references)
            },
            task: {"bleu": unit_bleu(written, references)},
            "random: another picture's utterance": {"bleu": unit_bleu(written[1:] + written[:1], references)},
        },
        "utterances": {task: fitness(waves, written), "target": fitness(targets, units)},
        "heard": heard(targets, spoken),
    }
    shown = zip(names[:SHOWN], pictures, waves, targets, strict=False)
    return Report(tables, [Example(name, picture, [wave, target]) for name, picture, wave, target in shown])


def heard(targets: Sequence[Waveform], spoken: dict[str, list[Waveform]]) -> Table:
    """Word errors of what a recogniser hears against what it hears in the targets; `count` of those with words."""
    ear = Ear()
    words = [ear(wave) for wave in targets]
    audible = [index for index, text in enumerate(words) if text]
    if not audible:
        return {name: {"count": 0} for name in spoken}
    said = [words[index] for index in audible]
    return {
        name: {"wer": word_errors([ear(waves[index]) for index in audible], said), "count": len(audible)}
        for name, waves in spoken.items()
    }
