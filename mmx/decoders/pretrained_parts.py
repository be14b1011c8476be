"""The frozen encoders of full-size image decoders, and how they and their pipelines are read from disk."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import mmx.compat  # noqa: F401  (torchaudio must be mended before transformers or diffusers are imported)
from mmx.decoders.base import freeze
from mmx.decoders.frozen import NoTeacher, PictureTeacher
from mmx.errors import ModelError, NonFiniteError
from mmx.media.image import fit_square


def _works_on(net: torch.nn.Module) -> torch.device:
    """Where a network computes: where its weights are, or where accelerate's offloading brings them to."""
    hook = getattr(net, "_hf_hook", None)
    return net.device if getattr(hook, "execution_device", None) is None else torch.device(hook.execution_device)


class ClipTeacher(PictureTeacher):
    """A CLIP vision tower as the library's pipelines use it: pictures → raw image embeddings. Frozen.

    texts: the text tower of the same space and its tokenizer, where there is one.
    """

    def __init__(self, encoder, processor, texts: tuple[Any, Any] | None = None) -> None:
        self.net, self.processor, self.texts = freeze(encoder), processor, texts
        self.dim, self.image_size = int(encoder.config.projection_dim), int(encoder.config.image_size)
        self.has_texts = texts is not None

    def to(self, device: str, dtype: torch.dtype) -> None:
        """Move it."""
        self.net.to(device, dtype)
        if self.texts is not None:
            self.texts[0].to(device, dtype)

    def _embed(self, images: Sequence[Image.Image]) -> Tensor:
        pixels = self.processor(list(images), return_tensors="pt").pixel_values
        return self.net(pixels.to(_works_on(self.net), self.net.dtype)).image_embeds

    @torch.inference_mode()
    def zero(self) -> Tensor:
        """The embedding (1, D) of zero pixel values, as Kandinsky's prior pipeline defines its negative."""
        black = torch.zeros(1, 3, self.image_size, self.image_size)
        return self.net(black.to(_works_on(self.net), self.net.dtype)).image_embeds.float().cpu()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts → unit-norm embeddings (B, D), on the CPU.

        Raises ModelError where the decoder has no text tower in this space.
        """
        if self.texts is None:
            return super().embed_texts(texts)
        encoder, tokenizer = self.texts
        tokens = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(_works_on(encoder))
        return torch.nn.functional.normalize(encoder(**tokens).text_embeds.float(), dim=-1).cpu()


class OnnxFaces(PictureTeacher):
    """A face recogniser in ONNX, such as ArcFace (Deng et al. 2019): aligned faces → unit-norm embeddings.

    The network takes (B, 3, S, S) in [-1, 1], RGB, and gives (B, D). Its weights are a graph, not a pickle: nothing in
    it can run code.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise ModelError(
                f"{path.name}: reading it takes onnxruntime, which is not installed", hint="pip install 'mmx[onnx]'"
            ) from None
        try:
            self.session = onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
        except Exception as error:  # its own errors share no base
            raise ModelError(f"{path.name}: the recogniser can't be read: {str(error).splitlines()[0]}") from None
        entry = self.session.get_inputs()[0]
        self.name, side = entry.name, entry.shape[-1]
        self.image_size = side if isinstance(side, int) else 112
        self.dim = int(self.session.get_outputs()[0].shape[-1])

    def _embed(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB faces, cut and aligned as the recogniser wants them → unit-norm embeddings (B, D). onnxruntime
        says where it computes.
        """
        import numpy as np

        pixels = np.stack([np.asarray(fit_square(image, self.image_size), np.float32) for image in images])
        rows = self.session.run(None, {self.name: pixels.transpose(0, 3, 1, 2) / 127.5 - 1})[0]
        if not np.isfinite(rows).all():
            raise NonFiniteError("the face recogniser gave values that are not numbers")
        return torch.nn.functional.normalize(torch.from_numpy(rows).float(), dim=-1)


def read_pipeline(kind: str, folder: Path, **parts: Any):
    """A pipeline's folder, with some of its parts given. Raises ModelError."""
    return read_part("diffusers", kind, folder, **parts)


def read_part(library: str, kind: str, folder: Path, **parts: Any):
    """A model's or pipeline's folder through its library's own class, from safetensors alone. Raises ModelError."""
    try:
        return getattr(importlib.import_module(library), kind).from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, **parts
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder.name}: the decoder can't be loaded: {str(error).splitlines()[0]}") from None


def pipeline_class(folder: Path) -> str:
    """The class that a pipeline folder's model_index.json names. Raises ModelError."""
    try:
        return json.loads((folder / "model_index.json").read_text(encoding="utf8"))["_class_name"]
    except (OSError, ValueError, KeyError):
        raise ModelError(
            f"{folder} is no decoder: it has no model_index.json", hint="give a diffusers pipeline folder"
        ) from None


def companion_beside(folder: Path, name: str) -> Path | None:
    """A companion that lies in the decoder's folder or next to it under its usual name."""
    if not name:
        return None
    return next((p for p in (folder / name, folder.parent / name) if p.is_dir()), None)


def _vision(folder: Path, processor_folder: Path) -> tuple[Any, Any]:
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    try:
        encoder = CLIPVisionModelWithProjection.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
        known = (processor_folder / "preprocessor_config.json").exists()
        size = encoder.config.image_size
        processor = (
            CLIPImageProcessor.from_pretrained(processor_folder)
            if known
            else CLIPImageProcessor(size=size, crop_size=size)
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: the image encoder can't be loaded: {str(error).splitlines()[0]}") from None
    return encoder, processor


def kandinsky_teacher(pipeline, prior: Path) -> tuple[ClipTeacher, int]:
    encoder, processor = _vision(prior / "image_encoder", prior / "image_processor")
    texts = None
    if (prior / "text_encoder").is_dir() and (prior / "tokenizer").is_dir():
        from transformers import AutoTokenizer, CLIPTextModelWithProjection

        texts = (
            freeze(CLIPTextModelWithProjection.from_pretrained(prior / "text_encoder", dtype=torch.float32)),
            AutoTokenizer.from_pretrained(prior / "tokenizer"),
        )
    return ClipTeacher(encoder, processor, texts), int(encoder.config.projection_dim)


def unclip_teacher(pipeline, companion: Path | None) -> tuple[ClipTeacher, int]:
    return ClipTeacher(pipeline.image_encoder, pipeline.feature_extractor), int(
        pipeline.image_encoder.config.projection_dim
    )


def ip_adapter_teacher(pipeline, adapter: Path) -> tuple[ClipTeacher | OnnxFaces | NoTeacher, int]:
    """Load the adapter's weights into the pipeline; its image encoder lies beside them, but for FaceID."""
    weights = _adapter_file(adapter, pipeline)
    encoder = weights.parent / "image_encoder"
    has_encoder = encoder.is_dir()
    try:
        pipeline.load_ip_adapter(
            str(adapter),
            subfolder=weights.parent.relative_to(adapter).as_posix(),
            weight_name=weights.name,
            image_encoder_folder="image_encoder" if has_encoder else None,
            local_files_only=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{weights.name}: the adapter can't be loaded: {str(error).splitlines()[0]}") from None
    if not has_encoder:
        projection = pipeline.unet.encoder_hid_proj.image_projection_layers[0]
        return recogniser_in(adapter), next(p.shape[1] for p in projection.parameters() if p.dim() == 2)
    return ClipTeacher(pipeline.image_encoder, pipeline.feature_extractor), int(
        pipeline.image_encoder.config.projection_dim
    )


def adapter_parts(pipeline, adapter: Path) -> tuple[str, str]:
    """What is read of an adapter's folder: its weights, and the image encoder beside them."""
    weights = _adapter_file(adapter, pipeline).relative_to(adapter)
    return weights.as_posix(), (weights.parent / "image_encoder").as_posix()


def _adapter_file(adapter: Path, pipeline) -> Path:
    """The adapter's weights for a pipeline: the only ones there, or those of the usual name."""
    from diffusers import StableDiffusionXLPipeline

    found = [p for p in sorted(adapter.rglob("*.safetensors")) if "image_encoder" not in p.parts]
    kind = "sdxl" if isinstance(pipeline, StableDiffusionXLPipeline) else "sd15"
    usual = [p for p in found if p.name == f"ip-adapter_{kind}.safetensors"]
    if len(found) == 1 or usual:
        return (usual or found)[0]
    if not found:
        raise ModelError(
            f"{adapter.name}: no .safetensors of an IP-Adapter here", hint="weights in pickles are not read"
        )
    raise ModelError(
        f"{adapter.name} holds {len(found)} adapters",
        hint=f"give a folder with one: {', '.join(p.name for p in found[:4])}",
    )


def recogniser_in(folder: Path) -> OnnxFaces | NoTeacher:
    """The face recogniser that lies in a folder, if one does."""
    found = sorted(folder.rglob("*.onnx"))
    if found:
        return OnnxFaces(found[0])
    return NoTeacher(
        f"{folder.name} has no image encoder: its conditioning is made by a face recogniser (ArcFace)",
        hint="a bridge trained for it can drive it; to train one, put the recogniser's .onnx into its "
        "companion's folder",
    )


def arc2face_teacher(pipeline, companion: Path) -> tuple[OnnxFaces | NoTeacher, int]:
    """Arc2Face listens to ArcFace's 512 numbers; its repository holds arcface.onnx.

    Where that is there, it says how many they are.
    """
    teacher = recogniser_in(companion)
    return teacher, teacher.dim if isinstance(teacher, OnnxFaces) else 512
