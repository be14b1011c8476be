"""The one table of tasks: what each turns into what, on which models, and where its code is. Imports nothing heavy."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
    that these need. origin: of a composed row what its bridges take, a key of the table of sources. stepped: whether it
    goes by steps, at each of which it may be stopped with what is best by then. verb: how notes
    introduce what was heard.
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
    origin: str = ""
    verb: str = "heard"
    stepped: bool = False


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
        starters={"bridge": "img2speech", "decoder": "speech", "encoder": "eyes"},
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
        # the same prior reads texts; a bridge from texts reads them by the decoder's own tower
        starters={"bridge": "sound2img", "decoder": "image", "encoder": "image"},
        translator="mmx.translate.text2img:TextTranslator",
    ),
    Task(
        "edit",
        source=Side("image", "faces"),
        target=Side("image"),
        starters={"decoder": "face"},
        translator="mmx.guided.edit:Editor",
        protocol="mmx.evaluation.edit:measure",
        measured_with=("cv2",),
        stepped=True,
    ),
)


@dataclass(frozen=True)
class End:
    """What is the same for all tasks that begin, or end, in a medium. columns: of their rows."""

    side: Side
    starters: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)


_POINTS = {
    "translator": "mmx.translate.points:PointTranslator",
    "trainer": "mmx.training.bridges.any_point:AnyPointTask",
    "losses": (*COMPARING, "prior"),
    "protocol": "mmx.evaluation.pairs:measure",
    "pairs_protocol": "mmx.evaluation.pairs:measure",
    "measured_with": ("torchmetrics",),
}
_UNITS = {
    "translator": "mmx.translate.units:UnitTranslator",
    "trainer": "mmx.training.bridges.any_units:AnyUnitsTask",
    "losses": ("units",),
    "protocol": "mmx.evaluation.spoken_pairs:measure",
    "pairs_protocol": "mmx.evaluation.spoken_pairs:measure",
    "measured_with": ("torchmetrics", "pocketsphinx"),
}
_SOURCES = {
    "sound": End(Side("sound", "sounds", ("audios", "sounds", "sources"))),
    "voice": End(Side("sound", "voices", ("audios", "voices", "sources"))),
    "img": End(Side("image", "images", ("images", "sources")), {"encoder": "image"}),
    "text": End(Side("text", "texts", ("texts", "sources")), {"encoder": "image"}),
    "array": End(Side("array", "arrays", ("arrays", "sources"))),
}
_TARGETS = {
    "img": End(Side("image", "images", ("images", "targets")), {"decoder": "image"}, _POINTS),
    "face": End(Side("image", "faces", ("images", "faces", "targets")), {"decoder": "face"}, _POINTS),
    "speech": End(Side("sound", "spoken", ("audios", "spoken", "targets")), {"decoder": "speech"}, _UNITS),
}
_KEYS = ("identity", "concept", "synset", "gender")  # of labelled shards of any kind
# of commands that no bridge translates for: role → starter model
GUIDED: dict[str, dict[str, str]] = {"caption": {"lm": "lm"}, "words": {"words": "words"}}
_LACKS = {"trainer": " to train a bridge for", "protocol": " to measure", "keys": " with training data"}
TASKS: dict[str, Task] = {row.name: row for row in _ROWS}


def starters(name: str) -> Mapping[str, str]:
    """Of a task, or of a command without a bridge: role → starter model."""
    return GUIDED[name] if name in GUIDED else task(name).starters


def task(name: str, *, having: str = "translator") -> Task:
    """The task of this name: its row, or SOURCE2TARGET composed of its two ends; having: a column that must not be
    empty, such as "trainer".

    Raises UsageError that lists what there is.
    """
    there = {row.name: row for row in TASKS.values() if getattr(row, having)}
    found = there.get(name) or _composed(name)
    if found is None:
        others = f"any of {'|'.join(_SOURCES)}, then 2, then any of {'|'.join(_TARGETS)}"
        raise UsageError(
            f"{name}: no such task{_LACKS.get(having, '')}", hint=f"there are: {', '.join(there)}, and {others}"
        )
    return found


def _composed(name: str) -> Task | None:
    """The row of a task that has none: any source's frontend with any decoder's space."""
    first, _, second = name.partition("2")
    source, target = _SOURCES.get(first), _TARGETS.get(second)
    if source is None or target is None:
        return None
    shared = set(source.side.folders) & set(target.side.folders)  # a folder of pairs holds each side once
    sides = (replace(e.side, folders=tuple(f for f in e.side.folders if f not in shared)) for e in (source, target))
    starters = {**source.starters, **target.starters}
    return Task(name, *sides, starters=starters, keys=_KEYS, origin=first, **target.columns)


def find(reference: str) -> Any:
    """What "module:attribute" names; its module is imported now."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)
