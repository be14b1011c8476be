"""The debug models: tiny, random, in the real formats, so that every command runs in a second."""

from __future__ import annotations

from pathlib import Path

import torch

from mmx.bridges.base import BridgeConfig
from mmx.bridges.image import ImageBridge
from mmx.bridges.sound import SoundBridge
from mmx.bridges.voice import VoiceBridge
from mmx.data.captions import train_tokenizer
from mmx.decoders.base import fingerprint
from mmx.decoders.face_teacher import FaceTeacher
from mmx.decoders.face_words import FaceWords
from mmx.decoders.gan import save_gan_decoder
from mmx.decoders.load import load_decoder
from mmx.decoders.speech import SpeechDecoder, save_speech_decoder
from mmx.decoders.teacher import Teacher
from mmx.decoders.unclip import SPACE as IMAGE_SPACE
from mmx.decoders.unclip import ImageDecoder, save_image_decoder
from mmx.models.store import Located, seal
from mmx.nets.generator import Generator
from mmx.nets.speech import UnitCodec, Vocos
from mmx.training.decoders.codec import CodecConfig, build_codec
from mmx.training.decoders.denoiser import DenoiserConfig, build_denoiser
from mmx.training.decoders.face import FaceConfig, build_face_encoder
from mmx.training.decoders.space import SpaceConfig, build_space
from mmx.training.decoders.unclip import _pipeline

DIM = 32
SPACE = SpaceConfig(dim=DIM, hidden_sizes=(8, 8, 8), depths=(1, 1, 1), text_width=16, text_layers=1)
CODEC = CodecConfig(width=16, blocks=1, latent_channels=4)
DENOISER = DenoiserConfig(channels=(32, 32), tokens_dim=16)
LABELS = {"dog": "a photo of a dog", "cat": "a photo of a cat", "car": "a photo of a car"}


def make_teacher() -> Teacher:
    torch.manual_seed(0)
    reader = train_tokenizer(list(LABELS.values()), vocab_size=300)
    return Teacher(build_space(SPACE, len(reader)), reader)


def make_one_step_decoder(folder: Path) -> Path:
    """As `make_decoder`, in the same space; processes of their own start faster with it."""
    teacher = make_teacher()
    save_gan_decoder(folder, Generator(DIM, 8, 16, (16, 16, 8, 8, 8)), teacher, name="debug/embedding")
    return folder


def make_decoder(folder: Path) -> Path:
    teacher = make_teacher()
    pipeline = _pipeline(build_denoiser(DENOISER, CODEC.latent_channels, DIM), build_codec(CODEC))
    save_image_decoder(
        folder,
        pipeline,
        teacher,
        name="debug/embedding",
        mean_norm=DIM**0.5,
        defaults={"steps": 2, "guidance": 2.0, "size": 64},
    )
    return folder


FACE = FaceConfig(dim=DIM, hidden_sizes=(8, 8, 8), depths=(1, 1, 1))
FACE_CODEC = CodecConfig(patch=12, width=16, blocks=1, latent_channels=4)


def make_face_decoder(folder: Path) -> Path:
    torch.manual_seed(0)
    pipeline = _pipeline(build_denoiser(DENOISER, FACE_CODEC.latent_channels, DIM), build_codec(FACE_CODEC))
    save_image_decoder(
        folder,
        pipeline,
        FaceTeacher(build_face_encoder(FACE)),
        name="debug/face",
        mean_norm=DIM**0.5,
        defaults={"steps": 2, "guidance": 2.0, "size": 96},
    )
    return folder


def make_reading_faces(folder: Path) -> Path:
    """A face decoder that reads texts."""
    make_face_decoder(folder)
    torch.manual_seed(5)
    raw = torch.randn(300, DIM)
    FaceWords.fit(raw, torch.randint(18, 80, (300,)).float(), torch.rand(300) < 0.5).save(folder)
    seal(folder)
    return folder


def make_voice_bridge(folder: Path, decoder: Path) -> Path:
    torch.manual_seed(0)
    config = BridgeConfig(
        task="voice2face",
        spec=ImageDecoder.load(decoder).spec.as_dict(),
        channels=(8, 8),
        prior={"width": 16, "depth": 1},
        prior_steps=2,
    )
    VoiceBridge(config).half().save_pretrained(folder)
    seal(folder)
    return folder


def make_bridge(folder: Path, decoder: Path, *, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    spec = load_decoder(Located(decoder.name, decoder), "image").spec
    config = BridgeConfig(
        task="sound2img",
        spec=spec.as_dict(),
        labels=LABELS,
        channels=(8, 8),
        prior={"width": 16, "depth": 1},
        prior_steps=2,
    )
    SoundBridge(config).half().save_pretrained(folder)
    seal(folder)
    return folder


UNITS = {"units": 20, "code": 8, "width": 16, "hidden": 16, "depth": 1, "voices": 2}
VOCODER = {"width": 16, "hidden": 16, "depth": 1}


def make_speech_decoder(folder: Path) -> Path:
    torch.manual_seed(0)
    configs = {"units": UNITS, "vocoder": VOCODER}
    save_speech_decoder(folder, UnitCodec(**UNITS), Vocos(**VOCODER), configs, ["slt", "rms"], "debug/units")
    seal(folder)
    return folder


def make_image_bridge(folder: Path, decoder: Path, encoder: Path) -> Path:
    torch.manual_seed(0)
    config = BridgeConfig(
        task="img2speech",
        spec=SpeechDecoder.load(decoder).spec.as_dict(),
        source={"name": "debug/image", "fingerprint": fingerprint(encoder, IMAGE_SPACE)},
        writer={"width": 16, "depth": 1, "heads": 2, "patches": 16, "channels": 8},
    )
    ImageBridge(config).half().save_pretrained(folder)
    seal(folder)
    return folder
