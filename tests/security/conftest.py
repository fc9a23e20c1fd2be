"""Lets the tests of this folder import their site, and gives them one with its broker."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from real_broker import MOSQUITTO, free_port  # noqa: E402
from secure_site import Client, Site, SiteBroker, run  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("broker") and MOSQUITTO is None:
            item.add_marker(pytest.mark.skip(reason="mosquitto is not on PATH: apt install mosquitto"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A fresh site whose broker is this machine."""
    made = Site(tmp_path_factory.mktemp("site") / "nonn-site", free_port())
    assert run("init", made.folder, "--broker-host", "localhost", "--broker-port", str(made.port)) == 0
    return made


@pytest.fixture(scope="module")
def site_broker(site: Site) -> Iterator[SiteBroker]:
    """Its broker."""
    broker = SiteBroker(site)
    yield broker
    broker.stop()


@pytest.fixture
def clients(site: Site) -> Iterator[Callable[..., Client]]:
    """Makes clients that are gone after the test."""
    made: list[Client] = []

    def make(*words: object, **more: object) -> Client:
        made.append(Client(site, *words, **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for client in made:
        client.close()
