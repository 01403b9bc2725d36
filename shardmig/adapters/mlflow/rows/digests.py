"""What rows are, in a number: equal for the same rows in any order."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

import msgspec

from shardmig.adapters.mlflow.rows.sides import Row

_MODULUS: Final = 2**128


class Content(msgspec.Struct, frozen=True):
    """How many rows there are, and the sum of their digests (32 hex digits): a multiset, so that it can be subtracted."""

    rows: int = 0
    digest: str = "0" * 32

    def with_rows(self, rows: Iterable[Row]) -> Content:
        """And these rows."""
        count, total = 0, int(self.digest, 16)
        for count, row in enumerate(rows, 1):  # noqa: B007
            # repr tells 1 from 1.0 and '1', 0.0 from -0.0, and gives a float's shortest exact text
            total += int.from_bytes(blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=16).digest())
        return Content(self.rows + count, f"{total % _MODULUS:032x}")

    def without(self, other: Content) -> Content:
        """What is left when the rows of `other`, which are among them, are taken away."""
        rest = (int(self.digest, 16) - int(other.digest, 16)) % _MODULUS
        return Content(self.rows - other.rows, f"{rest:032x}")
