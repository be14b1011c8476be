"""The full-size models that mmx knows by a short name: where they are published, and which files of that are read.

Many repositories hold each weight several times: in half precision, without its moving average, in one file for other
programs, as a pickle. What is named here is fetched and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmx.errors import ModelError

ANY = ("*.safetensors",)  # of a repository that is not known more closely
ABOUT = ("*.json", "*.txt", "*.model", "*.md", "LICENSE*")  # small: they describe the weights
NET, TOWER = "diffusion_pytorch_model.safetensors", "model.safetensors"  # as diffusers and transformers name weights


@dataclass(frozen=True)
class Repo:
    """A repository of the hub, ORG/REPO[@REVISION], and what of it is wanted.

    weights: patterns, each of which must match a file.
    """

    name: str
    weights: tuple[str, ...] = ANY

    @property
    def patterns(self) -> list[str]:
        """What to fetch: the weights, and what describes them."""
        return [*self.weights, *ABOUT]


@dataclass(frozen=True)
class Known:
    """A full-size model by its short name.

    repos: the decoder's, then its companion's. steps, guidance: of denoising, by default.
    """

    name: str
    repos: tuple[Repo, ...]
    task: str
    licence: str
    commercial: bool
    gigabytes: float  # of GPU memory in fp16
    resolution: int  # pixels a side, or Hz
    steps: int | None = None
    guidance: float | None = None

    @property
    def hub_name(self) -> str:
        """As it can be given in place of the short name."""
        return "+".join(f"hf-hub:{repo.name}" for repo in self.repos)


def _weights(**folders: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for folder, name in folders.items())


SD15 = Repo("stable-diffusion-v1-5/stable-diffusion-v1-5", _weights(unet=NET, vae=NET, text_encoder=TOWER))
KNOWN = (
    Known(  # CLIP ViT-bigG image embeddings, 1280
        "kandinsky-2.2",
        repos=(
            Repo("kandinsky-community/kandinsky-2-2-decoder", _weights(unet=NET, movq=NET)),
            Repo(
                "kandinsky-community/kandinsky-2-2-prior", _weights(prior=NET, image_encoder=TOWER, text_encoder=TOWER)
            ),
        ),
        task="sound2img",
        licence="Apache-2.0",
        commercial=True,
        gigabytes=6.0,
        resolution=512,
        steps=50,
        guidance=4.0,
    ),
    Known(  # CLIP ViT-H image embeddings, 1024; a mirror, the original was withdrawn
        "stable-unclip-2.1",
        repos=(
            Repo(
                "sd2-community/stable-diffusion-2-1-unclip",
                _weights(unet=NET, vae=NET, image_normalizer=NET, image_encoder=TOWER, text_encoder=TOWER),
            ),
        ),
        task="sound2img",
        licence="CreativeML Open RAIL++-M",
        commercial=True,
        gigabytes=6.0,
        resolution=768,
        steps=20,
        guidance=10.0,
    ),
    Known(  # CLIP ViT-H image embeddings, 1024
        "sd15-ip-adapter",
        repos=(SD15, Repo("h94/IP-Adapter", ("models/ip-adapter_sd15.safetensors", f"models/image_encoder/{TOWER}"))),
        task="sound2img",
        licence="CreativeML Open RAIL-M",
        commercial=True,
        gigabytes=4.0,
        resolution=512,
        steps=30,
        guidance=7.5,
    ),
    Known(  # CLIP ViT-bigG image embeddings, 1280
        "sdxl-ip-adapter",
        repos=(
            Repo(
                "stabilityai/stable-diffusion-xl-base-1.0",
                _weights(unet=NET, vae=NET, text_encoder=TOWER, text_encoder_2=TOWER),
            ),
            Repo("h94/IP-Adapter", ("sdxl_models/ip-adapter_sdxl.safetensors", f"sdxl_models/image_encoder/{TOWER}")),
        ),
        task="sound2img",
        licence="CreativeML Open RAIL++-M",
        commercial=True,
        gigabytes=9.0,
        resolution=1024,
        steps=30,
        guidance=5.0,
    ),
    Known(  # ArcFace embeddings, 512
        "sd15-face-id",
        repos=(SD15, Repo("h94/IP-Adapter-FaceID", ("ip-adapter-faceid_sd15.safetensors",))),
        task="voice2face",
        licence="CreativeML Open RAIL-M; the adapter: non-commercial research",
        commercial=False,
        gigabytes=4.0,
        resolution=512,
        steps=30,
        guidance=7.5,
    ),
    Known(  # ArcFace embeddings, 512; its own net and text tower take the place of the base's
        "arc2face",
        repos=(
            Repo(SD15.name, _weights(vae=NET)),
            Repo("FoivosPar/Arc2Face", (f"arc2face/{NET}", f"encoder/{TOWER}", "arcface.onnx")),
        ),
        task="voice2face",
        licence="MIT; its face recogniser: non-commercial research",
        commercial=False,
        gigabytes=4.0,
        resolution=512,
        steps=25,
        guidance=3.0,
    ),
    Known(  # 10,000 units of XLS-R
        "seamless-vocoder",
        repos=(Repo("facebook/seamless-m4t-v2-large"),),
        task="img2speech",
        licence="CC BY-NC 4.0",
        commercial=False,
        gigabytes=0.5,
        resolution=16_000,
    ),
    Known(  # for --bridge caption: BLIP and a VITS
        "captioner",
        repos=(Repo("Salesforce/blip-image-captioning-base"), Repo("facebook/mms-tts-eng")),
        task="encoder",
        licence="BSD-3-Clause; the speaker: CC BY-NC 4.0",
        commercial=False,
        gigabytes=1.2,
        resolution=16_000,
    ),
    Known(  # a log-mel vocoder: --decoder starter+speecht5-hifigan
        "speecht5-hifigan",
        repos=(Repo("microsoft/speecht5_hifigan"),),
        task="img2speech",
        licence="MIT",
        commercial=True,
        gigabytes=0.1,
        resolution=16_000,
    ),
    Known(
        "clap",
        repos=(Repo("laion/clap-htsat-unfused"),),
        task="encoder",
        licence="Apache-2.0",
        commercial=True,
        gigabytes=0.6,
        resolution=48_000,
    ),
    Known(
        "ast",
        repos=(Repo("MIT/ast-finetuned-audioset-10-10-0.4593"),),
        task="encoder",
        licence="BSD-3-Clause",
        commercial=True,
        gigabytes=0.4,
        resolution=16_000,
    ),
    Known(
        "wavlm",
        repos=(Repo("microsoft/wavlm-base-plus"),),
        task="encoder",
        licence="MIT",
        commercial=True,
        gigabytes=0.4,
        resolution=16_000,
    ),
)


def find_known(name: str | None) -> Known | None:
    """The model of a short name, or of the hub names that it stands for."""
    return next((known for known in KNOWN if name in (known.name, known.hub_name)), None)


def repo_of(name: str) -> Repo:
    """ORG/REPO[@REVISION] → the repository, with all that any known model reads of it.

    Raises ModelError for what can't be one.
    """
    name = name.removeprefix("hf-hub:")
    if name.partition("@")[0].count("/") != 1:
        names = ", ".join(known.name for known in KNOWN)
        raise ModelError(f"{name}: no model is called so", hint=f"give ORG/REPO, or one of {names}")
    own = (repo for known in KNOWN for repo in known.repos if repo.name == name.partition("@")[0])
    weights = tuple(dict.fromkeys(pattern for repo in own for pattern in repo.weights))
    return Repo(name, weights or ANY)


def repos_of(name: str) -> tuple[Repo, ...]:
    """A short name, or hub names with a + between them → repositories. Raises ModelError."""
    known = find_known(name)
    return known.repos if known else tuple(repo_of(part) for part in name.split("+"))
