"""Losses against NumPy twins; the loop against a kill; what is frozen stays frozen."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmx.errors import ModelError, NonFiniteError, UsageError
from mmx.nets.prior import EmbeddingPrior, alpha_bar
from mmx.training.decoders.codec import whiten_latents
from mmx.training.decoders.space import random_crops
from mmx.training.engine.checkpoint import load_state, states
from mmx.training.engine.loop import LoopConfig, Run, generator_of
from mmx.training.losses import Comparison, cosine, infonce, infonce_l2, mse, nt_xent, speech2face
from tests.conftest import ROOT
from tests.line_task import CONFIG, LineTask, same, weights


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def numpy_symmetric(logits: np.ndarray, weights: np.ndarray) -> float:
    def one_way(scores: np.ndarray, targets: np.ndarray) -> float:
        shares = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        return float(-(targets / targets.sum(1, keepdims=True) * shares).sum(1).mean())

    return (one_way(logits, weights) + one_way(logits.T, weights.T)) / 2


@pytest.mark.parametrize("shape", [(5, 5), (4, 8)])
def test_contrastive_losses_against_numpy(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((shape[0], 7)), rng.standard_normal((shape[1], 7))
    weights = (rng.random(shape) < 0.4) + 0.01
    cosine = unit(a) @ unit(b).T
    distance = np.linalg.norm(unit(a)[:, None] - unit(b)[None], axis=-1)
    ta, tb, tw = (torch.tensor(x, dtype=torch.float32) for x in (a, b, weights))
    assert math.isclose(
        infonce(ta, tb, scale=9.0, positives=tw).item(), numpy_symmetric(9 * cosine, weights), rel_tol=1e-4
    )
    assert math.isclose(infonce_l2(ta, tb, positives=tw).item(), numpy_symmetric(-distance, weights), rel_tol=1e-4)
    if shape[0] == shape[1]:
        assert math.isclose(infonce(ta, tb, scale=9.0).item(), numpy_symmetric(9 * cosine, np.eye(5)), rel_tol=1e-4)


@pytest.mark.parametrize("loss", [infonce, infonce_l2])
def test_smoothing_and_hard_negatives_against_numpy(loss) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((6, 7)), rng.standard_normal((6, 7))
    cosine_ = unit(a) @ unit(b).T
    logits = 5 * (cosine_ if loss is infonce else -np.linalg.norm(unit(a)[:, None] - unit(b)[None], axis=-1))

    def one_way(scores: np.ndarray) -> float:
        total = 0.0
        for row in range(6):
            others = sorted((k for k in range(6) if k != row), key=lambda k: -scores[row, k])[:2]
            kept = [row, *others]  # its own, and the two hardest
            shares = scores[row, kept] - np.log(np.exp(scores[row, kept]).sum())
            wanted = 0.7 * np.array([1, 0, 0]) + 0.3 / 3
            total -= float((wanted * shares).sum()) / 6
        return total

    ta, tb = (torch.tensor(x, dtype=torch.float32) for x in (a, b))
    found = loss(ta, tb, scale=5.0, smoothing=0.3, hard=2).item()
    assert math.isclose(found, (one_way(logits) + one_way(logits.T)) / 2, rel_tol=1e-4)


def test_distances_against_numpy() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((4, 6)), 3 * rng.standard_normal((8, 6))
    positives = (np.arange(8)[None] // 2 == np.arange(4)[:, None]).astype(float)
    ta, tb, tp = (torch.tensor(x, dtype=torch.float32) for x in (a, b, positives))
    own = [[2 * row, 2 * row + 1] for row in range(4)]
    squared = np.mean([np.mean((a[row] - b[k]) ** 2) for row in range(4) for k in own[row]])
    angles = np.mean([1 - unit(a)[row] @ unit(b)[k] for row in range(4) for k in own[row]])
    assert math.isclose(mse(ta, tb, positives=tp).item(), squared, rel_tol=1e-5)
    assert math.isclose(cosine(ta, tb, positives=tp).item(), angles, rel_tol=1e-5)
    mean, std = b.mean(0), b.std(0)
    student, teacher = Comparison(5.0, (torch.tensor(mean).float(), torch.tensor(std).float()))(ta, tb)
    assert np.allclose(student.numpy(), (5 * unit(a) - mean) / std, atol=1e-5)
    assert np.allclose(teacher.numpy(), (b - mean) / std, atol=1e-5)
    student, teacher = Comparison(5.0)(ta, tb)
    assert np.allclose(student.numpy(), 5 * unit(a), atol=1e-5) and torch.equal(teacher, tb)


def test_loss_gradients_are_finite_where_vectors_agree() -> None:
    a = torch.eye(4).requires_grad_()
    infonce_l2(a, torch.eye(4)).backward()
    assert torch.isfinite(a.grad).all()
    assert infonce(torch.eye(4), torch.eye(4), scale=1e6).item() == pytest.approx(
        0, abs=1e-6
    )  # the scale is clipped, not infinite


def test_a_run_killed_at_any_step_ends_in_the_same_bits(python, tmp_path: Path) -> None:
    script = f"""
import json, os, signal, sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.line_task import CONFIG, LineTask, Run

def train(folder, until):
    child = os.fork()  # importing torch once is enough
    if child == 0:
        run = Run(LineTask(), CONFIG, folder)
        step = run._one_step
        def one_step(**options):
            if run.step == until:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(**options)
        run._one_step = one_step
        run.fit(quiet=True)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

folder = Path(sys.argv[1])
runs = (("whole", 99), ("killed", 3), ("killed", 17), ("killed", 18), ("killed", 99))
print(json.dumps([train(folder / name, until) for name, until in runs]))
"""
    done = subprocess.run(
        [*python, "-c", script, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == [0, -signal.SIGKILL, -signal.SIGKILL, -signal.SIGKILL, 0]
    whole = Run(LineTask(), CONFIG, tmp_path / "whole")
    resumed = Run(LineTask(), CONFIG, tmp_path / "killed")
    assert resumed.step == 40
    assert same(weights(whole), weights(resumed))


def test_a_loss_that_is_no_number_stops_before_the_step(tmp_path: Path) -> None:
    run = Run(LineTask(poison=11), CONFIG, tmp_path)
    with pytest.raises(NonFiniteError) as stopped:
        run.fit(quiet=True)
    assert stopped.value.exit_code == 7 and run.step == 10
    assert load_state(tmp_path)[1]["step"] == 10
    assert all(torch.isfinite(p).all() for p in Run(LineTask(), CONFIG, tmp_path).module.parameters())


def test_state_is_checked_before_it_is_used(tmp_path: Path) -> None:
    Run(LineTask(), CONFIG, tmp_path).fit(quiet=True)
    with pytest.raises(UsageError, match="batch-size"):
        Run(LineTask(), LoopConfig(max_steps=40, batch_size=9, lr=1e-2), tmp_path)
    other = LineTask()
    other.module = nn.Linear(4, 1)
    with pytest.raises(UsageError, match="another model"):
        Run(other, CONFIG, tmp_path)
    path = states(tmp_path)[-1] / "module.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="changed"):
        Run(LineTask(), CONFIG, tmp_path)


def test_generators_are_a_function_of_seed_and_step() -> None:
    draws = {
        (seed, step): torch.rand(1, generator=generator_of(seed, step)).item() for seed in range(3) for step in range(5)
    }
    assert len(set(draws.values())) == 15
    assert draws[1, 4] == torch.rand(1, generator=generator_of(1, 4)).item()


def test_the_prior_learns_two_modes_that_a_regression_would_average() -> None:
    """One condition, two clusters: samples must lie in the clusters, near neither their mean."""
    torch.manual_seed(0)
    prior = EmbeddingPrior(2, 2, width=64, depth=2, dropout=0.0)
    centres = torch.tensor([[4.0, 0.0], [-4.0, 0.0]])
    prior.std.fill_(4.0)
    optimizer = torch.optim.Adam(prior.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    condition = torch.tensor([[1.0, 0.0]])
    for _ in range(400):
        targets = centres[torch.randint(2, (128,), generator=generator)] + 0.2 * torch.randn(
            128, 2, generator=generator
        )
        prior.loss(targets, condition.expand(128, 2), generator).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        samples = torch.stack(
            [
                prior.eval().sample(condition[0], torch.Generator().manual_seed(k), steps=20, guidance=1.0)
                for k in range(40)
            ]
        )
    nearest = torch.cdist(samples, centres).min(1)
    assert (nearest.values < 1.5).float().mean() > 0.85
    assert 0.2 < nearest.indices.float().mean() < 0.8


def test_a_cooler_prior_draws_closer_together_and_stays_a_function_of_its_generator() -> None:
    torch.manual_seed(0)
    prior = EmbeddingPrior(6, 6, width=16, depth=1).eval()
    condition = torch.nn.functional.normalize(torch.randn(6), dim=0)

    def spread(temperature: float) -> float:
        with torch.no_grad():
            draws = [
                prior.sample(condition, torch.Generator().manual_seed(k), steps=4, temperature=temperature)
                for k in range(12)
            ]
        return torch.stack(draws).std(0).mean().item()

    assert spread(0.3) < 0.7 * spread(1.0) and spread(0.0) < 1e-5


def test_the_schedule_falls_from_signal_to_noise() -> None:
    powers = alpha_bar(torch.linspace(0, 1, 50))
    assert (powers.diff() < 0).all() and powers[0] > 0.999 and powers[-1] < 1e-4


def test_whitened_codec_decodes_as_before() -> None:
    from mmx.training.decoders.codec import CodecConfig, build_codec

    torch.manual_seed(0)
    codec = build_codec(CodecConfig(patch=8, width=16, blocks=1, latent_channels=4)).eval()
    pixels = torch.rand(12, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        latents = codec.encode(pixels).latents
        before = codec.decode(latents, force_not_quantize=True).sample
        returned = whiten_latents(codec, latents)
        after = codec.encode(pixels).latents
        torch.testing.assert_close(after, returned, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(after.std((0, 2, 3)), torch.ones(4), atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(codec.decode(after, force_not_quantize=True).sample, before, atol=1e-4, rtol=1e-3)


def test_a_denoiser_is_stored_in_a_byte_a_weight_and_read_back(tmp_path: Path) -> None:
    """What is loaded is what was trained, rounded to float8 and no further, by us and by plain diffusers."""
    from diffusers import UNet2DConditionModel
    from safetensors.torch import load_file

    from mmx.decoders.unclip import ImageDecoder
    from tests.debug import make_decoder

    folder = make_decoder(tmp_path / "decoder")
    pipeline = ImageDecoder.load(folder).pipeline
    for part in ("unet", "movq"):
        path = folder / part / "diffusion_pytorch_model.safetensors"
        stored = load_file(path)
        assert any(value.dtype == torch.float8_e4m3fn for value in stored.values())
        ours = getattr(pipeline, part).state_dict()
        assert all(
            torch.equal(ours[name], value.float()) for name, value in stored.items() if value.is_floating_point()
        )
    plain = UNet2DConditionModel.from_pretrained(folder / "unet").state_dict()
    assert all(torch.equal(plain[name], value) for name, value in pipeline.unet.state_dict().items())


def test_random_crops_stay_inside_and_keep_flat_colour() -> None:
    flat = torch.full((16, 3, 8, 8), 0.25)
    torch.testing.assert_close(random_crops(flat, torch.Generator().manual_seed(0)), flat)
    ramp = torch.linspace(-1, 1, 64).expand(16, 3, 64, 64).contiguous()
    crops = random_crops(ramp, torch.Generator().manual_seed(0), min_scale=0.6)
    assert crops.min() >= -1 and crops.max() <= 1
    rising = (crops[:, 0, 0, -1] > crops[:, 0, 0, 0]).float().mean()
    assert 0.1 < rising < 0.9  # some are mirrored


def test_first_guesses_are_one_step_of_the_pipeline() -> None:
    from mmx.training.decoders.codec import build_codec
    from mmx.training.decoders.denoiser import build_denoiser, first_guesses
    from mmx.training.decoders.unclip import _pipeline
    from tests.debug import CODEC, DENOISER, DIM

    torch.manual_seed(0)
    unet, latents, embeds = build_denoiser(DENOISER, 4, DIM).eval(), torch.zeros(2, 4, 8, 8), torch.randn(2, DIM)
    ours = first_guesses(unet, embeds, latents, seed=5).float()
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    theirs = _pipeline(unet, build_codec(CODEC))(
        image_embeds=embeds,
        negative_image_embeds=torch.zeros_like(embeds),
        height=64,
        width=64,
        num_inference_steps=1,
        guidance_scale=1.0,
        latents=noise,
        output_type="latent",
    ).images
    torch.testing.assert_close(ours, theirs, atol=0.03, rtol=0.05)


def test_finishing_moves_the_decoder_and_nothing_else(tmp_path: Path) -> None:
    from mmx.data.photos import Photos
    from mmx.training.decoders.codec import CodecConfig, build_codec
    from mmx.training.decoders.denoiser import FinishTask
    from mmx.training.decoders.space import SpaceConfig, build_space

    torch.manual_seed(0)
    config = SpaceConfig(dim=32, hidden_sizes=(8, 8, 8), depths=(1, 1, 1), text_width=16, text_layers=1)
    teacher = build_space(config, 300)
    codec = build_codec(CodecConfig(width=16, blocks=1, latent_channels=4)).eval()
    before = {name: value.clone() for name, value in codec.state_dict().items()}
    photos = Photos(torch.randint(0, 255, (6, 64, 64, 3), dtype=torch.uint8), [{} for _ in range(6)])
    latents = torch.randn(6, 4, 8, 8)
    task = FinishTask(photos, photos, teacher, codec, (latents.half(), latents.half()), latents.half())
    run = Run(task, LoopConfig(max_steps=3, batch_size=4, lr=1e-2, warmup=0, validate_steps=3), tmp_path)
    metrics = run.fit(quiet=True)
    assert set(metrics) == {"guess_l1", "guess_features"}
    for name, value in run.module.state_dict().items():
        decoder = name.startswith(("up_blocks", "out_block"))
        assert decoder or torch.equal(value, before[name]), name
    assert not torch.equal(run.module.out_block[0].weight, before["out_block.0.weight"])
    assert (tmp_path / "preview.png").exists()


def numpy_cross_entropy(student: np.ndarray, teacher: np.ndarray, temperature: float) -> np.ndarray:
    def shares(logits: np.ndarray) -> np.ndarray:
        powers = np.exp(logits / temperature)
        return powers / powers.sum(1, keepdims=True)

    return -(shares(teacher) * np.log(shares(student))).sum(1)


def test_speech2face_and_simclr_against_numpy() -> None:
    rng = np.random.default_rng(0)
    a, b, fa, fb, la, lb = (rng.standard_normal((4, n)) for n in (6, 6, 9, 9, 5, 5))
    tensors = [torch.tensor(x, dtype=torch.float32) for x in (a, b, fa, fb, la, lb)]
    ours = speech2face(
        tensors[0],
        tensors[1],
        first=(tensors[2], tensors[3]),
        answers=(tensors[4], tensors[5]),
        weights=(1.0, 3.0, 0.5),
    )
    naive = np.abs(fa - fb).mean(1) + 3 * ((unit(a) - unit(b)) ** 2).sum(1) + 0.5 * numpy_cross_entropy(la, lb, 2.0)
    assert math.isclose(ours.item(), naive.mean(), rel_tol=1e-4)
    views = unit(rng.standard_normal((6, 5)))
    scores = np.exp(views @ views.T / 0.3)
    naive_pairs = [
        -np.log(scores[i, (i + 3) % 6] / (scores[i].sum() - scores[i, i])) for i in range(6)
    ]  # SimCLR, equation 1
    assert math.isclose(nt_xent(torch.tensor(views), 0.3).item(), np.mean(naive_pairs), rel_tol=1e-4)


class ScoredTask(LineTask):
    """Whose val is best after `best` steps."""

    def __init__(self, best: int) -> None:
        super().__init__()
        self.best, self.run, self.seen = best, None, {}

    def validate(self, module: nn.Module) -> dict[str, float]:
        self.seen[self.run.step] = {name: value.clone() for name, value in module.state_dict().items()}
        away = float(abs(self.run.step - self.best))
        return {"val_score": -away, "val_loss": away, "val_lossless": -away}


def scored(folder: Path, best: int, **changes) -> Run:
    run = Run(ScoredTask(best), replace(CONFIG, validate_steps=5, **changes), folder)
    run.task.run = run
    return run


@pytest.mark.parametrize("metric", ["val_score", "val_loss", "val_lossless"])
def test_the_best_weights_by_a_metric_are_kept_and_training_stops_when_bored(tmp_path: Path, metric: str) -> None:
    """More is better, but of what the task says less is; the count of stale validations outlives a restart."""
    run = scored(tmp_path, 15, metric=metric, patience=3)
    run.fit(quiet=True)
    assert run.step == 30  # 20, 25 and 30 were no better than 15
    assert all(torch.equal(value, run.task.seen[15][name]) for name, value in run.averaged().state_dict().items())
    again = scored(tmp_path, 15, metric=metric, patience=3)
    again.fit(quiet=True)
    assert again.step == 30 and again.best_value == run.best_value
    last = scored(tmp_path / "last", 15)
    last.fit(quiet=True)
    assert all(torch.equal(value, last.task.seen[40][name]) for name, value in last.averaged().state_dict().items())


def test_a_metric_that_val_does_not_measure_is_refused_before_the_first_step(tmp_path: Path) -> None:
    run = scored(tmp_path, 15, metric="val_beauty")
    with pytest.raises(UsageError, match="val_beauty") as refused:
        run.fit(quiet=True)
    assert run.step == 0 and "val_score, val_loss, val_lossless" in refused.value.hint
    run = Run(LineTask(), replace(CONFIG, metric="val_score"), tmp_path / "none")
    with pytest.raises(UsageError) as refused:
        run.fit(quiet=True)
    assert "no val split" in refused.value.hint
