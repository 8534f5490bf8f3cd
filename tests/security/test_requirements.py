"""Every J, H and W requirement is a test of its name (`test_j6_…` shows J6), or it would be a mere intention."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
LAST = {"j": 17, "h": 11, "w": 16}
REQUIREMENTS = [f"{kind}{number}" for kind, last in LAST.items() for number in range(1, last + 1)]


@pytest.fixture(scope="module")
def names() -> list[str]:
    """The names of all test functions."""
    files = (file for file in TESTS.rglob("test_*.py") if "node_modules" not in file.parts)
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    return [node.name for node in nodes if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_a_requirement_has_a_test(requirement: str, names: list[str]) -> None:
    assert [name for name in names if re.match(f"test_{requirement}_", name)]
