"""What an entry opens, and what is left of a request inside a grant."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tokens.errors import OutOfScope
from tokens.scope import covers, covers_any, narrow

LCM = "fal-ai/fast-lcm-diffusion"


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ("*", LCM),
        ("*", "workflows/me/flow/realtime"),
        ("fast-lcm-diffusion", LCM),
        ("fast-lcm-diffusion", f"{LCM}/realtime"),
        ("fast-lcm-diffusion", f"{LCM}/image-to-image/realtime"),
        ("fast-lcm-diffusion", "somebody-else/fast-lcm-diffusion/realtime"),
        (LCM, LCM),
        (LCM, f"{LCM}/image-to-image/realtime"),
        (f"{LCM}/realtime", f"{LCM}/realtime"),
        ("flow", "workflows/me/flow/realtime"),
        ("flow", "comfy/me/flow"),
        ("workflows/me/flow", "workflows/me/flow"),
        ("workflows/me/flow", "workflows/me/flow/realtime"),
        ("workflows/me/flow/realtime", "workflows/me/flow/realtime"),
    ],
)
def test_an_entry_opens(entry: str, path: str) -> None:
    assert covers(entry, path)


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ("fast-lcm", f"{LCM}/realtime"),
        ("fal-ai", LCM),
        ("realtime", f"{LCM}/realtime"),
        ("fast-lcm-diffusion", "fast-lcm-diffusion"),
        ("Fast-LCM-Diffusion", LCM),
        (LCM, "somebody-else/fast-lcm-diffusion/realtime"),
        (LCM, f"{LCM}-turbo/realtime"),
        (f"{LCM}/realtime", LCM),
        (f"{LCM}/realtime", f"{LCM}/realtime/realtime"),
        (f"{LCM}/realtime", f"{LCM}/image-to-image/realtime"),
        ("me", "workflows/me/flow"),
        ("workflows/me", "workflows/me/flow"),
        ("*", ""),
        ("*", "fal-ai"),
        ("*", "workflows/me"),
        ("*", f"{LCM}/"),
        ("*", f"/{LCM}"),
        (LCM, f"{LCM}/../other"),
        (LCM, f"{LCM}/./realtime"),
        (LCM, "fal-ai//fast-lcm-diffusion"),
        ("", LCM),
        ("", ""),
    ],
)
def test_an_entry_does_not_open(entry: str, path: str) -> None:
    assert not covers(entry, path)


@pytest.mark.parametrize(
    ("requested", "granted", "narrowed"),
    [
        ([LCM], ["*"], [LCM]),
        (["fast-lcm-diffusion"], ["*"], ["fast-lcm-diffusion"]),
        (["fast-lcm-diffusion"], [LCM], [LCM]),
        (["fast-lcm-diffusion"], [LCM, "me/fast-lcm-diffusion", "me/other"], [LCM, "me/fast-lcm-diffusion"]),
        ([f"{LCM}/realtime"], ["fast-lcm-diffusion"], [f"{LCM}/realtime"]),
        ([LCM], [f"{LCM}/realtime", f"{LCM}/x/realtime"], [f"{LCM}/realtime", f"{LCM}/x/realtime"]),
        ([LCM, "fast-lcm-diffusion"], [LCM], [LCM]),
        (["*"], ["a", "b/c"], ["a", "b/c"]),
        (["flow"], ["workflows/me/flow"], ["workflows/me/flow"]),
    ],
)
def test_a_request_is_narrowed_to_the_grant(requested: list[str], granted: list[str], narrowed: list[str]) -> None:
    assert narrow(requested, granted) == narrowed


@pytest.mark.parametrize(
    ("requested", "granted", "entry"),
    [
        (["other"], [LCM], "other"),
        ([LCM, "other"], [LCM], "other"),
        (["me/fast-lcm-diffusion"], [LCM], "me/fast-lcm-diffusion"),
        ([f"{LCM}/stream"], [f"{LCM}/realtime"], f"{LCM}/stream"),
        (["fal-ai"], [LCM], "fal-ai"),
        ([LCM], [], LCM),
    ],
)
def test_an_entry_outside_the_grant_is_named(requested: list[str], granted: list[str], entry: str) -> None:
    with pytest.raises(OutOfScope) as refused:
        narrow(requested, granted)
    assert refused.value.entry == entry


# Few names, so that entries and paths meet often.
NAMES = st.sampled_from(["a", "b", "workflows", "comfy", "realtime"])
PATHS = st.lists(NAMES, min_size=1, max_size=5).map("/".join)
ENTRIES = PATHS | st.just("*")
SCOPES = st.lists(ENTRIES, min_size=1, max_size=4)


@given(requested=SCOPES, granted=SCOPES, path=PATHS)
def test_a_narrowed_token_opens_what_request_and_key_both_open(
    requested: list[str], granted: list[str], path: str
) -> None:
    try:
        narrowed = narrow(requested, granted)
    except OutOfScope:
        assume(False)
        raise
    assert covers_any(narrowed, path) == (covers_any(requested, path) and covers_any(granted, path))


@given(entry=ENTRIES, granted=SCOPES, path=PATHS)
def test_what_is_refused_had_nothing_in_common_with_the_key(entry: str, granted: list[str], path: str) -> None:
    try:
        narrow([entry], granted)
    except OutOfScope:
        assert not (covers(entry, path) and covers_any(granted, path))


@given(granted=SCOPES)
def test_a_keys_own_scope_is_within_it(granted: list[str]) -> None:
    assert set(narrow(granted, granted)) <= set(granted)


@given(entry=st.text(max_size=20), path=st.text(max_size=20))
def test_any_text_is_covered_or_not(entry: str, path: str) -> None:
    assert covers(entry, path) in (True, False)
