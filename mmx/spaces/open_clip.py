"""Checkpoints of the open_clip library (Ilharco et al. 2021) → transformers' CLIPModel: the weights by other names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmx.errors import ModelError

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
# open_clip's names, without .weight and .bias → transformers'; of the towers' blocks those below
NAMES = {
    "logit_scale": "logit_scale",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
}
PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
TRANSPOSED = ("text_projection", "visual.proj")
BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's


def is_open_clip(folder: Path) -> bool:
    """Whether a folder holds a checkpoint in open_clip's own format, and none in transformers'."""
    return (folder / CONFIG).exists() and (folder / WEIGHTS).exists()


def read_open_clip(folder: Path, name: str) -> tuple[Any, Any, Any]:
    """A folder → CLIPModel, image processor and tokenizer. Raises ModelError for other towers than CLIP's own, and
    where something is missing."""
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    try:
        about = json.loads((folder / CONFIG).read_text(encoding="utf8"))
        model = CLIPModel(_config(about["model_cfg"], name))
        model.load_state_dict(renamed(load_file(folder / WEIGHTS)))
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        said = str(error).strip().splitlines()[0]
        raise ModelError(f"{name}: the open_clip checkpoint can't be read: {said}") from None
    seen, size = about.get("preprocess_cfg", {}), model.config.vision_config.image_size
    mean, std = (list(seen.get(key, usual)) for key, usual in (("mean", MEAN), ("std", STD)))
    processor = CLIPImageProcessor(size={"shortest_edge": size}, crop_size=size, image_mean=mean, image_std=std)
    return model, processor, tokenizer


def _config(model: dict[str, Any], name: str) -> Any:
    from transformers import CLIPConfig

    seen, read = model["vision_cfg"], model["text_cfg"]
    for tower, keys in ((seen, ("timm_model_name",)), (read, ("hf_model_name",))):
        if found := next((tower[key] for key in keys if tower.get(key)), None):
            raise ModelError(f"{name}: its tower {found} is not CLIP's own", hint="a ViT and CLIP's text tower work")
    if not isinstance(seen["layers"], int):
        raise ModelError(f"{name}: its picture tower is a ResNet", hint="a ViT works")
    act = "quick_gelu" if model.get("quick_gelu") else "gelu"
    vocabulary, width, wide = read.get("vocab_size", 49_408), read.get("width", 512), seen.get("width", 768)
    vision = {"image_size": seen["image_size"], "patch_size": seen["patch_size"]}
    ratio = seen.get("mlp_ratio", 4.0)
    vision |= _sizes(wide, seen["layers"], wide // seen.get("head_width", 64), ratio) | {"hidden_act": act}
    text = {"vocab_size": vocabulary, "max_position_embeddings": read.get("context_length", 77), "hidden_act": act}
    text |= _sizes(width, read.get("layers", 12), read.get("heads", 8), read.get("mlp_ratio", 4.0))
    # the library reads a text off at the token of the highest number, and so does transformers where it is told 2
    text |= {"eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 0}
    return CLIPConfig(vision_config=vision, text_config=text, projection_dim=model["embed_dim"])


def _sizes(width: int, layers: int, heads: int, ratio: float) -> dict[str, Any]:
    own = {"hidden_size": width, "intermediate_size": int(width * ratio), "num_hidden_layers": layers}
    return own | {"num_attention_heads": heads, "layer_norm_eps": 1e-5}


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's tensors by name → transformers'. Raises KeyError for one that CLIP does not have."""
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        name = name.removeprefix("text.")  # of checkpoints whose text tower is a module of its own
        block = BLOCK.fullmatch(name)
        if name == "attn_mask":
            continue
        if block is None:
            found[NAMES[name]] = value.T.contiguous() if name in TRANSPOSED else value
            continue
        tower = "vision_model" if block[1] else "text_model"
        found |= _of_block(f"{tower}.encoder.layers.{block[2]}", block[3], value)
    return {name: value.float() for name, value in found.items()}


def _of_block(layer: str, part: str, value: Tensor) -> dict[str, Tensor]:
    if part.startswith("attn.in_proj_"):
        kind = part.removeprefix("attn.in_proj_")
        thirds = zip("qkv", value.chunk(3), strict=True)
        return {f"{layer}.self_attn.{which}_proj.{kind}": third.clone() for which, third in thirds}
    own, _, kind = part.rpartition(".")
    return {f"{layer}.{PARTS[own]}.{kind}": value}
