"""Spoken captions: the corpus that the speech decoder and the image-to-speech bridge learn from, made by a
synthesiser.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

import soundfile

from mmx.data.captions import words_of
from mmx.data.items import split_named
from mmx.data.shards import find_shards, stream, write_shard
from mmx.data.synthesisers import spoken
from mmx.errors import InputError
from mmx.media.audio import Waveform, read_audio
from mmx.nets.speech import SAMPLE_RATE

SPOKEN = (
    "{}",
    "a photo of {}",
    "a picture of {}",
    "there is {}",
    "this is {}",
    "i can see {}",
)
SHARD = 400  # utterances a shard


def with_article(name: str) -> str:
    """ "tabby" → "a tabby", "orange" → "an orange"."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def split_of(index: int) -> str:
    """Every twentieth utterance is held out."""
    return "val" if index % 20 == 7 else "train"


def captions_of(metas: Sequence[dict]) -> dict[str, dict]:
    """Every spoken caption → what it belongs to: each synset by its first word, in every template."""
    found = {}
    for synset, meta in sorted({meta["synset"]: meta for meta in metas}.items()):
        name = words_of(meta)[0]
        for template in SPOKEN:
            text = template.format(with_article(name))
            found[text] = {"text": text, "name": name, "synset": synset, "concept": meta.get("concept")}
    return found


def make_corpus(data: Path, output: Path, voices: Sequence[str], sentences: Sequence[str] = ()) -> int:
    """Speak the captions of `data`'s photos into `output`/spoken-*.tar: KEY.flac and KEY.json, and sentences that
    belong to no photo into sentences-*.tar, each by the next voice. Returns how many.

    The same photos and voices give the same samples in the same order.
    """
    metas = [sample.meta for path in find_shards(data, "images") for sample in stream(path) if sample.meta]
    if not any("words" in meta for meta in metas):
        raise InputError(f"{data}: the photos' .json have no `words` to speak")
    jobs = [(meta, voice) for meta in captions_of(metas).values() for voice in voices]
    lines = [({"text": text}, voice) for text, voice in zip(sentences, cycle(voices), strict=False)]
    speech = spoken([(meta["text"], voice) for meta, voice in (*jobs, *lines)])
    for prefix, part in (("spoken", jobs), ("sentences", lines)):
        for start in range(0, len(part), SHARD):
            own = zip(range(start, len(part)), part[start : start + SHARD], islice(speech, SHARD), strict=False)
            samples = ((f"{index:06d}", _files(index, meta, *said)) for index, (meta, _), said in own)
            write_shard(output / f"{prefix}-{start // SHARD:03d}.tar", samples)
    return len(jobs) + len(lines)


def _files(index: int, meta: dict, voice: str, wave: Waveform) -> dict[str, bytes]:
    """An utterance's files, by suffix."""
    buffer = io.BytesIO()
    soundfile.write(buffer, wave.samples, SAMPLE_RATE, format="FLAC")
    about = meta | {"voice": voice, "split": split_of(index)}
    return {"flac": buffer.getvalue(), "json": json.dumps(about).encode()}


def load_spoken(folder: Path) -> Iterator[tuple[Waveform, dict]]:
    """The utterances of spoken-*.tar (captions) and, where they are there, of sentences-*.tar (of no photo) and of
    speech-*.tar (people who read).

    Each comes with its metadata, and `kind`, the prefix. People's own split is one of speakers, so it is not kept.
    """
    index = 0
    for prefix in ("spoken", "sentences", "speech"):
        if prefix != "spoken" and not list(folder.glob(f"{prefix}-*.tar")):
            continue
        for sample in (sample for path in find_shards(folder, prefix) for sample in stream(path)):
            payload = sample.of("sound")
            if payload is None:
                continue
            meta = sample.meta | {"key": sample.key, "kind": prefix}
            meta.setdefault("voice", meta.get("speaker", "unknown"))
            if prefix == "speech" or "split" not in meta:
                meta["split"] = split_of(index)
            meta["split"] = split_named(meta["split"])
            index += 1
            yield read_audio(payload, sample_rate=SAMPLE_RATE, name=sample.key), meta
