"""Injective names: two fields never merge in a target, and each name can be led back to its field.

A name that the target accepts stays as it is. Any other is cleaned and gets `~` and 16 hex digits of its own
digest. A name that already looks like that is treated as not accepted, so nothing can collide with a made name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable
from hashlib import blake2b
from typing import Final

_MADE: Final = re.compile(r"~[0-9a-f]{16}$")


def digest_of(name: str) -> str:
    """16 hex digits that tell names apart."""
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def fit_name(name: str, *, accepts: Callable[[str], bool], clean: Callable[[str], str], max_length: int) -> str:
    """The target's name for `name`. `accepts` tells whether the target takes a name unchanged (length included);
    `clean` makes one that it takes, apart from length. Pure, and injective for one set of rules."""
    if accepts(name) and not _MADE.search(name):
        return name
    suffix = "~" + digest_of(name)
    return clean(name)[: max_length - len(suffix)].rstrip(" ./") + suffix


def changed_names(paths: Iterable[str], fit: Callable[[str], str]) -> dict[str, str]:
    """{name in the target: field path} of exactly those that changed: what is stored with the run and inverted."""
    return {fitted: path for path in paths if (fitted := fit(path)) != path}


def unlike(path: str, taken: Container[str]) -> str:
    """The path, with a number behind it where that is taken. Two ways may lead to one path: {"a": {"b": 1}} and {"a/b": 1}, version b of
    artifact a and the artifact a/b."""
    made, number = path, 2
    while made in taken:
        made, number = f"{path} ({number})", number + 1
    return made
