"""One request to a translator, and the artifacts it gives: the same code makes a file and makes it again."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from functools import cache
from importlib.metadata import version
from typing import Any

from PIL import Image

import mmx
from mmx.device import machine
from mmx.digest import sha256
from mmx.errors import InputError, NotAPictureError
from mmx.media.audio import Waveform, wav_bytes
from mmx.media.given import Artifact, Done, Given, Job
from mmx.media.image import grid, png_bytes, read_image
from mmx.media.notes import notes_of
from mmx.media.provenance import SCHEMA, dumps, embed_wav, text_chunks
from mmx.media.texts import text_of
from mmx.options import Settings
from mmx.translate.base import Blend, Translation, Translator

COMMON = (
    "seed",
    "start",
    "duration",
    "device",
    "dtype",
    "average",
    "low_memory",
    "compile",
)  # settings that every translator heeds
SHIFTS = {"plus": 1, "minus": -1}  # roles of inputs whose meaning is added or taken off
LIBRARIES = ("torch", "diffusers", "transformers", "pillow", "soxr")


installed = cache(version)  # reading a package's metadata takes as long as drawing a small picture


def run(translator: Translator, job: Job) -> Done:
    """Read, translate and encode. Raises InputError, UsageError, NonFiniteError."""
    started = time.perf_counter()
    heard = [given for given in job.inputs if given.role not in ("image", *SHIFTS)]
    media = {id(given): _read(translator, given, job) for given in heard}
    blends = _blends(translator, job, media)
    seconds = {"read": time.perf_counter() - started, "bridge": 0.0, "decode": 0.0}
    options = {name: getattr(job.settings, name) for name in translator.options}
    sources = job.of("source")
    notes = [note for given in heard for note in translator.notes(given.name, media[id(given)])]
    notes += [f"{given.name}: {note}" for given in job.of("image") for note in notes_of(blends["image"].medium)]
    translations = []
    for together in [sources] if job.settings.average else [[given] for given in sources]:
        own = [media[id(given)] for given in together]
        with translator.alone:
            done = translator.translate(own, indices=job.indices, seed=job.settings.seed, **options, **blends)
        translations.append(done)
        for stage, took in translations[-1].seconds.items():
            seconds[stage] += took
        notes += [f"{together[0].name}: {note}" for note in done.notes]
    stopped = next((done for done in translations if done.stopped), None)
    if stopped is not None:  # so that it can be made again
        job = replace(job, settings=replace(job.settings, until=stopped.until))
    artifacts = _artifacts(translator, job, translations)
    heard = [t.heard for t in translations]
    took = {k: round(v, 4) for k, v in seconds.items()}
    return Done(artifacts, heard, took, notes, stopped.stopped if stopped else "")


def _read(translator: Translator, given: Given, job: Job) -> Any:
    """An input as the translator takes it; only of a source a part may be asked for."""
    part = {"start": job.settings.start, "duration": job.settings.duration} if given.role == "source" else {}
    return translator.read(given.data, name=given.name, strict=job.strict, **part)


def _meant(translator: Translator, given: Given, strict: bool) -> Any:
    """A text, a picture or else what the translator takes, of which only the meaning counts."""
    if given.is_text:
        return text_of(given.data, given.name)
    try:
        return read_image(given.data, name=given.name)
    except NotAPictureError:
        return translator.read(given.data, name=given.name, strict=strict)


def _blends(translator: Translator, job: Job, media: dict[int, Any]) -> dict[str, Any]:
    """What is blended in, by the option of `translate` that takes it."""
    images = (Blend(read_image(given.data, name=given.name), given.weight) for given in job.of("image"))
    shifts = [(sign, given) for role, sign in SHIFTS.items() for given in job.of(role)]
    found = {
        "mix": [Blend(media[id(given)], given.weight) for given in job.of("mix")],
        "image": next(images, None),
        "shift": [Blend(_meant(translator, given, job.strict), sign * given.weight) for sign, given in shifts],
        "interpolate": next((media[id(given)] for given in job.of("interpolate")), None),
    }
    return {name: blend for name, blend in found.items() if blend}


def _artifacts(translator: Translator, job: Job, translations: list[Translation]) -> list[Artifact]:
    media = [medium for translation in translations for medium in translation.media]
    if job.layout == "single":
        each = translations[0].heard_each or [translations[0].heard] * len(media)
        indices = job.indices[: len(media)]  # all, unless it ended before its time
        return [
            _encode(medium, _record(translator, _whole(job) if index != indices[-1] else job, [heard], [index]))
            for index, medium, heard in zip(indices, media, each, strict=True)
        ]
    pictures = media
    record = _record(translator, job, [translation.heard for translation in translations], list(job.indices))
    if job.layout == "gif":
        return [_encode_gif(pictures, record)]
    columns = len(pictures) if job.layout == "strip" else len(job.indices) if len(translations) > 1 else None
    return [_encode(grid(pictures, columns), record)]


def _whole(job: Job) -> Job:
    """A job as of results that were done before a later one was stopped."""
    return replace(job, settings=replace(job.settings, until=None))


def _encode(medium: Image.Image | Waveform, record: dict[str, Any]) -> Artifact:
    if isinstance(medium, Waveform):
        return Artifact(embed_wav(wav_bytes(medium), record), record)
    return Artifact(png_bytes(medium, text_chunks(record)), record)


def _encode_gif(pictures: list[Image.Image], record: dict[str, Any]) -> Artifact:
    buffer = io.BytesIO()
    there_and_back = pictures + pictures[-2:0:-1]
    there_and_back[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=there_and_back[1:],
        duration=120,
        loop=0,
        comment=dumps(record).encode("utf8"),
    )
    return Artifact(buffer.getvalue(), record)


def _record(
    translator: Translator, job: Job, heard: list[list[tuple[str, float]]], indices: list[int]
) -> dict[str, Any]:
    """What provenance says of an artifact. File names without folders, no times."""
    return {
        "schema": SCHEMA,
        "version": mmx.__version__,
        "synthetic": True,
        **({"notice": translator.notice} if translator.notice else {}),
        "command": job.command,
        "inputs": [given.as_dict() for given in job.inputs],
        "layout": job.layout,
        "indices": indices,
        "settings": {
            name: value for name, value in asdict(job.settings).items() if name in COMMON + translator.options
        },
        **{role: at.as_dict() for role, at in translator.models.items()},
        "heard": heard,
        "machine": machine(),
        "libraries": {name: installed(name) for name in LIBRARIES + translator.libraries},
    }


def job_from_record(record: dict[str, Any], contents: Sequence[tuple[str, bytes]]) -> Job:
    """The job that an artifact's record describes, with its inputs found among `contents` (name, bytes) by sha256.

    Raises InputError that names an input that is not there, or a setting that this version does not know.
    """
    refuse_unknown(record, [option.name for option in fields(Settings)])
    inputs = tuple(inputs_of(record, contents))
    return Job(inputs, Settings(**record["settings"]), tuple(record["indices"]), record["layout"], record["command"])


def refuse_unknown(record: dict[str, Any], names: Sequence[str]) -> None:
    """Raise InputError where a record has settings beside those of these names."""
    unknown = record["settings"].keys() - set(names)
    if unknown:
        raise InputError(
            f"it was made with {', '.join(sorted(unknown))}, which this mmx knows nothing of",
            hint=f"make it again with mmx {record['version']}",
        )


def inputs_of(record: dict[str, Any], contents: Sequence[tuple[str, bytes]]) -> list[Given]:
    """A record's inputs, in order: texts from it, files by sha256 among `contents` (name, bytes). Raises InputError."""
    typed = [entry["text"].encode() for entry in record["inputs"] if "text" in entry]
    by_digest = {sha256(data): data for data in [*(data for _, data in contents), *typed]}
    missing = [entry for entry in record["inputs"] if entry["sha256"] not in by_digest]
    if missing:
        raise InputError(
            f"the input {missing[0]['name']} (sha256 {missing[0]['sha256'][:12]}…) is not here",
            hint="give it after the artifact: mmx reproduce FILE INPUT...",
        )
    return [Given(e["name"], by_digest[e["sha256"]], e["role"], e["weight"], "text" in e) for e in record["inputs"]]
