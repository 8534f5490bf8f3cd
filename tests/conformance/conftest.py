"""Each test that takes `target` runs against ours, and with `make test-conformance` against fal's SDK as well."""

from collections.abc import Iterator

import pytest

from tests.conformance.behaviours import ATTRIBUTE, Behaviour
from tests.conformance.targets import APP, SOURCE, FalServer, OurServer, Target, fal_server, moved
from tests.stack import Stack, running
from tests.tiny_bundle import make_tiny_bundle

BUILT_IN = "fal-ai/fast-lcm-diffusion"


@pytest.fixture(scope="session")
def fal() -> Iterator[FalServer]:
    with fal_server() as server:
        yield server


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OurServer]:
    folder = tmp_path_factory.mktemp("conformance")
    (folder / "conformance_app.py").write_text(moved(SOURCE.read_text()))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(folder))
        with running(
            make_tiny_bundle(folder / "tiny"), app=f"{APP}=conformance_app:ConformanceApp,{BUILT_IN}"
        ) as stack:
            yield OurServer(stack)


@pytest.fixture(scope="session")
def stack(ours: OurServer) -> Stack:
    """For what only ours has, as fal's gateway is closed."""
    return ours.stack


@pytest.fixture(params=["ours", pytest.param("fal", marks=pytest.mark.conformance)])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    held: Behaviour = getattr(request.function, ATTRIBUTE)
    served = Target(request.param, request.getfixturevalue(request.param))
    yield served
    assert served.differs == bool(held.differs), "`differs` and `target.pick` belong together"
