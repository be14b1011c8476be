"""Checkpoints of the full-size families in a few hundred kilobytes: the libraries' own classes with random weights,
saved by them.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file


def vision(dim: int, size: int = 32):
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=size,
        patch_size=8,
        projection_dim=dim,
    )
    return CLIPVisionModelWithProjection(config), CLIPImageProcessor(size={"shortest_edge": size}, crop_size=size)


def text(width: int = 16, projection: int | None = None):
    """A CLIP text tower of one layer and a tokenizer of a few words."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from mmx.data.captions import train_tokenizer

    tokenizer = train_tokenizer(["a photo of a dog", "a photo of a cat", "photo of a id person"] * 3, vocab_size=320)
    tokenizer = tokenizer.of_library()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        projection_dim=projection or width,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=tokenizer.eos_token_id,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config), tokenizer


def kandinsky(folder: Path, dim: int = 12) -> tuple[Path, Path]:
    """A KandinskyV22Pipeline folder and that of its prior."""
    from diffusers import (
        DDPMScheduler,
        KandinskyV22Pipeline,
        KandinskyV22PriorPipeline,
        PriorTransformer,
        UnCLIPScheduler,
        UNet2DConditionModel,
        VQModel,
    )

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=8,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(32, 64),
        layers_per_block=1,
        encoder_hid_dim=dim,
        encoder_hid_dim_type="image_proj",
        addition_embed_type="image",
        cross_attention_dim=16,
        attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
        class_embed_type=None,
    )
    movq = VQModel(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=8,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=4,
    )
    decoder = KandinskyV22Pipeline(unet, DDPMScheduler(beta_schedule="linear", num_train_timesteps=100), movq)
    decoder.save_pretrained(folder / "kandinsky-2-2-decoder")
    encoder, processor = vision(dim)
    tower, tokenizer = text(dim, projection=dim)
    prior = PriorTransformer(
        num_attention_heads=2, attention_head_dim=6, embedding_dim=dim, num_layers=1, num_embeddings=16
    )
    prior.clip_std.data.fill_(1.0)  # zero as the library makes it: every embedding would be zero
    pipeline = KandinskyV22PriorPipeline(
        prior, encoder, tower, tokenizer, UnCLIPScheduler(prediction_type="sample", num_train_timesteps=100), processor
    )
    pipeline.save_pretrained(folder / "kandinsky-2-2-prior")
    return folder / "kandinsky-2-2-decoder", folder / "kandinsky-2-2-prior"


def _unet(width: int, **options):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=width,
        **options,
    )


def _vae():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
    )


def unclip(folder: Path, dim: int = 12) -> Path:
    """A StableUnCLIPImg2ImgPipeline folder."""
    from diffusers import DDIMScheduler, DDPMScheduler, StableUnCLIPImg2ImgPipeline
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

    torch.manual_seed(1)
    encoder, processor = vision(dim)
    tower, tokenizer = text(16)
    pipeline = StableUnCLIPImg2ImgPipeline(
        feature_extractor=processor,
        image_encoder=encoder,
        image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=dim),
        image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=tokenizer,
        text_encoder=tower,
        unet=_unet(16, class_embed_type="projection", projection_class_embeddings_input_dim=2 * dim),
        scheduler=DDIMScheduler(set_alpha_to_one=False),
        vae=_vae(),
    )
    pipeline.save_pretrained(folder / "unclip")
    return folder / "unclip"


def sd(folder: Path, dim: int = 12, *, face_id: bool = False) -> tuple[Path, Path]:
    """A StableDiffusionPipeline folder and that of an IP-Adapter in the published layout."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    torch.manual_seed(2)
    tower, tokenizer = text(16)
    unet = _unet(16)
    pipeline = StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=tower,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder / "sd")
    adapter = folder / ("faceid" if face_id else "IP-Adapter") / "models"
    adapter.mkdir(parents=True)
    save_file(_adapter(unet, dim, 16), adapter / "ip-adapter_sd15.safetensors")
    if not face_id:
        vision(dim)[0].save_pretrained(adapter / "image_encoder")
    return folder / "sd", adapter.parent


def _adapter(unet, dim: int, width: int) -> dict[str, torch.Tensor]:
    """An IP-Adapter's weights: the projection of one image embedding to four tokens, and a key and value layer for each
    cross-attention.
    """
    tensors = {
        "image_proj.proj.weight": 0.2 * torch.randn(4 * width, dim),
        "image_proj.proj.bias": torch.zeros(4 * width),
        "image_proj.norm.weight": torch.ones(width),
        "image_proj.norm.bias": torch.zeros(width),
    }
    number = 1
    for name, processor in unet.attn_processors.items():
        if name.endswith("attn2.processor"):
            attention = unet.get_submodule(name.removesuffix(".processor"))
            for part in ("k", "v"):
                tensors[f"ip_adapter.{number}.to_{part}_ip.weight"] = 0.2 * torch.randn(attention.inner_dim, width)
        number += 2 if name.endswith("attn2.processor") else 0
        assert processor is not None
    return tensors


def recogniser(path: Path, dim: int, side: int = 16) -> Path:
    """A face recogniser in ONNX: a linear layer over pixels."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).standard_normal((3 * side * side, dim)).astype(np.float32) * 0.05
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["faces"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["features"]),
        ],
        "recogniser",
        [helper.make_tensor_value_info("faces", TensorProto.FLOAT, ["n", 3, side, side])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", dim])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def arc2face(folder: Path, dim: int = 12) -> tuple[Path, Path]:
    """A StableDiffusionPipeline folder and that of Arc2Face in the published layout, with its recogniser."""
    base, _ = sd(folder)
    torch.manual_seed(5)
    companion = folder / "Arc2Face"
    _unet(16).save_pretrained(companion / "arc2face")
    text(16)[0].save_pretrained(companion / "encoder")
    recogniser(companion / "arcface.onnx", dim)
    return base, companion


def clap(folder: Path) -> Path:
    """A ClapModel folder with its feature extractor, such as --encoder takes."""
    from transformers import ClapAudioConfig, ClapConfig, ClapFeatureExtractor, ClapModel, ClapTextConfig

    torch.manual_seed(3)
    audio = ClapAudioConfig(
        spec_size=64, num_mel_bins=16, depths=[1, 1], num_attention_heads=[1, 2], patch_embeds_hidden_size=8,
        hidden_size=16,
        projection_dim=12, window_size=4, num_hidden_layers=2, patch_stride=[4, 4], patch_size=4, num_classes=4,
        enable_fusion=False,
    )  # fmt: skip
    tokenizer = text()[1]  # with one, such as --bridge tags asks it in words
    tokenizer.save_pretrained(folder)
    words = ClapTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        projection_dim=12,
    )
    config = ClapConfig(text_config=words.to_dict(), audio_config=audio.to_dict(), projection_dim=12)
    ClapModel(config).save_pretrained(folder)
    ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=16_000,
        hop_length=250,
        max_length_s=1,
        fft_window_size=256,
        truncation="rand_trunc",
    ).save_pretrained(folder)
    return folder


def wavlm(folder: Path) -> Path:
    """A WavLMModel folder with its feature extractor."""
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMModel

    torch.manual_seed(4)
    config = WavLMConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_stride=(5, 8),
        conv_kernel=(10, 8), num_feat_extract_layers=2, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    WavLMModel(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def pe_audio(folder: Path) -> Path:
    """A PeAudioModel folder (the audio half of the Perception Encoder, PE-AV) with its feature extractor."""
    from transformers import (
        DacConfig,
        ModernBertConfig,
        PeAudioConfig,
        PeAudioEncoderConfig,
        PeAudioFeatureExtractor,
        PeAudioModel,
    )

    torch.manual_seed(6)
    dac = DacConfig(
        encoder_hidden_size=4, downsampling_ratios=[2, 8], decoder_hidden_size=8, codebook_dim=4, codebook_size=8,
        n_codebooks=1
    )  # fmt: skip
    audio = PeAudioEncoderConfig(
        dac_config=dac.to_dict(), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        head_dim=8
    )  # fmt: skip
    words = ModernBertConfig(
        vocab_size=20, hidden_size=12, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
    )  # fmt: skip
    PeAudioModel(PeAudioConfig(text_config=words.to_dict(), audio_config=audio.to_dict())).save_pretrained(folder)
    PeAudioFeatureExtractor(sampling_rate=16_000, hop_length=16).save_pretrained(folder)
    return folder


def pe_audio_video(folder: Path) -> Path:
    """The same audio half under the names and the configuration of PE-AV, whose video half is left out."""
    from safetensors.torch import load_file, save_file

    pe_audio(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {f"audio_model.{name}": value for name, value in tensors.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    config = json.loads((folder / "config.json").read_text())
    both = {
        "model_type": "pe_audio_video",
        "text_config": config["text_config"],
        "audio_video_config": {"audio_config": config["audio_config"]},
    }
    (folder / "config.json").write_text(json.dumps(both))
    return folder
