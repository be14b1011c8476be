# ruff: noqa: I001
"""The peer of the benchmarks: what somebody would write with diffusers by hand, on the same weights, as a script.

python by_hand.py BRIDGE DECODER SOUND OUT.png NUM
"""

import json
import sys
from pathlib import Path

import mmx.compat  # noqa: F401  (first: without it torchaudio can't be imported beside this torch)
import diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model  # noqa: F401
import torch
import torch.nn.functional as F
from diffusers import KandinskyV22Pipeline
from PIL import Image
from safetensors.torch import load_file

from mmx.bridges.sound import SoundBridge
from mmx.decoders.teacher import Teacher
from mmx.media.audio import read_audio


def main(bridge_folder: Path, decoder_folder: Path, sound: Path, out: Path, num: int) -> None:
    settings = json.loads((decoder_folder / "mmx.json").read_text())["defaults"]
    pipeline = KandinskyV22Pipeline.from_pretrained(decoder_folder)
    pipeline.set_progress_bar_config(disable=True)
    teacher = Teacher.load(decoder_folder / "teacher")
    bridge = SoundBridge(json.loads((bridge_folder / "config.json").read_text()))
    bridge.load_state_dict(load_file(bridge_folder / "model.safetensors"))
    bridge.float().eval()
    wave = read_audio(sound, sample_rate=16_000, window=5.0)
    with torch.inference_mode():
        point = bridge(bridge.prepare(wave)[None])[0]
        negative = teacher.embed([Image.new("RGB", (64, 64))])
        for index in range(num):
            generator = torch.Generator().manual_seed(index)
            embeds = F.normalize(bridge.prior.sample(point, generator), dim=-1) * bridge.spec.mean_norm
            picture = pipeline(
                image_embeds=embeds[None],
                negative_image_embeds=negative,
                height=settings["size"],
                width=settings["size"],
                num_inference_steps=settings["steps"],
                guidance_scale=settings["guidance"],
                generator=generator,
            ).images[0]
            picture.save(out.with_name(f"{out.stem}-{index}.png"))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]), int(sys.argv[5]))
