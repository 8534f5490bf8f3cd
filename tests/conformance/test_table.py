"""docs/conformance.md says what the tests say, and nothing else."""

from tests.conformance import table
from tests.conformance.behaviours import ATTRIBUTE
from tests.conformance.elsewhere import HELD


def test_the_page_is_the_tests() -> None:
    assert table.PAGE.read_text() == table.page(), "run: make docs"


def test_every_test_of_this_folder_says_which_behaviour_it_holds() -> None:
    silent = [name for name, test in table.own_tests().items() if not hasattr(test, ATTRIBUTE)]
    assert silent == []
    assert len(table.own_tests()) > 50


def test_every_row_names_tests_that_exist() -> None:
    named = [test for held in HELD for test in held.tests]
    assert [test for test in (*named, *table.own_tests()) if not table.exists(test)] == []
    assert all(held.tests for held in HELD)


def test_every_row_belongs_to_a_section_and_every_section_has_rows() -> None:
    sections = {held.section for held in HELD}
    sections |= {getattr(test, ATTRIBUTE).section for test in table.own_tests().values()}
    assert sections == set(table.SECTIONS)
