"""What the repositories of the full-size models hold as published: every variant, for pulls to choose from."""

from __future__ import annotations

NET = "diffusion_pytorch_model"


def _variants(stem: str, *variants: str, pickle: str = "bin") -> list[str]:
    """A weight as diffusers publishes it: full and half precision, each as safetensors and as a pickle."""
    return [f"{stem}{variant}.{kind}" for variant in ("", ".fp16", *variants) for kind in ("safetensors", pickle)]


def _tokenizer(folder: str = "tokenizer") -> list[str]:
    names = ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
    return [f"{folder}/{name}" for name in names]


SD15 = [
    ".gitattributes", "README.md", "model_index.json", "v1-inference.yaml",
    *(f"v1-5-pruned{ema}.{kind}" for ema in ("", "-emaonly") for kind in ("ckpt", "safetensors")),
    "feature_extractor/preprocessor_config.json", "scheduler/scheduler_config.json", *_tokenizer(),
    "safety_checker/config.json", *_variants("safety_checker/model"), "safety_checker/pytorch_model.bin",
    "text_encoder/config.json", *_variants("text_encoder/model"), "text_encoder/pytorch_model.bin",
    "unet/config.json", *_variants(f"unet/{NET}", ".non_ema"),
    "vae/config.json", *_variants(f"vae/{NET}"),
]  # fmt: skip
SDXL = [
    ".gitattributes", "LICENSE.md", "README.md", "comparison.png", "model_index.json", "pipeline.png",
    "sd_xl_base_1.0.safetensors", "sd_xl_base_1.0_0.9vae.safetensors", "sd_xl_offset_example-lora_1.0.safetensors",
    "scheduler/scheduler_config.json", *_tokenizer(), *_tokenizer("tokenizer_2"),
    *(f"{tower}/{name}" for tower in ("text_encoder", "text_encoder_2") for name in (
        "config.json", "flax_model.msgpack", "model.fp16.safetensors", "model.onnx", "model.safetensors",
        "openvino_model.bin", "openvino_model.xml",
    )),
    "text_encoder_2/model.onnx_data",
    "unet/config.json", f"unet/{NET}.safetensors", f"unet/{NET}.fp16.safetensors", f"unet/{NET}.msgpack",
    "unet/model.onnx", "unet/model.onnx_data", "unet/openvino_model.bin", "unet/openvino_model.xml",
    *(f"{vae}/{name}" for vae in ("vae", "vae_1_0") for name in (
        "config.json", f"{NET}.safetensors", f"{NET}.fp16.safetensors", f"{NET}.msgpack",
    )),
    *(f"{half}/{name}" for half in ("vae_decoder", "vae_encoder") for name in (
        "config.json", "model.onnx", "openvino_model.bin", "openvino_model.xml",
    )),
]  # fmt: skip
IP_ADAPTER = [
    ".gitattributes", "README.md", "fig1.png",
    *(f"{folder}/image_encoder/{name}" for folder in ("models", "sdxl_models") for name in (
        "config.json", "model.safetensors", "pytorch_model.bin",
    )),
    *(f"models/ip-adapter{kind}.{suffix}" for suffix in ("bin", "safetensors") for kind in (
        "-full-face_sd15", "-plus-face_sd15", "-plus_sd15", "_sd15", "_sd15_light", "_sd15_vit-G",
    )),
    "models/ip-adapter_sd15_light_v11.bin",
    *(f"sdxl_models/ip-adapter{kind}.{suffix}" for suffix in ("bin", "safetensors") for kind in (
        "-plus-face_sdxl_vit-h", "-plus_sdxl_vit-h", "_sdxl", "_sdxl_vit-h",
    )),
]  # fmt: skip
FACE_ID = [
    ".gitattributes", "README.md", "faceid-plus.jpg", "ip-adapter-faceid.jpg",
    *(f"ip-adapter-faceid{kind}.bin" for kind in (
        "-plus_sd15", "-plusv2_sd15", "-plusv2_sdxl", "-portrait-v11_sd15", "-portrait_sd15", "-portrait_sdxl",
        "-portrait_sdxl_unnorm", "_sd15", "_sdxl",
    )),
    *(f"ip-adapter-faceid{kind}_lora.safetensors" for kind in (
        "-plus_sd15", "-plusv2_sd15", "-plusv2_sdxl", "_sd15", "_sdxl",
    )),
]  # fmt: skip
ARC2FACE = [
    ".gitattributes", "README.md", "arc2face/config.json", f"arc2face/{NET}.safetensors", "arcface.onnx",
    "controlnet/config.json", f"controlnet/{NET}.safetensors", "encoder/config.json", "encoder/pytorch_model.bin",
]  # fmt: skip
UNCLIP = [
    ".gitattributes", "README.md", "model_index.json", "sd21-unclip-h.ckpt", "sd21-unclip-l.ckpt",
    "feature_extractor/preprocessor_config.json", "image_noising_scheduler/scheduler_config.json",
    "scheduler/scheduler_config.json", *_tokenizer(),
    *(f"{part}/config.json" for part in ("image_encoder", "image_normalizer", "text_encoder", "unet", "vae")),
    *_variants("image_encoder/model"), *_variants("text_encoder/model"),
    *_variants(f"image_normalizer/{NET}"), *_variants(f"unet/{NET}"), *_variants(f"vae/{NET}"),
]  # fmt: skip
KANDINSKY = [
    ".gitattributes", "README.md", "model_index.json", "movq/config.json", f"movq/{NET}.safetensors",
    "scheduler/scheduler_config.json", "unet/config.json", f"unet/{NET}.safetensors",
]  # fmt: skip
KANDINSKY_PRIOR = [
    ".gitattributes", "README.md", "model_index.json", "image_encoder/config.json", "image_encoder/model.safetensors",
    "image_processor/preprocessor_config.json", "prior/config.json", f"prior/{NET}.safetensors",
    "scheduler/scheduler_config.json", "text_encoder/config.json", "text_encoder/model.safetensors", *_tokenizer(),
]  # fmt: skip
LISTINGS = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": SD15,
    "stabilityai/stable-diffusion-xl-base-1.0": SDXL,
    "h94/IP-Adapter": IP_ADAPTER,
    "h94/IP-Adapter-FaceID": FACE_ID,
    "FoivosPar/Arc2Face": ARC2FACE,
    "sd2-community/stable-diffusion-2-1-unclip": UNCLIP,
    "kandinsky-community/kandinsky-2-2-decoder": KANDINSKY,
    "kandinsky-community/kandinsky-2-2-prior": KANDINSKY_PRIOR,
}


def published() -> dict[str, dict[str, bytes]]:
    """These repositories for a FakeHub; each file holds its own name."""
    return {repo: {name: f"{repo}/{name}".encode() for name in names} for repo, names in LISTINGS.items()}
