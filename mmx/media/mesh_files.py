"""Coloured meshes as files that carry what made them: OBJ, PLY and GLB."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmx.media.mesh import TriangleMesh
from mmx.media.provenance import KEY, dumps, notice_of

ARRAY, ELEMENTS = 34962, 34963  # targets of glTF's buffer views
FLOAT, UINT = 5126, 5125  # its component types


@dataclass(frozen=True)
class Painted:
    """One moment of a mesh with colours. points (N, 3), normals (N, 3), colours (N, 3) in [0, 1] as screens show them
    (sRGB); faces (F, 3). places (N, 2) in [0, 1] and texture: where points lie on a picture, from its upper left, and
    that picture as PNG bytes; it then takes the colours' place."""

    points: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    colours: np.ndarray
    places: np.ndarray | None = None
    texture: bytes | None = None

    @classmethod
    def of(cls, mesh: TriangleMesh, frame: int, normals: np.ndarray, colours: np.ndarray) -> Painted:
        """A frame of a mesh."""
        return cls(mesh.frames[frame], normals, mesh.faces, colours)


def _comments(record: dict[str, Any]) -> list[str]:
    """What a file says of itself, a line each, in ASCII: other programs' readers take nothing else."""
    return [ascii(notice_of(record))[1:-1], f"{KEY} {json.dumps(json.loads(dumps(record)), sort_keys=True)}"]


def obj_bytes(painted: Painted, record: dict[str, Any]) -> bytes:
    """Wavefront OBJ with a colour after each point, as most programs read it; the record in comments."""
    lines = [f"# {line}" for line in _comments(record)]
    rows = np.concatenate((painted.points, painted.colours), 1)
    lines += ["v " + " ".join(f"{value:.7g}" for value in row) for row in rows.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (painted.faces + 1).tolist()]
    return ("\n".join(lines) + "\n").encode("utf8")


def ply_bytes(painted: Painted, record: dict[str, Any]) -> bytes:
    """Stanford PLY, binary, colours in 8 bits; the record in comments."""
    header = ["ply", "format binary_little_endian 1.0", *(f"comment {line}" for line in _comments(record))]
    header.append(f"element vertex {len(painted.points)}")
    header += [f"property float {name}" for name in ("x", "y", "z", "nx", "ny", "nz")]
    header += [f"property uchar {name}" for name in ("red", "green", "blue")]
    header += [f"element face {len(painted.faces)}", "property list uchar int vertex_indices", "end_header"]
    points = np.zeros(len(painted.points), [("p", "<f4", 3), ("n", "<f4", 3), ("c", "u1", 3)])
    points["p"], points["n"] = painted.points, painted.normals
    points["c"] = np.round(painted.colours * 255)
    faces = np.zeros(len(painted.faces), [("k", "u1"), ("f", "<i4", 3)])
    faces["k"], faces["f"] = 3, painted.faces
    return ("\n".join(header) + "\n").encode("utf8") + points.tobytes() + faces.tobytes()


def glb_bytes(painted: Painted, record: dict[str, Any]) -> bytes:
    """Binary glTF 2.0: one mesh with a rough material; the record in `asset.extras`."""
    about: dict[str, Any] = {"POSITION": painted.points, "NORMAL": painted.normals}
    material: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    if painted.texture is None:
        about["COLOR_0"] = linear(painted.colours)  # glTF multiplies with light as it is
    else:
        about["TEXCOORD_0"] = painted.places
        material["baseColorTexture"] = {"index": 0}
    binary, views, accessors = _buffers(about, painted)
    tree = {
        "asset": {"version": "2.0", "generator": f"mmx {record['version']}", "copyright": notice_of(record)},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [
            {"primitives": [{"attributes": {n: k for k, n in enumerate(about)}, "indices": len(about), "material": 0}]}
        ],
        "materials": [{"pbrMetallicRoughness": material, "doubleSided": True}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    tree["asset"]["extras"] = {KEY: dumps(record)}
    if painted.texture is not None:
        tree |= {"images": [{"mimeType": "image/png", "bufferView": len(views) - 1}], "samplers": [{}]}
        tree["textures"] = [{"source": 0, "sampler": 0}]
    text = json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode("utf8")
    chunks = _chunk(b"JSON", text, b" ") + _chunk(b"BIN\0", binary, b"\0")
    return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks


def _buffers(about: dict[str, Any], painted: Painted) -> tuple[bytes, list[dict[str, Any]], list[dict[str, Any]]]:
    """Everything one after the other, and the views and accessors that say where each is."""
    binary, views, accessors = b"", [], []
    for name, values in (*about.items(), ("", painted.faces)):
        values = np.ascontiguousarray(values, "<f4" if name else "<u4")
        accessor = {"bufferView": len(views), "componentType": FLOAT if name else UINT, "count": values.size}
        accessor |= {"type": "SCALAR"}
        if name:
            accessor |= {"count": len(values), "type": f"VEC{values.shape[1]}"}
        if name == "POSITION":
            accessor |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        data = values.tobytes()
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(data)})
        views[-1]["target"] = ARRAY if name else ELEMENTS
        accessors.append(accessor)
        binary += data
    if painted.texture is not None:
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(painted.texture)})
        binary += painted.texture
    return binary + b"\0" * (-len(binary) % 4), views, accessors


def _chunk(kind: bytes, data: bytes, fill: bytes) -> bytes:
    data += fill * (-len(data) % 4)
    return struct.pack("<I", len(data)) + kind + data


def linear(colours: np.ndarray) -> np.ndarray:
    """sRGB values in [0, 1] → how much light they stand for (IEC 61966-2-1)."""
    return np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)


WRITERS = {".obj": obj_bytes, ".ply": ply_bytes, ".glb": glb_bytes}
