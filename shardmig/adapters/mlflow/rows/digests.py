"""What rows are, in a number: equal for the same rows in any order."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

import msgspec

from shardmig.adapters.mlflow.rows.sides import Row

_MODULUS: Final = 2**128
_encode: Final = msgspec.msgpack.Encoder().encode


class Content(msgspec.Struct, frozen=True):
    """How many rows there are, and the sum of their digests (32 hex digits): a multiset, so that it can be subtracted."""

    rows: int = 0
    digest: str = "0" * 32

    def with_rows(self, rows: Iterable[Row]) -> Content:
        """And these rows."""
        # MessagePack tells 1 from 1.0 and "1", and 0.0 from -0.0 (measured: 0.6 us a row, 1.6 with repr)
        numbers = [int.from_bytes(blake2b(text, digest_size=16).digest()) for text in map(_encode, rows)]
        return Content(self.rows + len(numbers), f"{(int(self.digest, 16) + sum(numbers)) % _MODULUS:032x}")

    def without(self, other: Content) -> Content:
        """What is left when the rows of `other`, which are among them, are taken away."""
        rest = (int(self.digest, 16) - int(other.digest, 16)) % _MODULUS
        return Content(self.rows - other.rows, f"{rest:032x}")
