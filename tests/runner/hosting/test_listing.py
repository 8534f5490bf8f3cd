"""The list of `--app` and `RUNNER_APP`."""

import pytest

from runner.hosting.listing import ListedApp, parse_apps


def test_entries_are_the_model_or_classes() -> None:
    text = "fal-ai/fast-lcm-diffusion, acme/my_app.v2=pack.age.module:MyApp,workflows/acme/flow=m:C,"
    assert parse_apps(text) == (
        ListedApp("fal-ai/fast-lcm-diffusion"),
        ListedApp("acme/my_app.v2", "pack.age.module:MyApp"),
        ListedApp("workflows/acme/flow", "m:C"),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no-owner", "'no-owner' is no id of an app: write owner/alias"),
        ("a/b/c", "'a/b/c' is no id"),
        ("workflows/only-two", "is no id"),
        ("acme/../etc", "is no id"),
        ("acme/x=", "'' names no class: write acme/x=module:Class"),
        ("acme/x=module", "'module' names no class"),
        ("acme/x=module.py:Class:x", "names no class"),
        ("acme/x=/tmp/module:Class", "names no class"),
        ("acme/x,acme/x=m:C", "acme/x is there twice"),
        (" , ", "names no app"),
    ],
)
def test_an_entry_that_is_none_is_named_with_the_remedy(text: str, words: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the text is what is looked at
        parse_apps(text)
    assert words in str(refused.value)
