"""The protocol of edits of faces: whether age and gender move as asked, and all else stays.

A judge that did not guide tells age and gender; likeness is the guiding teacher's own. Rows: the faces as the decoder
draws them without an edit, and once more by other noise, a random direction, and edits without each of their parts; and
what --l2 trades.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmx.data.photos import Photos, load_photos
from mmx.errors import UsageError
from mmx.evaluation.judge import Judge, judge_for
from mmx.evaluation.report import Example, Report, Table
from mmx.guided.edit import Editor
from mmx.guided.edit_terms import LR, STEPS, Wanted, edited
from mmx.guided.residual import Schedule
from mmx.nets.face import GENDERS, FaceEncoder
from mmx.recipes.base import Measuring
from mmx.translate.base import Blend, generator_for

TAUGHT = 6000  # train faces that the judge learns from
FACES, AT_ONCE, INVERT = 12, 80, 40  # faces of a gender: of edits by steps, and of those without; steps of inversion
CHOSEN = """The faces are the first of each gender. How far, how fast and what is held were chosen on some of the
last 160 of each gender of the starter's val split, which are not among them."""
L2 = (0.0, Wanted.l2, 0.2, 0.5, 2.0)  # the points of the curve
OLD = 40  # years: from there on a face is asked to be young, below to be old
NEAR = 1  # age bands by which a face may seem older or younger and still stays


@dataclass(frozen=True)
class Ask:
    """A face, drawn without an edit, and what it is to become. old, male: None where it is not asked for."""

    start: Tensor
    drawn: Image.Image
    text: str
    wanted: Wanted
    old: bool | None = None
    male: bool | None = None


@dataclass(frozen=True)
class Judged:
    """Of a face: the number of its age band, a mean over what the judge thinks, and whether it is male."""

    band: float
    male: bool


Way = Callable[[Ask], Tensor]  # an edit: → a conditioning (1, D)


def by_steps(editor: Editor, seed: int, **changes: float | Tensor | None) -> Way:
    """Edits by optimisation, with some of what is wanted changed."""
    schedule = Schedule(STEPS, LR)
    return lambda ask: editor.by_steps(ask.start, replace(ask.wanted, **changes), schedule, (seed, 0))[0]


def from_the_start(editor: Editor, seed: int) -> Way:
    """Edits by optimisation that don't begin along the direction."""
    paint = partial(editor.painted, seed, 0)
    return lambda ask: edited(ask.start, ask.wanted, paint, editor.space.see, schedule=Schedule(STEPS, LR))[0]


def straight(editor: Editor, **changes: float | Tensor | None) -> Way:
    """Edits without any steps."""
    return lambda ask: editor.shifted(ask.start, replace(ask.wanted, **changes), 1.0)


def nothing_held(editor: Editor, way: Callable[[Ask], Tensor]) -> Way:
    """An edit along what the text's direction is before anything is taken off it."""

    def loose(ask: Ask) -> Tensor:
        direction = editor.towards([Blend(ask.text, 1.0)]).to(ask.start.device)
        return way(replace(ask, wanted=replace(ask.wanted, direction=direction, hold=None)))

    return loose


def steps_of(editor: Editor, seed: int) -> dict[str, Way]:
    """Each way of editing by optimisation."""
    return {
        "edit": by_steps(editor, seed),
        "edit: no likeness": by_steps(editor, seed, keep=0.0),
        "edit: nothing held, not begun along the direction": nothing_held(editor, by_steps(editor, seed)),
        "edit: not begun along the direction": from_the_start(editor, seed),
    }


def at_once_of(editor: Editor, seed: int) -> dict[str, Way]:
    """Each way of editing without steps, and none."""

    def random(ask: Ask) -> Tensor:
        draw = torch.randn(len(ask.wanted.direction), generator=generator_for(seed, len(ask.text)))
        return editor.shifted(ask.start, Wanted(F.normalize(draw, dim=0)), 1.0)

    return {
        "--direction": straight(editor),
        "--direction: nothing held": nothing_held(editor, straight(editor)),
        "random direction": random,
        "no edit": lambda ask: ask.start,
    }


def measure(editor: Editor, options: Measuring) -> Report:
    """The whole protocol on one split. Raises InputError, UsageError where decoder or data do not allow it."""
    if not editor.decoder.teacher.names_faces:
        raise UsageError("this protocol measures edits of faces", hint="--decoder FACES")
    everything = load_photos(Path(options.data), editor.decoder.teacher.image_size, "faces")
    net = editor.decoder.teacher.net
    labels = [f"{gender} {band}" for gender in GENDERS for band in net.ages]  # by class_of
    judge = judge_for(_taught(everything, net, labels), labels, options, key="both", device=editor.decoder.device)
    gauge, seed = Gauge(editor, judge, options.seed, len(net.ages)), options.seed
    faces, few = everything.split(options.split), options.limit or FACES
    some = _asks(editor, faces, range(few), seed)
    asks = some + ([] if options.limit else _asks(editor, faces, range(few, AT_ONCE), seed))
    rows: Table = {}
    made: list[list[Image.Image]] = []
    for ways, of in ((steps_of(editor, seed), some), (at_once_of(editor, seed), asks)):
        for name, way in ways.items():
            rows[name], pictures = gauge.row(way, of)
            made.append(pictures[: len(some)])
    rows["no edit, other noise"], _ = replace(gauge, seed=seed + 1).row(lambda ask: ask.start, asks)
    rows["two different faces"] = {"likeness": _apart(editor, asks)}
    examples = [Example(ask.text, ask.drawn, own) for ask, *own in zip(some, *made, strict=True)]
    curve = {
        f"{l2:g}": rows["edit"] if l2 == Wanted.l2 else gauge.row(by_steps(editor, seed, l2=l2), some)[0] for l2 in L2
    }
    tables = {
        "edits": rows,
        "l2": {name: traded(row) for name, row in curve.items()},
        "judge_on_real_faces": _of_judge(judge, everything, options, net),
    }
    return Report(tables, examples, {"judge": judge.name, "note": CHOSEN})


@dataclass(frozen=True)
class Gauge:
    """What is measured of one way of editing. bands: how many age bands the judge tells apart."""

    editor: Editor
    judge: Judge
    seed: int
    bands: int

    def row(self, way: Way, asks: Sequence[Ask]) -> tuple[dict[str, float], list[Image.Image]]:
        """The row of a table, and the edited faces."""
        began = time.process_time()
        points = [way(ask) for ask in asks]
        took = (time.process_time() - began) / len(asks)
        made = [_drawn(self.editor, point, self.seed) for point in points]
        before, after = (_judged(self.judge, p, self.bands) for p in ([ask.drawn for ask in asks], made))
        found = _row(asks, before, after) | {"likeness": _likeness(self.editor, asks, made), "cpu_s": took}
        return found | {"count": len(asks)}, made


def traded(row: dict[str, float]) -> dict[str, float]:
    """A row's shares as a point of the curve: what is asked for moves, the other stays, each a mean of two."""
    return {
        "asked_moves": (row["age_moves"] + row["gender_moves"]) / 2,
        "other_stays": (row["gender_stays"] + row["age_stays"]) / 2,
        "likeness": row["likeness"],
    }


def _taught(faces: Photos, net: FaceEncoder, labels: Sequence[str]) -> Photos:
    """Some train faces and all others, each with gender and age band as one label."""
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0)).tolist()
    train = [i for i in order if faces.meta[i].get("split", "train") == "train"][:TAUGHT]
    keep = sorted(train + [i for i in order if faces.meta[i].get("split") == "val"])
    own = [faces.meta[i] for i in keep]
    meta = [about | {"both": labels[net.class_of(about["gender"], about["age"])]} for about in own]
    return Photos(faces.pixels[keep], meta)


def _asks(editor: Editor, faces: Photos, places: range, seed: int) -> list[Ask]:
    """Of the faces at some places among those of each gender: another age, and the other gender."""
    found = []
    for gender in GENDERS:
        for i in [i for i, meta in enumerate(faces.meta) if meta["gender"] == gender][places.start : places.stop]:
            start = editor.inverted(Image.fromarray(faces.pixels[i].numpy()), seed, 0, INVERT).conditioning
            drawn, young, male = _drawn(editor, start, seed), faces.meta[i]["age"] < OLD, gender == "male"
            age, other = ("an old person" if young else "a young person"), ("a woman" if male else "a man")
            found.append(Ask(start, drawn, age, editor.wanted([Blend(age, 1.0)]), old=young))
            found.append(Ask(start, drawn, other, editor.wanted([Blend(other, 1.0)]), male=not male))
    if not found and not places.start:
        raise UsageError("the data has no such split")
    return found


def _drawn(editor: Editor, point: Tensor, seed: int) -> Image.Image:
    return editor.decoder.decode(point.cpu(), generators=[generator_for(seed, 0)])[0]


def _judged(judge: Judge, pictures: Sequence[Image.Image], bands: int) -> list[Judged]:
    shares = judge(pictures)[0].softmax(-1).unflatten(-1, (len(GENDERS), bands))
    mean = (shares.sum(1) * torch.arange(bands)).sum(-1)
    return [Judged(float(band), bool(two[1] > two[0])) for band, two in zip(mean, shares.sum(2), strict=True)]


def _row(asks: Sequence[Ask], before: Sequence[Judged], after: Sequence[Judged]) -> dict[str, float]:
    """Shares of those asked for another age, and for another gender.

    moves: half a band or more the way that is asked for; the gender that is asked for. stays: of the former the gender,
    of the latter the band, by NEAR.
    """
    ages = [(a, b, c) for a, b, c in zip(asks, before, after, strict=True) if a.old is not None]
    genders = [(a, b, c) for a, b, c in zip(asks, before, after, strict=True) if a.male is not None]

    def share(hits: Sequence[bool]) -> float:
        return sum(hits) / len(hits)

    return {
        "age_moves": share([(c.band - b.band) * (1 if a.old else -1) >= 0.5 for a, b, c in ages]),
        "gender_stays": share([c.male == b.male for _, b, c in ages]),
        "gender_moves": share([c.male == a.male for a, _, c in genders]),
        "age_stays": share([abs(c.band - b.band) <= NEAR for _, b, c in genders]),
    }


def _likeness(editor: Editor, asks: Sequence[Ask], made: Sequence[Image.Image]) -> float:
    """Mean cosine of what the guiding space sees in the faces before and after."""
    before, after = (editor.space.encode(list(p), "image") for p in ([ask.drawn for ask in asks], made))
    return float((before * after).sum(-1).mean())


def _apart(editor: Editor, asks: Sequence[Ask]) -> float:
    seen = editor.space.encode([ask.drawn for ask in asks[::2]], "image")
    return float((seen @ seen.T)[~torch.eye(len(seen), dtype=torch.bool)].mean())


def _of_judge(judge: Judge, faces: Photos, options: Measuring, net: FaceEncoder) -> Table:
    """How often the judge is right about real faces of the split."""
    real = faces.split(options.split)
    judged = _judged(judge, [Image.fromarray(pixels.numpy()) for pixels in real.pixels[:400]], len(net.ages))
    meta = real.meta[: len(judged)]
    gender = [j.male == (m["gender"] == "male") for j, m in zip(judged, meta, strict=True)]
    band = [
        abs(j.band - net.class_of(m["gender"], m["age"]) % len(net.ages)) <= NEAR
        for j, m in zip(judged, meta, strict=True)
    ]
    return {"real faces": {"gender": sum(gender) / len(gender), "age_within_a_band": sum(band) / len(band)}}
