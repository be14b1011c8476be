"""Content Credentials (C2PA 2.x): a signed statement inside a PNG, WAV or MP4 that it is synthetic and what made it.

They stand beside the project's own record, which says all that it takes to make the file again.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mmx.errors import InputError, UsageError
from mmx.media.provenance import notice_of

MADE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")  # the uuid of C2PA's box in an MP4
ABOVE = (b"moov", b"trak", b"mdia", b"minf", b"stbl")  # the boxes that offsets into an MP4 lie in
SELF_SIGNED = "mmx, self-signed: nobody vouches for it"
AUTHORITY = "mmx, for one run"
SETTINGS = {"builder": {"thumbnail": {"enabled": False}}}
KEYS = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True)
class Identity:
    """Who signs: a chain of certificates, the signer's first, and the private key; both PEM. alg: C2PA's name."""

    chain: bytes
    key: bytes
    alg: str = "es256"


def identity(chain: bytes, key: bytes) -> Identity:
    """A user's own. Raises UsageError for a key of another kind than C2PA takes."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        found = load_pem_private_key(key, None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"--key: {error}", hint="a PEM file without a password") from None
    if isinstance(found, ec.EllipticCurvePrivateKey) and found.curve.name in KEYS:
        return Identity(chain, key, KEYS[found.curve.name])
    if isinstance(found, ed25519.Ed25519PrivateKey):
        return Identity(chain, key, "ed25519")
    if isinstance(found, rsa.RSAPrivateKey):
        return Identity(chain, key, "ps256")
    raise UsageError("--key: C2PA takes no key of this kind", hint="P-256, P-384, P-521, Ed25519 or RSA")


def self_signed() -> Identity:
    """A certificate that was made just now, by an authority that was made just now."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    above, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    chain = _certificate(own, AUTHORITY, SELF_SIGNED, above) + _certificate(above, "", AUTHORITY, above)
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Identity(chain, own.private_bytes(*plain))


def _certificate(key: Any, issuer: str, subject: str, by: Any) -> bytes:
    """A certificate as C2PA wants it, PEM; of an authority where no issuer is named."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(common: str) -> x509.Name:
        parts = {NameOID.COMMON_NAME: common, NameOID.ORGANIZATION_NAME: "mmx"}
        return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts.items()])

    now, uses = datetime.now(UTC), dict.fromkeys(_USES, False)
    uses |= {"digital_signature": True} if issuer else {"key_cert_sign": True, "crl_sign": True}
    built = x509.CertificateBuilder(
        issuer_name=name(issuer or subject),
        subject_name=name(subject),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - timedelta(days=1),
        not_valid_after=now + timedelta(days=3650),
    )
    built = built.add_extension(x509.BasicConstraints(not issuer, None), critical=True)
    built = built.add_extension(x509.KeyUsage(**uses), critical=True)
    built = built.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    if issuer:
        above = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key())
        built = built.add_extension(above, critical=False)
        built = built.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return built.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


_USES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
_USES += ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")


def kind_of(data: bytes) -> str | None:
    """The media type of what can be signed, else None."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "image/png"
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "audio/wav"
    return "video/mp4" if data[4:8] == b"ftyp" else None


def sign(data: bytes, record: dict[str, Any], name: str, who: Identity) -> bytes:
    """An artifact with Content Credentials. Raises InputError for a kind of file that takes none, UsageError where the
    certificate is none that C2PA takes."""
    import c2pa

    kind = kind_of(data)
    if kind is None:
        raise InputError(f"{name}: Content Credentials go into PNG, WAV and MP4 files")
    c2pa.load_settings(SETTINGS)
    created = {"action": "c2pa.created", "digitalSourceType": MADE, "description": notice_of(record)}
    manifest = {
        "claim_generator_info": [{"name": "mmx", "version": record["version"]}],
        "title": name,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
    }
    written = io.BytesIO()
    try:
        info = c2pa.C2paSignerInfo(alg=who.alg.encode(), sign_cert=who.chain, private_key=who.key, ta_url=None)
        with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(manifest)) as builder:
            builder.sign(signer, kind, io.BytesIO(unsigned(data)), written)
    except c2pa.C2paError as error:
        raise UsageError(f"{name}: not signed: {error}", hint="a certificate for C2PA, and its key?") from None
    return written.getvalue()


def is_signed(data: bytes) -> bool:
    """Whether there are Content Credentials in a file."""
    return len(unsigned(data)) < len(data)


def verified(data: bytes) -> dict[str, Any]:
    """What C2PA's own reader says of a signed file: state, by whom, and what is wrong with it."""
    import c2pa

    try:
        with c2pa.Reader(kind_of(data), io.BytesIO(data)) as reader:
            found, state = json.loads(reader.json()), reader.get_validation_state()
    except c2pa.C2paError as error:
        return {"state": "Invalid", "by": "", "issuer": "", "problems": [str(error).splitlines()[0]]}
    signature = found["manifests"][found["active_manifest"]].get("signature_info", {})
    problems = [status["code"] for status in found.get("validation_status", [])]
    about = {"by": signature.get("common_name", ""), "issuer": signature.get("issuer", "")}
    return {"state": state, **about, "problems": problems}


def unsigned(data: bytes) -> bytes:
    """A file as it was before it was signed; as it is, where it was not."""
    kind = kind_of(data)
    if kind == "image/png":
        return data[:8] + b"".join(part for name, part in _chunks(data) if name != b"caBX")
    if kind == "audio/wav":
        body = b"WAVE" + b"".join(part for name, part in _riff(data) if name != b"C2PA")
        return data if len(body) + 8 >= len(data) else b"RIFF" + struct.pack("<I", len(body)) + body
    return _unsigned_mp4(data) if kind else data


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG, each with its name; what is cut short as it is."""
    at = 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at : at + 12 + size]
        at += 12 + size


def _riff(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at < len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at : at + 8 + size + size % 2]
        at += 8 + size + size % 2


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of an MP4 between two places: name, begin, end."""
    while at + 8 <= end:
        size = int.from_bytes(data[at : at + 4], "big")
        size = int.from_bytes(data[at + 8 : at + 16], "big") if size == 1 else size or end - at
        if size < 8:
            return
        yield data[at + 4 : at + 8], at, min(at + size, end)
        at += size


def _unsigned_mp4(data: bytes) -> bytes:
    """Without C2PA's box, and with the offsets into what comes after it as they were."""
    boxes = list(_boxes(data, 0, len(data)))
    own = next(((a, b) for name, a, b in boxes if name == b"uuid" and data[a + 8 : a + 24] == BOX), None)
    if own is None:
        return data
    moved = bytearray(data)
    for at, width in _offsets(data, 0, len(data)):
        value = int.from_bytes(data[at : at + width], "big")
        if value >= own[1]:
            moved[at : at + width] = (value - (own[1] - own[0])).to_bytes(width, "big")
    return bytes(moved[: own[0]] + moved[own[1] :])


def _offsets(data: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Where the offsets of an MP4's chunks are written (`stco`, `co64`), and in how many bytes."""
    for name, begin, close in _boxes(data, at, end):
        if name in ABOVE:
            yield from _offsets(data, begin + 8, close)
        elif name in (b"stco", b"co64"):
            width = 4 if name == b"stco" else 8
            yield from ((place, width) for place in range(begin + 16, close - width + 1, width))
