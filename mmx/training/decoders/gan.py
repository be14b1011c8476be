"""A projected, instance-conditioned GAN: the generator of an image decoder that draws in one step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.nets.generator import Generator
from mmx.training.decoders.critic import Critic
from mmx.training.decoders.gan_config import GanConfig
from mmx.training.decoders.gaze import Conditioned, Gaze, Sight
from mmx.training.decoders.space import to_images, to_pixels
from mmx.training.decoders.views import View


def apart(a: Tensor, b: Tensor) -> Tensor:
    """Mean distance of two feature maps (B, C, h, w), place by place, a coordinate."""
    return ((a - b).square().mean(1) + 1e-8).sqrt().mean()


class _GanModule(nn.Module):
    def __init__(self, config: GanConfig) -> None:
        super().__init__()
        self.generator = Generator(**asdict(config.generator))
        self.critic = Critic(config.critic)
        self.register_buffer("strength", torch.tensor(0.5))  # of the augmentation


@contextmanager
def held(module: nn.Module) -> Iterator[None]:
    """Inside, gradients flow through the module and not into its weights."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


@dataclass
class _Play:
    """What both networks learn from at a step: photos (B, 3, S, S) with a conditioning each (B, D); pictures drawn of
    the `items` (K,) among them; and the taps of both.
    """

    photos: Tensor
    conditioning: Tensor
    items: Tensor
    drawn: Tensor
    real: list[Tensor]
    fake: list[Tensor]


class GanTask:
    """Hinge loss on frozen features (Sauer et al. 2021), a photo's neighbours as what is real (Casanova et al. 2021),
    and for the generator:

    guide: what is told of a drawn picture is what the conditioning says.
    energy: the energy score (Gneiting and Raftery 2007) of deep features, E|y - x| - E|y - y'| / 2 over two pictures y,
    y' of one conditioning and a neighbour x. It is least where the pictures of a conditioning differ as its photos do:
    noise has to matter.
    colour: mean colours of cells are those of the photo, which the conditioning stands for.

    Both networks take their step at once, on gradients that are kept apart.
    """

    name = "gan"
    lower_is_better = ("colour_l1",)

    def __init__(
        self,
        data: Conditioned,
        val: Conditioned,
        gaze: Gaze,
        sight: Sight,
        config: GanConfig,
        seed: int = 0,
    ) -> None:
        """gaze: what the critic looks through; sight: what tells how well a picture fits its conditioning."""
        self.data, self.val, self.gaze, self.sight, self.config = data, val, gaze, sight, config
        torch.manual_seed(seed)
        self.module = _GanModule(config).to(memory_format=torch.channels_last)

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        """`size` anchors, a neighbour of each as the photo; the conditioning is the anchor's semantic part and the
        photo's layout part.
        """
        shares, near = self.data.shares, self.data.near
        picks = torch.searchsorted(shares, torch.rand(size, generator=generator)).clamp(max=len(near) - 1)
        photos = near[picks, torch.randint(near.shape[1], (size,), generator=generator)]
        mirrored = (torch.rand(size, generator=generator) < 0.5).long()
        images = self.data.photos.pixels[photos]
        images = torch.where(mirrored.bool()[:, None, None, None], images.flip(2), images)
        semantic = self.data.embeds[mirrored, picks, : self.data.semantic]
        layout = self.data.embeds[mirrored, photos, self.data.semantic :]
        return {"images": images, "semantic": semantic.float(), "layout": layout.float()}

    def _noisy(self, part: Tensor, generator: torch.Generator) -> Tensor:
        """A part of the conditioning (B, K) with noise, at the norm that it had."""
        strength = self.config.noise * torch.rand(len(part), 1, generator=generator).square()
        noisy = part + (strength * torch.randn(part.shape, generator=generator)).to(part.device)
        return F.normalize(noisy, dim=1) * part.norm(dim=1, keepdim=True)

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        now = self._play(batch, generator)
        critic, margin, sure = self._critic_loss(now)
        terms = self._generator_terms(now)
        self._adapt(sure, len(now.photos))
        parts = {name: value.item() for name, value in terms.items()}
        parts |= {"critic": critic.item(), "margin": margin, "strength": float(self.module.strength)}
        weights = {"fooling": 1.0} | {name: getattr(self.config, name) for name in ("guide", "energy", "colour")}
        return critic + sum(weights[name] * value for name, value in terms.items()), parts

    def _play(self, batch: dict[str, Tensor], generator: torch.Generator) -> _Play:
        """Draw, and let the frozen network look at photos and pictures in the same views."""
        photos, count = to_pixels(batch["images"]), len(batch["images"])
        conditioning = torch.cat([self._noisy(batch[name], generator) for name in ("semantic", "layout")], 1)
        # the first quarter is drawn a second time, from other noise
        items = torch.cat((torch.arange(count), torch.arange(count // 4)))
        noise = torch.randn(len(items), self.config.generator.noise, generator=generator).to(photos.device)
        drawn = self.module.generator(noise, conditioning[items]).float()
        view = View.draw(count, photos.shape[-1], float(self.module.strength), generator, self.config.crop)
        with torch.no_grad():
            real = self.gaze.taps(view(photos))
        return _Play(photos, conditioning, items, drawn, real=real, fake=self.gaze.taps(view.pick(items)(drawn)))

    def _wrong(self, conditioning: Tensor) -> Tensor:
        """Conditionings (B, D) that do not fit: the next one's semantic part, and of every fourth its layout part."""
        semantic, layout = conditioning.tensor_split((self.data.semantic,), 1)
        if not layout.shape[1]:
            return conditioning.roll(1, 0)
        colours = (torch.arange(len(conditioning)) % 4 == 0)[:, None].to(conditioning.device)
        return torch.where(
            colours, torch.cat((semantic, layout.roll(1, 0)), 1), torch.cat((semantic.roll(1, 0), layout), 1)
        )

    def _critic_loss(self, now: _Play) -> tuple[Tensor, float, float]:
        """The critic's hinge loss, by how much it scores photos higher, and the share of photos that it takes for
        photos, from -1 to 1.
        """
        project, critic = self.gaze.projection, self.module.critic
        yes, mismatched = critic(project(now.real), now.conditioning, self._wrong(now.conditioning))
        (no,) = critic(project([tap.detach() for tap in now.fake]), now.conditioning[now.items])
        loss = sum(
            F.relu(1 - a).mean() + F.relu(1 + b).mean() + self.config.wrong * F.relu(1 + c).mean()
            for a, b, c in zip(yes, no, mismatched, strict=True)
        )
        margin = sum((a.mean() - b.mean()).item() for a, b in zip(yes, no, strict=True)) / len(yes)
        return loss, margin, sum(a.sign().mean().item() for a in yes) / len(yes)

    def _generator_terms(self, now: _Play) -> dict[str, Tensor]:
        items, again = now.items, len(now.items) - len(now.photos)
        conditioning = now.conditioning[items]
        with held(self.module.critic):
            (scores,) = self.module.critic(self.gaze.projection(now.fake), conditioning)
        deep, wanted = self.gaze.deep(now.fake), self.gaze.deep(now.real)
        energy = sum(
            apart(y, x[items]) - apart(y[:again], y[-again:]) / 2 for y, x in zip(deep, wanted, strict=True)
        ) / len(deep)
        told = self.sight.told(now.drawn, now.fake)
        return {
            "fooling": -sum(score.mean() for score in scores),
            "guide": 1 - F.cosine_similarity(told, conditioning[:, : self.data.semantic], dim=1).mean(),
            "energy": energy,
            "colour": (self._cells(now.drawn) - self._cells(now.photos)[items]).abs().mean(),
        }

    def _cells(self, pixels: Tensor) -> Tensor:
        """Mean colours of cells: (B, 3, S, S) → (B, 3, n, n)."""
        return F.adaptive_avg_pool2d(pixels, self.config.cells)

    @torch.no_grad()
    def _adapt(self, sure: float, count: int) -> None:
        """Adaptive augmentation (Karras et al. 2020): stronger while the critic is too sure of its photos."""
        step = count / self.config.patience * (1 if sure > self.config.margin else -1)
        self.module.strength.add_(step).clamp_(0.2, 1.0)

    def validate(self, module: nn.Module) -> dict[str, float]:
        """At val photos' own embeddings: how well the pictures fit, colours of cells, and what other noise changes: the
        distance of two pictures' deep features beside that of a picture and the photo.
        """
        settle(module.generator, self.data.embeds[0])
        keep = torch.arange(0, len(self.val.photos), max(1, len(self.val.photos) // 256))
        photos = to_pixels(self.val.photos.pixels[keep]).to(self.gaze.device)
        first, second = (self._drawn(module.generator, keep, seed) for seed in range(2))
        taps, others, real = self.gaze.taps(first), self.gaze.taps(second), self.gaze.taps(photos)
        away, between = (
            sum(apart(a, b).item() for a, b in zip(self.gaze.deep(taps), self.gaze.deep(x), strict=True))
            for x in (real, others)
        )
        return self.sight.measure(first, taps, keep) | {
            "colour_l1": (self._cells(first) - self._cells(photos)).abs().mean().item(),
            "spread": between / away,
        }

    def _drawn(self, generator: Generator, keep: Tensor, seed: int) -> Tensor:
        """A picture of each of these val photos' embeddings (K,)."""
        draws = torch.Generator().manual_seed(seed)
        noise = torch.randn(len(keep), self.config.generator.noise, generator=draws).to(self.gaze.device)
        return generator(noise, self.val.embeds[0, keep].float().to(self.gaze.device))

    def preview(self, module: nn.Module, path: Path) -> None:
        """Ten val photos of ten labels, and five pictures of each at its own embedding."""
        from mmx.media.image import grid

        labels = self.val.labels
        firsts = [int((labels == label).nonzero()[0, 0]) for label in labels.unique().tolist()]
        keep = torch.tensor(firsts[:: max(1, len(firsts) // 10)][:10])
        rows = [to_pixels(self.val.photos.pixels[keep])]
        rows += [self._drawn(module.generator, keep, seed).cpu() for seed in range(5)]
        grid(to_images(torch.cat(rows)), columns=len(keep)).save(path)


@torch.no_grad()
def settle(generator: Generator, embeds: Tensor, count: int = 512, batch: int = 32) -> None:
    """Batch normalisation's statistics anew, for averaged weights (Brock et al. 2019): training's are of others."""
    norms = [child for child in generator.modules() if isinstance(child, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over batches
    draws, device = torch.Generator().manual_seed(0), generator.colours.weight.device
    generator.train()
    for picks in torch.randint(len(embeds), (count // batch, batch), generator=draws):
        noise = torch.randn(batch, generator.noise, generator=draws)
        generator(noise.to(device), embeds[picks].float().to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    generator.eval()
