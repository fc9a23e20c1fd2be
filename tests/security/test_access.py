"""Every role x every topic, publish and receive, at a real mosquitto with the configuration that init writes.

TABLE says what must hold; it is not made from coordinator/provisioning/access_rules.py, which the broker goes by.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_broker import free_port, wait_until
from secure_site import Client, Pair, Site, SiteBroker, run

from coordinator.provisioning.site_folder import SiteFolder
from edge_agent.protocol.topics import SiteTopics
from edge_agent.protocol.update_topics import UpdateTopics

ROLES = ("student", "camera", "coordinator", "operator", "viewer", "revoked")
SHA = "a" * 64
DEPLOYMENT = "0123456789abcdef"
# student: device pi-0; camera: device pi-door, source door; coordinator: main; w publish, r receive, - neither.
TABLE = """
topic                                        student camera coordinator operator viewer
frame/door                                   r       rw     r           rw       -
frame/pi-0                                   r       r      r           rw       -
frame/request-main                           r       r      rw          rw       -
frame/dashboard                              r       r      rw          rw       -
feature/door/{deployment}/0/pi-0             w       -      r           -        -
feature/door/{deployment}/0/pi-door          -       w      r           -        -
feature/door/{deployment}/0/main             -       -      -           -        -
feature/door/{deployment}/0/operator         -       -      r           -        -
feature/door/{deployment}/0/desk             -       -      r           -        -
prediction/door                              -       -      w           r        r
prediction/dashboard                         -       -      rw          r        r
prediction/door/early                        -       -      w           r        r
picture/door                                 -       w      r           r        r
picture/pi-0                                 -       -      r           r        r
label/door                                   -       -      r           w        -
node/pi-0/state                              rw      -      r           rw       r
node/pi-0/info                               w       -      r           rw       r
node/pi-0/telemetry                          w       -      r           rw       r
node/pi-0/update                             w       -      r           rw       r
node/pi-0/assignment                         r       -      rw          rw       r
node/pi-door/state                           -       rw     r           rw       r
node/pi-door/info                            -       w      r           rw       r
node/pi-door/telemetry                       -       w      r           rw       r
node/pi-door/update                          -       w      r           rw       r
node/pi-door/assignment                      -       r      rw          rw       r
node/main/state                              -       -      -           rw       r
node/desk/state                              -       -      r           rw       -
node/operator/info                           -       -      r           rw       r
coordinator/main/state                       -       -      rw          rw       r
coordinator/main/info                        r       r      rw          rw       r
coordinator/main/telemetry                   -       -      rw          rw       r
coordinator/main/rollout                     -       -      rw          rw       r
coordinator/other/state                      -       -      -           rw       r
coordinator/other/info                       r       r      r           rw       r
request/classify                             -       -      r           w        -
request/assign                               -       -      r           w        -
request/deploy                               -       -      r           w        -
request/chunks/main                          w       w      rw          rw       -
request/chunks/deploy-1                      w       w      w           rw       -
response/classify                            -       -      w           r        -
response/deploy                              -       -      w           r        -
response/caller/1                            -       -      w           r        -
deployment/desired                           r       r      rw          rw       -
deployment/switch                            r       r      rw          rw       -
chunk/{sha}/0                                r       r      rw          rw       -
doctor/doctor-1                              rw      rw     rw          rw       rw
other/thing                                  -       -      -           -        -
"""


def expected() -> dict[str, dict[str, str]]:
    """Topic -> role -> letters."""
    header, *rows = [line.split() for line in TABLE.strip().splitlines()]
    filled = {
        row[0].format(deployment=DEPLOYMENT, sha=SHA): dict(zip(header[1:], row[1:], strict=True)) for row in rows
    }
    return {topic: {**roles, "revoked": "-"} for topic, roles in filled.items()}


EXPECTED = expected()


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[set[str], set[str]]]]:
    """Role -> (topics that it may publish on, topics that it receives)."""
    site = Site(tmp_path_factory.mktemp("matrix") / "nonn-site", free_port())
    assert run("init", site.folder, "--broker-host", "localhost", "--broker-port", str(site.port)) == 0
    site.device("add", "pi-0", "--students", "0")
    site.device("add", "pi-door", "--students", "none", "--camera", "v4l2", "--source", "door")
    site.device("add", "desk", "--role", "viewer")
    site.device("add", "pi-old", "--students", "1")
    pairs = {
        "student": site.certificate("pi-0"),
        "camera": site.certificate("pi-door"),
        "coordinator": client_pair(site, "coordinator", "main"),
        "operator": client_pair(site, "clients/operator", "operator"),
        "viewer": client_pair(site, "clients/desk", "desk"),
        "revoked": site.certificate("pi-old"),  # of the authority and not on its list, so only the rules stop it
    }
    site.device("revoke", "pi-old")
    access = site.folder / "broker/access"
    access.write_text(access.read_text() + "\nuser everything\ntopic readwrite #\n")
    broker = SiteBroker(site)
    root = SiteTopics(site.name).root
    topics = [f"{root}/{topic}" for topic in EXPECTED]
    roles = {role: Client(site, pair) for role, pair in pairs.items()}
    everything = Client(site, site.certificate("everything"))
    try:
        writes = {role: client.may_write(topics) for role, client in roles.items()}
        for client in roles.values():
            client.subscribe(f"{root}/#", "nonn/1/elsewhere/#")
            client.received.clear()
        everything.subscribe("#")
        for topic in topics:
            everything.publish(topic, b"for readers")
        wait_until(lambda: len(everything.received) >= len(topics), "everything arrived")
        for role, client in roles.items():  # a message behind all others: what was to come has come
            client.publish(f"{root}/doctor/end-{role}", b"end")
        for role, client in roles.items():
            if role != "revoked":
                wait_until(lambda c=client, r=role: f"{root}/doctor/end-{r}" in c.received, f"{role} is served")
        cut = len(root) + 1
        yield {
            role: (
                {topic[cut:] for topic in writes[role]},
                {topic[cut:] for topic, payload in client.received.items() if payload == b"for readers"},
            )
            for role, client in roles.items()
        }
    finally:
        for client in [*roles.values(), everything]:
            client.close()
        broker.stop()


def client_pair(site: Site, folder: str, name: str) -> Pair:
    return Pair(site.folder / folder / f"{name}.pem", site.folder / folder / f"{name}.key")


@pytest.mark.broker
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("topic", list(EXPECTED))
def test_each_role_may_do_what_the_table_says_and_nothing_else(
    matrix: dict[str, tuple[set[str], set[str]]], role: str, topic: str
) -> None:
    may_write, may_read = matrix[role]
    letters = EXPECTED[topic][role]
    assert (topic in may_write) == ("w" in letters), f"{role} publishes on {topic}"
    assert (topic in may_read) == ("r" in letters), f"{role} receives {topic}"


def test_the_table_covers_every_topic_of_the_protocol() -> None:
    site, named = SiteTopics("home"), set()
    for kind, given in ((site, {}), (UpdateTopics(site), {})):
        for name, method in inspect.getmembers(kind, callable):
            if name.startswith(("_", "parse", "relative", "is_", "features_of", "chunks_of", "shared_")):
                continue
            words = {"student": 0, "number": 0, "sha256": SHA, "deployment": DEPLOYMENT, "leaf": "state", **given}
            arguments = {key: words.get(key, "x") for key in inspect.signature(method).parameters}
            named.add(method(**arguments))
    named |= {UpdateTopics(site).desired, UpdateTopics(site).switch, UpdateTopics(site).deploy_request}
    shapes = {shape(topic) for topic in EXPECTED}
    assert {shape(topic.removeprefix(site.root + "/")) for topic in named} <= shapes


def test_the_table_covers_every_topic_of_the_protocol_document(repository: Path) -> None:
    text = (repository / "docs/protocol.md").read_text()
    rows = re.findall(r"^\| `([a-z]+/[^`|]*)`(?:, `([a-z]+/[^`|]*)`)*", text, re.MULTILINE)
    documented = {topic for row in rows for topic in row if topic}
    assert len(documented) > 10
    shapes = {shape(topic) for topic in EXPECTED}
    for topic in documented:
        assert shape(re.sub(r"<[a-z]+>", "x", topic)) in shapes, topic


def shape(topic: str) -> tuple[str, int]:
    """Branch and depth."""
    return topic.split("/", maxsplit=1)[0], topic.count("/")


def test_a_new_device_changes_nothing_at_the_broker(tmp_path: Path) -> None:
    folder = tmp_path / "nonn-site"
    assert run("init", folder, "--broker-host", "localhost") == 0
    access = folder / "broker/access"
    before = access.read_bytes()
    assert run("device", "add", "pi-9", "--dir", folder) == 0
    assert access.read_bytes() == before
    assert run("device", "add", "pi-8", "--camera", "v4l2", "--dir", folder) == 0
    assert access.read_bytes() != before


def test_a_hub_is_device_and_coordinator_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "nonn-site"
    assert run("init", folder, "--broker-host", "hub.local") == 0
    assert run("device", "add", "hub", "--role", "both", "--dir", folder) == 0
    rules = SiteFolder(folder).text("broker/access").split("user hub\n")[1]
    assert "deny" not in rules
    assert "topic readwrite nonn/1/home/coordinator/main/+" in rules
