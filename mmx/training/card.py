"""Model cards: short, and every number in them comes out of a file that a command wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmx.bridges.base import BridgeConfig


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
"""


def decoder_card(family: str, measured: dict[str, Any]) -> str:
    """README.md of an image or face decoder's folder."""
    rows = "".join(
        f"| {stage} | {name} | {value:.4g} |\n"
        for stage, values in measured["val"].items()
        for name, value in values.items()
    )
    return f"""---
library_name: diffusers
pipeline_tag: image-to-image
tags: [mmx, {family}, decoder]
---
# The {family} decoder and its teacher

A Kandinsky 2.2 pipeline conditioned on the teacher's embedding of a picture and on nothing else. Trained on {measured["photos"]} pictures,
seed {measured["seed"]}, with:

    {measured["command"]}

| stage | on the val split | |
|---|---|---|
{rows}
With plain diffusers:

```python
import diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model  # the autoencoder's class, which is not found by itself
from diffusers import KandinskyV22Pipeline

pipeline = KandinskyV22Pipeline.from_pretrained(FOLDER)
```
"""
