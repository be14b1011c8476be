"""Spaces of the transformers library: CLIP and SigLIP for pictures and texts, CLAP for sounds and texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mmx.bridges.audio_encoders import Listener, kind_of
from mmx.bridges.words_tags import TAGS
from mmx.compat import quiet_libraries
from mmx.decoders.base import fingerprint, freeze
from mmx.errors import ModelError
from mmx.media.audio import Waveform
from mmx.models.store import Located
from mmx.spaces.base import PHOTO_PROMPTS, SOUND_PROMPTS, Space
from mmx.spaces.cells import CELLS
from mmx.spaces.open_clip import is_open_clip, read_open_clip
from mmx.spaces.pixels import prepared

# SigLIP was trained on texts that are all of one length, and answers others otherwise
PADDING = {"clip": True, "siglip": "max_length"}


def open_towers(at: Located, device: str) -> Space:
    """A CLIP or SigLIP folder with its image processor and tokenizer. Raises ModelError."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    try:
        model = AutoModel.from_pretrained(at.folder, dtype=torch.float32, local_files_only=True, use_safetensors=True)
        processor = AutoImageProcessor.from_pretrained(at.folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(at.folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{at.name}: the space can't be loaded: {str(error).splitlines()[0]}") from None
    return of_towers(at, device, model, processor, tokenizer)


def of_towers(at: Located, device: str, model: Any, processor: Any, tokenizer: Any) -> Space:
    """A CLIPModel or SiglipModel, and how it is given pictures and texts → the space that it spans."""
    freeze(model).to(device)
    texts = model.config.text_config
    most = min(tokenizer.model_max_length, texts.max_position_embeddings)
    padding = PADDING[model.config.model_type]

    def see(pictures: Sequence[Image.Image]) -> Tensor:
        pixels = processor(images=list(pictures), return_tensors="pt")["pixel_values"].to(device)
        return model.get_image_features(pixel_values=pixels).pooler_output

    def read(lines: Sequence[str]) -> Tensor:
        tokens = tokenizer(list(lines), padding=padding, truncation=True, max_length=most, return_tensors="pt")
        wanted = {name: tokens[name].to(device) for name in ("input_ids", "attention_mask") if name in tokens}
        return model.get_text_features(**wanted).pooler_output

    def look(picture: Image.Image) -> Tensor:
        size = model.config.vision_config.image_size  # squeezed, and not cut: the grid is of all of it
        pixels = processor(images=[picture.resize((size, size))], return_tensors="pt")["pixel_values"].to(device)
        return CELLS[model.config.model_type](model, pixels)

    def see_pixels(pixels: Tensor) -> Tensor:
        ready = prepared(pixels.to(device), processor, model.config.vision_config.image_size)
        return model.get_image_features(pixel_values=ready).pooler_output

    return Space(
        at.name,
        fingerprint(at.folder, (".",)),
        # SigLIP's towers end in vectors of one width, without a projection
        getattr(model.config, "projection_dim", None) or texts.projection_size or texts.hidden_size,
        encoders={"image": see, "text": read},
        scale={"image": float(model.logit_scale.exp())},
        prompts={"image": PHOTO_PROMPTS},
        cells=look,
        pixels=see_pixels,
        models=[model],
    )


def open_clap(at: Located, device: str) -> Space:
    """A CLAP folder with its feature extractor and tokenizer. Raises ModelError."""
    listener = Listener.load(at, device)

    def hear(waves: Sequence[Waveform]) -> Tensor:
        return torch.stack([listener.listen(wave) for wave in waves])

    return Space(
        at.name,
        listener.fingerprint,
        listener.dim,
        encoders={"sound": hear, "text": listener.embed_texts},
        scale={"sound": listener.logit_scale},
        prompts={"sound": SOUND_PROMPTS},
        labels=TAGS,
        rate=listener.rate,
        window=float(listener.extractor.max_length_s),
        models=[listener.model],
    )


OPENERS = {"clip": open_towers, "siglip": open_towers, "clap": open_clap}


def open_pretrained(at: Located, device: str) -> Space:
    """A transformers model folder, or a checkpoint of open_clip. Raises ModelError where it is none of OPENERS."""
    quiet_libraries("transformers")
    if is_open_clip(at.folder):
        return of_towers(at, device, *read_open_clip(at.folder, at.name))
    kind = kind_of(at.folder)
    if kind not in OPENERS:
        raise ModelError(
            f"{at.name} is a {kind} model, and no space",
            hint=f"a space is an image decoder of mmx, or one of {', '.join(OPENERS)}",
        )
    return OPENERS[kind](at, device)
