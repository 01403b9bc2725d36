"""The few pieces of protobuf's wire format that are written without the vendor's objects."""

from __future__ import annotations


def varint(number: int) -> bytes:
    """A 64-bit integer as protobuf's varint; a negative one as its two's complement."""
    number &= 0xFFFF_FFFF_FFFF_FFFF
    if number < 0x80:
        return _SHORT[number]
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def sized(tag: bytes, content: bytes) -> bytes:
    """A field of bytes, text or message."""
    return tag + varint(len(content)) + content


_SHORT = [bytes([number]) for number in range(0x80)]
