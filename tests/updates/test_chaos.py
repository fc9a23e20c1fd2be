"""SIGKILL of agent, coordinator and broker at every step of a rollout, under 30 frames/s from two sources."""

import itertools
import shutil
import subprocess
import time

import pytest
from fleet import COORDINATOR, ROOT, Observer, Site, Traffic, all_run, running

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(shutil.which("mosquitto") is None, reason="mosquitto is not installed"),
]
# What an observer sees just before the kill: each state of the machine, and each of a device on its way.
STEPS = {
    "fetching": lambda o: o.json("coordinator/main/rollout").get("phase") == "fetching",
    "downloading": lambda o: o.json("node/pi-1/update").get("state") == "downloading",
    "verifying": lambda o: o.json("node/pi-1/update").get("state") in ("verifying", "ready"),
    "ready": lambda o: o.json("node/pi-1/update").get("state") == "ready",
    "switching announced": lambda o: o.json("coordinator/main/rollout").get("phase") == "switching",
    "first frames switched": lambda o: (
        o.json("coordinator/main/rollout").get("phase") == "switching"
        and o.json("node/pi-1/update").get("state") == "active"
    ),
    "complete": lambda o: o.json("coordinator/main/rollout").get("phase") == "complete",
}
# States of one device mean nothing new to a coordinator or broker that dies in them, and the other way round.
VICTIMS = {
    "pi-1": [step for step in STEPS if step != "fetching"],
    "coordinator": [step for step in STEPS if step != "verifying"],
    "broker": [step for step in STEPS if step not in ("verifying", "ready")],
}
numbers = itertools.count(2)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("chaos"), pad_bytes=200_000)
    # Slow enough that every step can be met: a file of 200 KB takes half a second.
    site.fleet.extra["coordinator"] = ["--artifact-bytes-per-s", "1200000", "--trial-s", "1"]
    with running(site.fleet):
        observer = Observer(site.fleet)
        observer.wait("start", all_run(site.fleet, site.first.id), 90)
        observer.close()
        yield site


def deploying(site, number):
    return subprocess.Popen(
        [*COORDINATOR, "deploy", str(site.folder / f"{number}.nonn"), "--wait", "--broker-port", str(site.fleet.port)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(("victim", "step"), [(victim, step) for victim in VICTIMS for step in VICTIMS[victim]])
def test_killed_at_this_step_the_site_answers_and_the_update_goes_through(site, victim, step):
    fleet, number = site.fleet, next(numbers)
    bundle = site.bundle(number)
    observer = Observer(fleet)
    observer.wait("quiet", lambda o: o.json("coordinator/main/rollout").get("phase") in ("idle", "complete", "failed"))
    traffic = Traffic(fleet.port).start()
    time.sleep(1.2)
    observer.seen = dict.fromkeys(observer.seen, b"")
    client = deploying(site, number)
    observer.wait(step, STEPS[step], 30)
    fleet.kill(victim)
    fleet.restart(victim)
    output, _ = client.communicate(timeout=60)
    observer.seen = {}
    observer.close()
    observer = Observer(fleet)
    deadline = time.monotonic() + 40
    while not all_run(fleet, bundle.id)(observer):
        assert time.monotonic() < deadline, (output, observer.seen, fleet.log("coordinator")[-1500:])
        if observer.json("coordinator/main/rollout").get("phase") in ("idle", "failed"):
            # The fetch ended with one of its two sides: an operator's second try goes on from what came.
            again = site.deploy(number)
            assert again.returncode == 0 or "active already" in again.stderr or "under way" in again.stderr, again
        observer.step()
    observer.close()
    traffic.finish()
    site.check(traffic)
    assert traffic.deployments()[bundle.id] > 0
    assert set(traffic.deployments()) <= {made.name for made in site.folders[-2:]}
