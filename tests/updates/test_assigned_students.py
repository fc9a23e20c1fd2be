"""Devices set to `--students auto`, with a store: whatever students they are given, an update reaches them."""

import time

import pytest
from fleet import AGENT, COORDINATOR, Fleet, Observer, Site, running
from real_broker import MOSQUITTO
from traffic import Traffic

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed"),
]
NAMES = ("any-0", "any-1", "any-2", "any-3")
EMPTY = NAMES[-1]


class AutoFleet(Fleet):
    """Four devices that the coordinator gives students to; the last one comes empty."""

    def __init__(self, *arguments, **words):
        super().__init__(*arguments, **words)
        self.names = list(NAMES)

    def start_agent(self, name):
        first = ["--deployment", str(self.first)] if name != EMPTY else []
        self._start(
            name,
            [*AGENT, "run", "--students", "auto", "--device", name, *first, "--updates-store",
             str(self.folder / name), *self.trust(), "--broker-port", str(self.port)],
        )  # fmt: skip

    def start_coordinator(self):
        self._start(
            "coordinator",
            [*COORDINATOR, "run", "--deployment", str(self.first), "--updates-store",
             str(self.folder / "coordinator"), *self.trust(), "--broker-port", str(self.port), "--journal",
             str(self.folder / "journal"), "--away-s", "2", "--trial-s", "1"],
        )  # fmt: skip


def students(observer, name):
    return tuple(s["student"] for s in observer.json(f"node/{name}/info").get("students", ()))


def all_answer(deployment, names=NAMES):
    """Everybody runs `deployment`, and between them all three students."""

    def true(observer):
        return (
            observer.json("coordinator/main/rollout").get("active") == deployment
            and observer.json("coordinator/main/info").get("deployment") == deployment
            and all(observer.json(f"node/{n}/info").get("deployment") == deployment for n in names)
            and all(observer.json(f"node/{n}/update").get("installed") == deployment for n in names)
            and {i for n in names for i in students(observer, n)} == {0, 1, 2}
        )

    return true


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("auto"), pad_bytes=200_000)
    site.fleet = AutoFleet(site.fleet.folder, site.folders[0], site.trusted)
    with running(site.fleet):
        yield site


def test_an_update_reaches_all_and_an_empty_device_joins_with_it(site):
    observer = Observer(site.fleet)
    observer.wait("start", all_answer(site.first.id, NAMES[:3]), 90)
    # What the site began with is not signed: an empty device does not believe the broker that it is good.
    observer.wait("empty", lambda o: "not signed" in o.json(f"node/{EMPTY}/update").get("error", ""))
    traffic = Traffic(site.fleet.port).start()
    time.sleep(1.5)
    second = site.bundle(2)
    result = site.deploy(2)
    assert result.returncode == 0, result.stdout + result.stderr
    observer.wait("second", all_answer(second.id))
    time.sleep(0.5)
    traffic.finish()
    site.check(traffic)
    assert traffic.results() == {"complete": len(traffic.answers)}
    assert traffic.deployments()[second.id] > 10
    observer.close()


def test_a_device_that_dies_during_an_update_hands_its_student_on(site):
    """The students move to other devices while a deployment is on its way; nobody runs students of two."""
    fleet, observer = site.fleet, Observer(site.fleet)
    observer.wait("start", all_answer(site.folders[-1].name))
    victim = next(name for name in NAMES if students(observer, name))
    traffic = Traffic(fleet.port).start()
    time.sleep(1.5)
    third = site.bundle(3)
    fleet.kill(victim)
    fleet.processes.pop(victim)
    result = site.deploy(3)
    assert result.returncode == 0, result.stdout + result.stderr
    observer.wait("third", all_answer(third.id, [name for name in NAMES if name != victim]))
    time.sleep(0.5)
    traffic.finish()
    site.check(traffic)
    fleet.start_agent(victim)
    observer.wait("it catches up", lambda o: o.json(f"node/{victim}/info").get("deployment") == third.id)
    observer.close()


def test_a_site_that_is_quiet_shows_what_it_runs(site):
    """Nothing waits for a frame to say which deployment answers."""
    observer = Observer(site.fleet)
    fourth = site.bundle(4)
    result = site.deploy(4)
    assert result.returncode == 0, result.stdout + result.stderr
    observer.wait("fourth", all_answer(fourth.id))
    observer.close()
