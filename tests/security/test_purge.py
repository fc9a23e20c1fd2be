"""A site is cleared by its operator, with the certificate and the rules that init made."""

from collections.abc import Callable

import pytest
from real_broker import wait_until
from secure_site import Client, Site, SiteBroker, run

from edge_agent.console.exit_codes import ExitCode
from edge_agent.protocol.topics import SiteTopics

pytestmark = pytest.mark.broker
# Everything that a device, a coordinator and a rollout leave behind.
RETAINED = (
    "node/pi-0/state", "node/pi-0/info", "node/pi-0/update", "node/pi-0/assignment", "coordinator/main/state",
    "coordinator/main/info", "coordinator/main/rollout", "coordinator/other/state", "deployment/desired",
    "deployment/switch",
)  # fmt: skip


@pytest.fixture
def left_behind(site: Site, site_broker: SiteBroker, clients: Callable[..., Client]) -> list[str]:
    """Topics of a site that is gone, each with a retained message."""
    site.device("add", "desk", "--role", "viewer")
    access = site.folder / "broker/access"
    access.write_text(access.read_text() + "\nuser everything\ntopic readwrite #\n")
    site_broker.reload()
    topics = [f"{SiteTopics(site.name).root}/{topic}" for topic in RETAINED]
    everything = clients(site.certificate("everything"))
    for topic in topics:
        everything.publish(topic, b"{}", retain=True)
    wait_until(lambda: everything.refused == dict.fromkeys(topics, False), "all are at the broker")
    return topics


def retained(site: Site, clients: Callable[..., Client]) -> set[str]:
    """What somebody who sees everything is sent at once."""
    watcher = clients(site.certificate("everything"))
    end = f"{SiteTopics(site.name).root}/doctor/end"
    watcher.subscribe("nonn/#")
    watcher.publish(end, b"end")
    wait_until(lambda: end in watcher.received, "whatever was retained has come before it")
    return set(watcher.received) - {end}


def test_the_operator_clears_the_whole_site(
    site: Site, left_behind: list[str], clients: Callable[..., Client], capsys: pytest.CaptureFixture[str]
) -> None:
    assert retained(site, clients) == set(left_behind)
    assert run("purge", "--whole-site", "--config", site.settings("operator")) == 0
    assert f"{len(left_behind)} retained messages cleared" in capsys.readouterr().out
    assert retained(site, clients) == set()


def test_a_viewer_is_told_whom_to_ask(
    site: Site, left_behind: list[str], clients: Callable[..., Client], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("coordinator.purge.LOGIN_PATIENCE_S", 2.0)
    capsys.readouterr()
    assert run("purge", "pi-0", "--config", site.settings("desk")) == ExitCode.UNAVAILABLE
    error = capsys.readouterr().err
    assert "the broker did not clear 4 of 4 topics" in error
    assert "as the operator of nonn-coordinator init may" in error
    assert retained(site, clients) == set(left_behind)
