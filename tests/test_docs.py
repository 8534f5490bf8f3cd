"""What is written about the project is what the project does."""

import re
from pathlib import Path

import pytest
import yaml
from openapi_spec_validator import OpenAPIV31SpecValidator

from deploy import openapi, settings_reference

ROOT = Path(__file__).parent.parent


def test_the_settings_page_is_the_codes() -> None:
    assert settings_reference.PAGE.read_text() == settings_reference.page(), "run: make docs"


def test_every_setting_says_what_it_does() -> None:
    for settings in settings_reference.CLASSES.values():
        assert [name for name, field in settings.model_fields.items() if not field.description] == []


def test_openapi_yaml_is_the_codes() -> None:
    assert openapi.FILE.read_text() == openapi.text(), "run: make docs"


def test_openapi_yaml_is_valid() -> None:
    OpenAPIV31SpecValidator(yaml.safe_load(openapi.FILE.read_text())).validate()


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_make_target_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)`", (ROOT / "README.md").read_text()))
    assert named <= targets


def test_the_readmes_python_is_the_examples() -> None:
    """The README shows the core of examples/python_client.py: the same calls, in the same words."""
    shown = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown is not None
    compile(shown[1], "README.md", "exec")
    assert 'fal_client.realtime("fal-ai/fast-lcm-diffusion", use_jwt=False)' in shown[1]
