"""Spoken captions: the corpus that the speech decoder and the image-to-speech bridge learn from, made by a
synthesiser.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import soundfile

from mmx.data.captions import words_of
from mmx.data.items import split_named
from mmx.data.shards import find_shards, stream, write_shard
from mmx.errors import InputError, ModelError
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


def say(text: str, voice: str) -> Waveform:
    """A text spoken by flite. Raises ModelError where it is not installed or has no such voice."""
    if shutil.which("flite") is None:
        raise ModelError("flite is not installed", hint="apt-get install flite")
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        done = subprocess.run(["flite", "-voice", voice, "-t", text, "-o", file.name], capture_output=True, check=False)
        data = Path(file.name).read_bytes()
    if done.returncode or not data:
        raise ModelError(f"flite can't speak with the voice {voice}", hint="flite -lv lists the voices")
    return read_audio(data, sample_rate=SAMPLE_RATE, name=text)


def make_corpus(data: Path, output: Path, voices: Sequence[str], workers: int = 4) -> int:
    """Speak the captions of `data`'s photos into `output`/spoken-*.tar: KEY.flac and KEY.json. Returns how many.

    The same photos and voices give the same samples in the same order.
    """
    metas = [sample.meta for path in find_shards(data, "images") for sample in stream(path) if sample.meta]
    if not any("words" in meta for meta in metas):
        raise InputError(f"{data}: the photos' .json have no `words` to speak")
    jobs = [(meta, voice) for meta in captions_of(metas).values() for voice in voices]
    with ThreadPoolExecutor(workers) as pool:
        waves = pool.map(lambda job: say(job[0]["text"], job[1]), jobs)
        for start in range(0, len(jobs), SHARD):
            spoken = zip(range(start, len(jobs)), jobs[start : start + SHARD], islice(waves, SHARD), strict=False)
            samples = ((f"{index:06d}", _files(index, *job, wave)) for index, job, wave in spoken)
            write_shard(output / f"spoken-{start // SHARD:03d}.tar", samples)
    return len(jobs)


def _files(index: int, meta: dict, voice: str, wave: Waveform) -> dict[str, bytes]:
    """An utterance's files, by suffix."""
    buffer = io.BytesIO()
    soundfile.write(buffer, wave.samples, SAMPLE_RATE, format="FLAC")
    about = meta | {"voice": voice, "split": split_of(index)}
    return {"flac": buffer.getvalue(), "json": json.dumps(about).encode()}


def load_spoken(folder: Path) -> Iterator[tuple[Waveform, dict]]:
    """The utterances of spoken-*.tar (captions) and, where they are there, of speech-*.tar (people who read).

    Each comes with its metadata, and `kind`: "spoken" or "speech". People's own split is one of speakers, so it is not
    kept.
    """
    index = 0
    for prefix in ("spoken", "speech"):
        if prefix == "speech" and not list(folder.glob("speech-*.tar")):
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
