"""The options of `mmx avatar` that change its bytes, as provenance keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Optional

from mmx.declared import Option
from mmx.options import Seed


@dataclass(frozen=True)
class AvatarOptions:
    """How a mesh is looked at, and how far it may go."""

    seed: Seed = 0
    steps: Annotated[int, Option("--steps", min=1, max=100_000, help="Steps of the optimisation.")] = 150
    views: Annotated[int, Option("--views", min=1, max=64, help="Cameras in each step, around the front.")] = 4
    crops: Annotated[int, Option("--crops", min=0, max=16, help="Small parts looked at of each view.")] = 2
    size: Annotated[int, Option("--size", min=32, max=1024, help="Pixels a side of a view.")] = 128
    front: Annotated[
        Optional[float],
        Option(
            "--front",
            min=-360,
            max=360,
            metavar="DEGREES",
            show_default=False,
            help="From where it is looked at most: 0 is from +z, 90 from +x. Default: where it already looks the part.",
        ),
    ] = None
    faces: Annotated[
        Optional[int],
        Option(
            "--faces",
            min=4,
            max=1_000_000,
            show_default=False,
            help="About so many triangles: finer meshes are decimated, coarser ones divided. Default: only the latter, "
            "up to 12000.",
        ),
    ] = None
    reach: Annotated[
        float,
        Option("--reach", min=0.0, max=0.5, help="How far points may move, of the mesh's radius; 0 only colours it."),
    ] = 0.1
    smooth: Annotated[
        float, Option("--smooth", min=0.0, max=1000.0, help="Weight of the moves' Laplacian: no spikes.")
    ] = 0.3
    texture: Annotated[
        int,
        Option(
            "--texture", min=0, max=8192, metavar="PIXELS", help="Bake a texture of this side into .glb; 0 bakes none."
        ),
    ] = 0
    dtype: Annotated[
        str, Option("--dtype", help="In what the space computes: auto (which is fp32), fp32, bf16 or fp16.")
    ] = "auto"
