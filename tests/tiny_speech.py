"""Speech models of the full-size families in a few hundred kilobytes: the libraries' own classes with random
weights.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

UNITS = 20


def hubert(folder: Path, units: int = UNITS, layer: int = 1) -> Path:
    """A HubertModel folder with its feature extractor and k-means centroids."""
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_stride=(16, 20),
        conv_kernel=(20, 20), num_feat_extract_layers=2, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    model = HubertModel(config).eval()
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    with torch.no_grad():  # centroids among what it says, so that many are used
        hidden = model(torch.randn(1, 16_000), output_hidden_states=True).hidden_states[layer][0]
    centroids = hidden[:units] + 0.1 * torch.randn(units, 16)
    save_file({"centroids": centroids.contiguous()}, folder / "kmeans.safetensors", {"layer": str(layer)})
    return folder


def seamless(folder: Path, shards: bool = True) -> Path:
    """A SeamlessM4Tv2Model folder, in several files if asked."""
    from transformers import SeamlessM4Tv2Config, SeamlessM4Tv2Model

    torch.manual_seed(1)
    config = SeamlessM4Tv2Config(
        vocab_size=40, t2u_vocab_size=30, char_vocab_size=30, hidden_size=16, encoder_layers=1, decoder_layers=1,
        encoder_ffn_dim=16, decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2,
        speech_encoder_layers=1,
        speech_encoder_attention_heads=2, speech_encoder_intermediate_size=16, feature_projection_input_dim=16,
        adaptor_kernel_size=2,
        adaptor_stride=2, t2u_encoder_layers=1, t2u_decoder_layers=1, t2u_encoder_ffn_dim=16, t2u_decoder_ffn_dim=16,
        t2u_encoder_attention_heads=2, t2u_decoder_attention_heads=2, t2u_variance_predictor_embed_dim=16,
        t2u_variance_predictor_hidden_dim=16, unit_hifi_gan_vocab_size=UNITS, unit_embed_dim=8, lang_embed_dim=4,
        spkr_embed_dim=4,
        vocoder_num_langs=3, vocoder_num_spkrs=5, upsample_initial_channel=16, upsample_rates=[5, 8, 8],
        upsample_kernel_sizes=[11, 16, 16], resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1]],
        max_position_embeddings=64,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, pad_token_id=0, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    model = SeamlessM4Tv2Model(config)
    model.generation_config.vocoder_lang_code_to_id = {"deu": 0, "eng": 2}
    model.save_pretrained(folder, max_shard_size="100KB" if shards else "5GB")
    return folder


def unit_hifigan(folder: Path) -> Path:
    """A unit HiFi-GAN in SpeechBrain's layout of tensors, with weight normalisation, as its checkpoints have it."""
    torch.manual_seed(2)
    sizes = {
        "upsample_initial_channel": 16,
        "upsample_rates": [5, 8, 8],
        "upsample_kernel_sizes": [11, 16, 16],
        "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1]],
    }
    tensors = {"unit_embedding.weight": torch.randn(UNITS, 8)}

    def layer(name: str, *shape: int, bias: int) -> None:
        weight = 0.2 * torch.randn(*shape)
        tensors[f"{name}.conv.weight_v"] = 3 * weight
        tensors[f"{name}.conv.weight_g"] = weight.flatten(1).norm(dim=1).view(-1, *[1] * (len(shape) - 1))
        tensors[f"{name}.conv.bias"] = 0.1 * torch.randn(bias)

    layer("conv_pre", 16, 8, 7, bias=16)
    for number, (kernel, width) in enumerate(zip(sizes["upsample_kernel_sizes"], (16, 8, 4), strict=True)):
        layer(f"ups.{number}", width, width // 2, kernel, bias=width // 2)
        for part in ("convs1", "convs2"):
            layer(f"resblocks.{number}.{part}.0", width // 2, width // 2, 3, bias=width // 2)
    layer("conv_post", 1, 2, 7, bias=1)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "model.safetensors")
    config = {"model_type": "unit-hifigan", "units": UNITS, "width": 8, "sampling_rate": 16_000} | sizes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def captioner(folder: Path) -> tuple[Path, Path]:
    """A BLIP captioner's folder and a VITS speaker's."""
    from transformers import (
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
        VitsConfig,
        VitsModel,
        VitsTokenizer,
    )

    from tests.tiny import text

    torch.manual_seed(3)
    tokenizer = text()[1]
    words = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "encoder_hidden_size": 16, "intermediate_size": 16,
        "projection_dim": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1,
        "pad_token_id": 0,
        "eos_token_id": tokenizer.eos_token_id, "sep_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    sight = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    config = BlipConfig(text_config=words, vision_config=sight, projection_dim=8, image_text_hidden_size=8)
    BlipForConditionalGeneration(config).save_pretrained(folder / "blip")
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder / "blip")
    letters = {letter: number for number, letter in enumerate("_abcdefghijklmnopqrstuvwxyz '</>|[]#0123456789-")}
    (folder / "vits").mkdir()
    (folder / "vits" / "vocab.json").write_text(json.dumps(letters))
    speaker = VitsTokenizer(
        folder / "vits" / "vocab.json", pad_token="_", unk_token="#", phonemize=False, is_uroman=False
    )
    speaker.save_pretrained(folder / "vits")
    voice = VitsConfig(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16, flow_size=16,
        spectrogram_bins=17, upsample_initial_channel=16, upsample_rates=[8, 8], upsample_kernel_sizes=[16, 16],
        resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1]], prior_encoder_num_flows=1,
        posterior_encoder_num_wavenet_layers=1,
        prior_encoder_num_wavenet_layers=1, duration_predictor_num_flows=1, depth_separable_num_layers=1, window_size=2,
    )  # fmt: skip
    VitsModel(voice).save_pretrained(folder / "vits")
    return folder / "blip", folder / "vits"


def clip(folder: Path) -> Path:
    """A CLIPModel folder with its image processor, such as img2speech looks with."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(8)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    sees, reads = small | {"image_size": 16, "patch_size": 8}, small | {"vocab_size": 20}
    CLIPModel(CLIPConfig(vision_config=sees, text_config=reads)).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16).save_pretrained(folder)
    return folder


def dinov2(folder: Path) -> Path:
    """A Dinov2Model folder with its image processor."""
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(9)
    config = Dinov2Config(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8, mlp_ratio=1
    )
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 16}, crop_size=16).save_pretrained(folder)
    return folder
