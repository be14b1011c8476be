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
