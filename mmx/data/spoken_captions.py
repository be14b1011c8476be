"""Spoken captions: the corpus that the speech decoder and the image-to-speech bridge learn from, made by a synthesiser."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import soundfile

from mmx.data.captions import words_of
from mmx.data.photos import read_shards, shards
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
    import webdataset

    metas = [json.loads(sample["json"]) for sample in read_shards(shards(data, "images")) if "json" in sample]
    if not any("words" in meta for meta in metas):
        raise InputError(f"{data}: the photos' .json have no `words` to speak")
    jobs = [(meta, voice) for meta in captions_of(metas).values() for voice in voices]
    output.mkdir(parents=True, exist_ok=True)
    writer = None
    with ThreadPoolExecutor(workers) as pool:
        for index, ((meta, voice), wave) in enumerate(
            zip(jobs, pool.map(lambda job: say(job[0]["text"], job[1]), jobs), strict=True)
        ):
            if index % SHARD == 0:
                if writer is not None:
                    writer.close()
                writer = webdataset.TarWriter(str(output / f"spoken-{index // SHARD:03d}.tar"), mtime=0.0)
            buffer = io.BytesIO()
            soundfile.write(buffer, wave.samples, SAMPLE_RATE, format="FLAC")
            writer.write(
                {
                    "__key__": f"{index:06d}",
                    "flac": buffer.getvalue(),
                    "json": json.dumps(meta | {"voice": voice, "split": split_of(index)}).encode(),
                }
            )
    if writer is not None:
        writer.close()
    return len(jobs)


def load_spoken(folder: Path) -> Iterator[tuple[Waveform, dict]]:
    """The utterances of spoken-*.tar (captions) and, where they are there, of speech-*.tar (people who read).

    Each comes with its metadata, and `kind`: "spoken" or "speech". People's own split is one of speakers, so it is not kept.
    """
    index = 0
    for prefix in ("spoken", "speech"):
        if prefix == "speech" and not list(folder.glob("speech-*.tar")):
            continue
        for sample in read_shards(shards(folder, prefix)):
            payload = next((sample[suffix] for suffix in ("flac", "ogg", "wav") if suffix in sample), None)
            if payload is None:
                continue
            meta = json.loads(sample.get("json", b"{}")) | {"key": sample["__key__"], "kind": prefix}
            meta.setdefault("voice", meta.get("speaker", "unknown"))
            if prefix == "speech" or "split" not in meta:
                meta["split"] = split_of(index)
            index += 1
            yield read_audio(payload, sample_rate=SAMPLE_RATE, name=sample["__key__"]), meta
