"""A pipeline of the diffusers library that is driven by embeddings alone: what starter and full-size picture
decoders share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mmx.decoders.base import ConditioningSpec, Teacher, freeze
from mmx.decoders.frozen import FrozenDecoder
from mmx.errors import ModelError, NonFiniteError


class DiffusionDecoder(FrozenDecoder):
    """Embedding → picture. A family says what its pipeline is given and in which numbers the pictures come out."""

    output_type = "np"  # of the pipeline: (B, S, S, 3) in [0, 1]
    signed = False  # whether the pipeline's tensors (B, 3, S, S) lie in [-1, 1], and not in [0, 1]

    def __init__(self, pipeline: Any, teacher: Teacher, spec: ConditioningSpec, defaults: dict[str, Any]) -> None:
        super().__init__(teacher, spec, defaults)
        self.pipeline = pipeline
        pipeline.set_progress_bar_config(disable=True)
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                freeze(part)

    def networks(self) -> list[torch.nn.Module]:
        parts = self.pipeline.components.values()
        return [*super().networks(), *(part for part in parts if isinstance(part, torch.nn.Module))]

    def _move(self, device: str, dtype: torch.dtype) -> None:
        self.pipeline.to(device, dtype)

    def _spare(self, device: str, dtype: torch.dtype) -> None:
        """Each part comes when it is needed, and where the autoencoder can, pictures leave in tiles."""
        self.pipeline.to(dtype=dtype)
        if device != "cpu":
            self.pipeline.enable_sequential_cpu_offload(device=device)
        codec = self.pipeline.components.get("vae")
        if codec is not None:  # Kandinsky's has another name, and no tiles
            codec.enable_slicing()
            codec.enable_tiling()

    def _compile(self) -> None:
        self.pipeline.unet.compile()

    @torch.inference_mode()
    def decode(
        self,
        conditioning: Tensor,
        *,
        generators: Sequence[torch.Generator],
        steps: int | None = None,
        guidance: float | None = None,
        size: int | None = None,
    ) -> list[Image.Image]:
        """Raw embeddings (B, D) → B pictures of `size` pixels a side, item i from generators[i] alone.

        steps: denoising steps. guidance: classifier-free guidance scale, 1 is none. Noise is drawn on the CPU.
        Raises UsageError for a conditioning or a size that does not fit.
        """
        self.spec.refuse_misfit(conditioning)
        asked = self._asked(steps, guidance, size)

        def draw(part: Tensor, draws: Sequence[torch.Generator]) -> list[Image.Image]:
            output = self._run(self.pipeline, part, draws, asked | {"output_type": self.output_type})
            return finite_pictures(self.pixels(output))

        return self._in_batches(conditioning, generators, draw)

    def paint(self, conditioning: Tensor, *, generators: Sequence[torch.Generator], **options: Any) -> Tensor:
        self.spec.refuse_misfit(conditioning)
        if self.spared:
            raise ModelError("with its parts off the GPU a decoder has no gradients", hint="leave --low-memory out")
        # a pipeline's call is decorated so that nothing in it has gradients: this is what is decorated
        call = partial(type(self.pipeline).__call__.__wrapped__, self.pipeline)
        asked = self._asked(**options) | {"output_type": "pt"}
        pixels = self._run(call, conditioning, generators, asked).float()
        return pixels if self.signed else pixels * 2 - 1

    def _asked(
        self, steps: int | None = None, guidance: float | None = None, size: int | None = None
    ) -> dict[str, Any]:
        """The pipeline's arguments, from those that `decode` takes. Raises UsageError for a size that does not fit."""
        side = self.side(size or self.defaults["size"])
        return {
            "height": side,
            "width": side,
            "num_inference_steps": steps or self.defaults["steps"],
            "guidance_scale": self.defaults["guidance"] if guidance is None else guidance,
        }

    def _run(
        self, call: Callable[..., Any], embeds: Tensor, generators: Sequence[torch.Generator], asked: dict[str, Any]
    ) -> Any:
        """What the pipeline makes of embeddings (B, D)."""
        inputs = self.inputs(embeds.to(self.device, self.pipeline.unet.dtype), asked["guidance_scale"])
        return call(**inputs, **asked, generator=list(generators)).images

    def side(self, size: int) -> int:
        """A picture's side → the `height` that the pipeline is asked for.

        Raises UsageError for one that does not fit.
        """
        return size

    def inputs(self, embeds: Tensor, guidance: float) -> dict[str, Any]:
        """Embeddings (B, D) → what drives the pipeline."""
        raise NotImplementedError

    def pixels(self, output: Any) -> Tensor:
        """What the pipeline gives → (B, S, S, 3) in about [-1, 1]."""
        return torch.from_numpy(output) * 2 - 1


def finite_pictures(pixels: Tensor) -> list[Image.Image]:
    """(B, S, S, 3) in about [-1, 1] → RGB pictures. Raises NonFiniteError."""
    if not torch.isfinite(pixels).all():
        raise NonFiniteError("the decoder produced values that are not numbers", hint="try --dtype fp32")
    array = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()
    return [Image.fromarray(item) for item in array]
