"""Names are injective, accepted by the target, and led back."""

from hypothesis import given
from hypothesis import strategies as st

from shardmig.adapters.names import changed_names, fit_name

MAX = 40


def accepts(name: str) -> bool:
    return 0 < len(name) <= MAX and all(
        (character.isascii() and character.isalnum()) or character in "/_~" for character in name
    )


def clean(name: str) -> str:
    return "".join(character if accepts(character) else "_" for character in name)


def fit(name: str) -> str:
    return fit_name(name, accepts=accepts, clean=clean, max_length=MAX)


names = st.text(max_size=80) | st.from_regex(r"[a:_]{1,4}(~[0-9a-f]{16})?", fullmatch=True)


@given(st.sets(names))
def test_no_two_names_become_one(originals: set[str]) -> None:
    assert len({fit(name) for name in originals}) == len(originals)


@given(names)
def test_every_name_made_is_accepted(name: str) -> None:
    assert accepts(fit(name))


@given(names)
def test_the_map_is_idempotent_only_for_what_is_kept(name: str) -> None:
    assert (fit(name) == name) or fit(fit(name)) != fit(name)


@given(st.sets(names))
def test_what_changed_can_be_led_back(originals: set[str]) -> None:
    back = changed_names(originals, fit)
    assert {back.get(fit(name), fit(name)) for name in originals} == originals


def test_slashes_stay_and_a_colon_does_not_merge_with_an_underscore() -> None:
    assert fit("metrics/train/loss") == "metrics/train/loss"
    assert fit("a:b") != fit("a_b") == "a_b"
