"""The voice bridge: a recording of a voice → a point of the face feature space, and from there, by the prior, faces."""

from __future__ import annotations

from mmx.bridges.sound import SoundBridge


class VoiceBridge(SoundBridge, repo_url="https://github.com/mmx", pipeline_tag="audio-to-image"):
    """Log-mel of speech → CNN → face feature (Speech2Face, Oh et al., CVPR 2019), then a diffusion prior."""

    hears_voices = True
