"""Checkpoints of joint spaces in a few hundred kilobytes: the libraries' own classes with random weights."""

from __future__ import annotations

from pathlib import Path

import torch

LENGTH = 16  # tokens that the text towers read
TOWER = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SEES = TOWER | {"image_size": 32, "patch_size": 8}


def _tokenizer():
    from tests.tiny import text

    return text()[1]


def clip(folder: Path) -> Path:
    """A CLIPModel folder with its image processor and tokenizer."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(0)
    tokenizer = _tokenizer()
    reads = TOWER | {"vocab_size": len(tokenizer), "max_position_embeddings": LENGTH}
    reads |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": tokenizer.eos_token_id}
    CLIPModel(CLIPConfig(vision_config=SEES, text_config=reads, projection_dim=12)).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def siglip(folder: Path) -> Path:
    """A SiglipModel folder with its image processor and tokenizer."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    torch.manual_seed(1)
    tokenizer = _tokenizer()
    reads = TOWER | {"vocab_size": len(tokenizer), "max_position_embeddings": LENGTH}
    SiglipModel(SiglipConfig(vision_config=SEES, text_config=reads)).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def gan_decoder(folder: Path) -> Path:
    """A decoder's folder of the family that draws in one step."""
    from mmx.decoders.gan import save_gan_decoder
    from mmx.nets.generator import Generator
    from tests.small_gan import CONFIG, small_teacher

    torch.manual_seed(2)
    save_gan_decoder(folder, Generator(**vars(CONFIG.generator)), small_teacher(), name="small/gan")
    return folder
