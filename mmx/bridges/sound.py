"""The sound bridge: a recording → a point of the joint space, and from there, by the prior, conditionings."""

from __future__ import annotations

from mmx.bridges.points import PointBridge
from mmx.nets.sound import SAMPLE_RATE


class SoundBridge(PointBridge, repo_url="https://github.com/mmx", pipeline_tag="audio-to-image"):
    """Log-mel → CNN → joint space (Sound2Scene, Sung-Bin et al., CVPR 2023), then a diffusion prior.

    Instead of the CNN, a transformer, or a head on a frozen pretrained encoder.
    """

    rate = SAMPLE_RATE  # Hz, at which it is given sounds
