"""`mmx sign`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from mmx.cli.takes import takes
from mmx.cli.talk import Speaker
from mmx.errors import UsageError
from mmx.extras import require
from mmx.media.files import Source, Target, given_file, output_file
from mmx.media.provenance import read_record
from mmx.options import Overwrite, Saying

if TYPE_CHECKING:
    from mmx.media.credentials import Identity


@dataclass(frozen=True)
class Signed:
    """What is signed, and where it goes."""

    file: Annotated[Path, typer.Argument(metavar="FILE", help="A PNG, WAV or MP4 that mmx made.", show_default=False)]
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="OUT", show_default=False, help="The signed file, or -.")
    ]
    overwrite: Overwrite = False

    def target(self) -> Target:
        """Where it goes. Raises UsageError."""
        target = output_file(self.output, self.file.suffix.lower())
        target.check(overwrite=self.overwrite)
        return target


@dataclass(frozen=True)
class Signer:
    """Who signs."""

    certificate: Annotated[
        Optional[Path],
        typer.Option(
            metavar="CHAIN.pem",
            show_default=False,
            help="Your certificates for C2PA, your own first. Default: one of this run, for which nobody vouches.",
        ),
    ] = None
    key: Annotated[
        Optional[Path], typer.Option(metavar="KEY.pem", show_default=False, help="The private key of the first.")
    ] = None

    def read(self) -> tuple[bytes, bytes] | None:
        """The files, if any are given. Raises UsageError, InputError."""
        if (self.certificate is None) != (self.key is None):
            raise UsageError("--certificate and --key go together")
        if self.certificate is None or self.key is None:
            return None
        paths = (given_file(self.certificate, "--certificate "), given_file(self.key, "--key "))
        chain, key = (Source(path, path).read() for path in paths)
        return chain, key


@takes
def sign(signed: Signed, signer: Signer, saying: Saying) -> None:
    """Put Content Credentials (C2PA) into a file that mmx made: a signed statement that it is synthetic.

    mmx sign cat.png -o cat-signed.png

    `mmx inspect` verifies them, `mmx reproduce` looks past them. A self-signed file is whole, but says nothing of who
    made it: readers call it untrusted.
    """
    given, target = signer.read(), signed.target()
    require("mmx sign", "c2pa")
    data = Source(given_file(signed.file), signed.file).read()
    record = read_record(data, str(signed.file))
    from mmx.media import credentials

    who: Identity = credentials.identity(*given) if given else credentials.self_signed()
    target.write(credentials.sign(data, record, signed.file.name, who))
    say = Speaker(saying)
    say.note(f"{target.name}: signed{'' if given else ' by a certificate of its own, for which nobody vouches'}")
    say.result({"schema": "mmx.signed/1", "input": str(signed.file), "output": target.name, "self_signed": not given})
