"""The one table of tasks: what each turns into what, on which models, and where its code is. Imports nothing heavy."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmx.errors import UsageError

COMPARING = ("infonce", "infonce-l2", "mse", "cosine")  # losses that compare a bridge's points with their targets


@dataclass(frozen=True)
class Side:
    """One side of a task: the modality, the prefix of its shards, and the names that its folder may have."""

    modality: str
    prefix: str = ""
    folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A translating command.

    What is "module:attribute" is found with `find`, so that a command imports only its own models. starters: role →
    starter model. keys: of the metadata of labelled shards, what pairs the two sides, the best first. by_words:
    bridges that are not trained, by the name that --bridge takes → translator. trainer: the `BridgeTask` that
    `train_bridge` trains, fused_trainer that of a bridge which sees a picture beside its source.
    losses: what a bridge trains by, the default first. protocol: what measures labelled shards, pairs_protocol what
    measures pairs without labels; functions of a translator and options. measured_with: packages of the extra `train`
    that these need. verb: how notes introduce what was heard.
    """

    name: str
    source: Side
    target: Side
    translator: str
    starters: Mapping[str, str]
    keys: tuple[str, ...] = ()
    by_words: Mapping[str, str] = field(default_factory=dict)
    trainer: str | None = None
    fused_trainer: str | None = None
    losses: tuple[str, ...] = ()
    protocol: str | None = None
    pairs_protocol: str | None = None
    measured_with: tuple[str, ...] = ()
    verb: str = "heard"


_ROWS = (
    Task(
        "sound2img",
        source=Side("sound", "sounds", ("audios", "sounds", "sources")),
        target=Side("image", "images", ("images", "targets")),
        keys=("concept",),
        starters={"bridge": "sound2img", "decoder": "image"},
        translator="mmx.translate.sound2img:SoundTranslator",
        by_words={"tags": "mmx.translate.tags:TagsTranslator"},
        trainer="mmx.training.bridges.sound:SoundBridgeTask",
        fused_trainer="mmx.training.bridges.fusion:FusionTask",
        losses=(*COMPARING, "prior"),
        protocol="mmx.evaluation.sound2img:measure",
        pairs_protocol="mmx.evaluation.pairs:measure",
        measured_with=("torchmetrics",),
    ),
    Task(
        "voice2face",
        source=Side("sound", "voices", ("audios", "voices", "sources")),
        target=Side("image", "faces", ("images", "faces", "targets")),
        keys=("identity", "gender"),
        starters={"bridge": "voice2face", "decoder": "face"},
        translator="mmx.translate.voice2face:VoiceTranslator",
        trainer="mmx.training.bridges.voice:VoiceBridgeTask",
        losses=("speech2face", *COMPARING),
        protocol="mmx.evaluation.voice2face:measure",
        pairs_protocol="mmx.evaluation.pairs:measure",
        measured_with=("torchmetrics", "cv2"),
        verb="the voice suggests",
    ),
    Task(
        "img2speech",
        source=Side("image", "images", ("images", "sources")),
        target=Side("sound", "spoken", ("audios", "spoken", "targets")),
        keys=("synset",),
        starters={"bridge": "img2speech", "decoder": "speech", "encoder": "image"},
        translator="mmx.translate.img2speech:ImageTranslator",
        by_words={"caption": "mmx.translate.caption:CaptionTranslator"},
        trainer="mmx.training.bridges.image:ImageBridgeTask",
        losses=("units",),
        protocol="mmx.evaluation.img2speech:measure",
        pairs_protocol="mmx.evaluation.spoken_pairs:measure",
        measured_with=("torchmetrics", "pocketsphinx"),
    ),
    Task(
        "text2img",
        source=Side("text"),
        target=Side("image"),
        starters={"bridge": "sound2img", "decoder": "image"},  # the same prior reads texts
        translator="mmx.translate.text2img:TextTranslator",
    ),
)
_LACKS = {"trainer": " to train a bridge for", "protocol": " to measure", "keys": " with training data"}
TASKS: dict[str, Task] = {row.name: row for row in _ROWS}


def task(name: str, *, having: str = "translator") -> Task:
    """The task of this name; having: a column that must not be empty, such as "trainer".

    Raises UsageError that lists what there is.
    """
    there = {row.name: row for row in TASKS.values() if getattr(row, having)}
    if name not in there:
        raise UsageError(f"{name}: no such task{_LACKS.get(having, '')}", hint=f"there are: {', '.join(there)}")
    return there[name]


def find(reference: str) -> Any:
    """What "module:attribute" names; its module is imported now."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)
