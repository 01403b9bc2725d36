"""The receipt in the footer of part_0."""

from __future__ import annotations

import binascii
import zlib
from base64 import b64decode, b64encode
from typing import Any, Final

import msgspec

from shardmig.codec import decode, encode
from shardmig.errors import BadInput
from shardmig.records import FORMAT_VERSION, Receipt

_KEY: Final = b"shardmig.receipt"


class NewerFormat(BadInput):
    """The run was published by a later version: it is not damaged, and not to be replaced."""


class _Version(msgspec.Struct):
    format_version: int


def footer_metadata(receipt: Receipt) -> dict[bytes, bytes]:
    """The key-value metadata that carries it: base64 of zlib of msgpack, since parquet wants text there."""
    return {_KEY: b64encode(zlib.compress(encode(receipt)))}


def receipt_in(metadata: Any, name: str) -> Receipt | None:
    """The receipt in a parquet footer's key-value metadata, None if there is none.

    Raises BadInput, naming the file `name`, for a damaged receipt, NewerFormat for one of a later format.
    """
    written = (metadata or {}).get(_KEY)
    if written is None:
        return None
    try:
        packed = zlib.decompress(b64decode(written, validate=True))
        version: _Version = decode(packed, _Version)
        if version.format_version > FORMAT_VERSION:
            raise NewerFormat(f"{name} has archive format {version.format_version}", hint="update shardmig")
        receipt: Receipt = decode(packed, Receipt)
    except (binascii.Error, zlib.error, msgspec.DecodeError) as error:
        raise BadInput(f"the receipt in {name} is damaged: {error}", hint="export this run again") from error
    return receipt
