"""What goes wrong on one device: a full disk, a student that crashes. It says why, and the site goes on."""

import signal
import subprocess
import time

import pytest
from fleet import COORDINATOR, ROOT, Observer, Site, all_run, running
from real_broker import MOSQUITTO
from traffic import Traffic

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("setbacks")
    site = Site(folder, pad_bytes=200_000)
    site.fleet.extra["coordinator"] = ["--trial-s", "8"]
    disk = folder / "site" / "pi-2"  # a real disk of 4.5 MB, 4 MB of which are the reserve
    disk.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4500k", "none", str(disk)], capture_output=True)
    if mounted.returncode:  # not root: a budget stands in for the disk's end
        site.fleet.extra["pi-2"] = ["--updates-disk-budget-mb", "0.25"]
    site.where = "in the disk budget" if mounted.returncode else "on the disk"
    try:
        with running(site.fleet):
            observer = Observer(site.fleet)
            observer.wait("start", all_run(site.fleet, site.first.id), 90)
            observer.close()
            yield site
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(disk)])


def crash_three_times(fleet, observer, name):
    """What a student that crashes at its first frames does to the agent, and systemd restarts it."""
    for _ in range(3):
        session = observer.json(f"node/{name}/info")["session"]
        fleet.kill(name, signal.SIGABRT)
        fleet.restart(name)
        observer.wait("it is back", lambda o, old=session: o.json(f"node/{name}/info")["session"] != old)
    observer.wait("it says why", lambda o: "ended 3 times" in o.json(f"node/{name}/update").get("error", ""))


def test_a_full_disk_is_told_and_nothing_is_switched(site):
    observer, traffic = Observer(site.fleet), Traffic(site.fleet.port).start()
    time.sleep(1.0)
    site.bundle(2)
    result = site.deploy(2)
    assert result.returncode == 1
    assert "student 2: pi-2: needs" in result.stderr
    assert site.where in result.stderr
    observer.wait("first goes on", all_run(site.fleet, site.first.id))
    traffic.finish()
    site.check(traffic)
    assert traffic.results() == {"complete": len(traffic.answers)}
    assert site.fleet.processes["pi-2"].poll() is None
    observer.close()


@pytest.fixture(scope="module")
def roomy_site(site):
    """The same one, with a disk for pi-2 that is large enough."""
    fleet = site.fleet
    fleet.kill("pi-2", signal.SIGTERM)
    fleet.extra["pi-2"] = []
    subprocess.run(["mount", "-o", "remount,size=20m", str(fleet.folder / "pi-2")], capture_output=True)
    fleet.restart("pi-2")
    return site


def test_a_student_that_crashes_after_the_switch_is_left_and_the_site_goes_back(roomy_site):
    site, fleet = roomy_site, roomy_site.fleet
    observer = Observer(fleet)
    observer.wait("all", all_run(fleet, site.first.id))
    traffic = Traffic(fleet.port).start()
    time.sleep(1.5)
    bad = site.bundle(3)
    words = [*COORDINATOR, "deploy", str(site.folder / "3.nonn"), "--wait", "--broker-port", str(fleet.port)]
    client = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    observer.wait("it answers", lambda o: o.json("node/pi-1/update").get("installed") == bad.id)
    crash_three_times(fleet, observer, "pi-1")
    said = observer.json("node/pi-1/update")
    assert said["state"] == "rolled_back"
    assert said["installed"] == site.first.id
    observer.wait("the site went back", lambda o: o.json("coordinator/main/rollout").get("phase") == "failed")
    observer.wait("everybody", all_run(fleet, site.first.id))
    output, _ = client.communicate(timeout=30)
    assert client.returncode == 1
    assert "student 1: pi-1: the agent ended 3 times" in output
    traffic.finish()
    site.check(traffic)
    # A crash of the only device with a student costs its part of the answers, never an answer.
    assert traffic.results()["abandoned"] == 0
    observer.close()


def test_a_device_that_went_back_alone_can_not_be_the_canary_of_the_next_update(roomy_site):
    """It would be compared with what the site no longer runs: the request is refused, and nothing is fetched."""
    site, fleet, observer = roomy_site, roomy_site.fleet, Observer(roomy_site.fleet)
    observer.wait("all", all_run(fleet, site.first.id))
    fourth, fifth = site.bundle(4), site.bundle(5)
    words = [*COORDINATOR, "deploy", str(site.folder / "4.nonn"), "--wait", "--broker-port", str(fleet.port)]
    client = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    observer.wait("spare-0 answers", lambda o: o.json("node/spare-0/update").get("installed") == fourth.id)
    crash_three_times(fleet, observer, "spare-0")
    output, _ = client.communicate(timeout=60)
    assert client.returncode == 0, output  # pi-0 runs the same student
    assert observer.json("node/spare-0/info")["deployment"] == site.first.id
    alone, unknown = (site.deploy(5, "--canary", name) for name in ("spare-0", "pi-9"))
    assert (alone.returncode, unknown.returncode) == (65, 65)
    assert f"canary spare-0: answers with {site.first.id}; nothing to compare with {fifth.id}" in alone.stderr
    assert "canary pi-9: not online" in unknown.stderr
    observer.step()
    assert not [said for topic, said in observer.history if topic.endswith("/rollout") and fifth.id in said.decode()]
    observer.close()
