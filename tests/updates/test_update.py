"""A site is updated, tried on a canary, rolled back and cleaned up under 30 frames/s from two sources."""

import shutil
import time
from datetime import UTC, datetime

import pytest
from fleet import Observer, Site, Traffic, all_run, running

from edge_agent.protocol.link import Outgoing
from edge_agent.protocol.signature import SigningKey
from edge_agent.protocol.update_messages import DesiredMessage, SignedContent

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(shutil.which("mosquitto") is None, reason="mosquitto is not installed"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("update"), pad_bytes=200_000)
    with running(site.fleet):
        yield site


@pytest.fixture
def observer(site):
    observer = Observer(site.fleet)
    observer.wait("start", all_run(site.fleet, site.first.id), 90)
    yield observer
    observer.close()


@pytest.fixture
def traffic(site, observer):
    traffic = Traffic(site.fleet.port).start()
    time.sleep(1.5)
    yield traffic
    traffic.finish()


def back_to_first(site, observer):
    result = site.fleet.command("rollback", "--key", str(site.key_file), "--wait", "--to", site.first.id)
    assert result.returncode == 0, result.stdout + result.stderr
    observer.wait("first again", all_run(site.fleet, site.first.id))


def test_update_and_rollback_lose_no_frame_and_mix_none(site, observer, traffic):
    second = site.bundle(2)
    result = site.deploy(2)
    assert result.returncode == 0, result.stdout + result.stderr
    observer.wait("second", all_run(site.fleet, second.id))
    time.sleep(0.5)
    back_to_first(site, observer)
    time.sleep(0.5)
    traffic.finish()
    site.check(traffic)
    assert traffic.results() == {"complete": len(traffic.answers)}
    assert set(traffic.deployments()) == {site.first.id, second.id}
    assert min(traffic.deployments().values()) > 30
    assert traffic.resent == 0


def test_what_was_rolled_back_needs_a_new_version(site, observer):
    result = site.deploy(2)
    assert result.returncode == 65
    assert "downgrade" in result.stderr


def test_a_canary_that_answers_otherwise_is_stopped_and_the_site_never_sees_it(site, observer, traffic):
    third = site.bundle(3, head_sign=-1)
    result = site.deploy(3, "--canary", "spare-0", "--canary-frames", "40")
    assert result.returncode == 1, result.stdout
    assert "agreement" in result.stderr
    kept = observer.json("coordinator/main/rollout").get("previous")
    assert kept == site.folders[1].name  # a stopped canary does not cost the way back
    traffic.finish()
    site.check(traffic)
    assert third.id not in traffic.deployments()
    assert traffic.results() == {"complete": len(traffic.answers)}
    observer.wait("first", all_run(site.fleet, site.first.id))


def test_a_canary_that_agrees_is_promoted(site, observer, traffic):
    fourth = site.bundle(4)
    result = site.deploy(4, "--canary", "spare-0", "--canary-frames", "40", "--max-latency-ratio", "50")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "ready (in shadow)" in result.stdout
    observer.wait("fourth", all_run(site.fleet, fourth.id))
    traffic.finish()
    site.check(traffic)
    back_to_first(site, observer)


def test_a_device_that_was_off_catches_up(site, observer, traffic):
    fleet = site.fleet
    fleet.kill("spare-0")
    fleet.processes.pop("spare-0")
    fifth = site.bundle(5)
    assert site.deploy(5).returncode == 0
    fleet.start_agent("spare-0")
    observer.wait("spare-0 has it too", all_run(fleet, fifth.id))
    traffic.finish()
    site.check(traffic)
    back_to_first(site, observer)


def attacks(site):
    good = make_desired(site.bundle(20).signed_manifest)
    raw = good.manifest.raw
    other = site.bundle(21).signed_manifest

    def bad(content, signatures=good.manifest.signatures):
        return make_desired(SignedContent.of(content, signatures)).encode()

    stranger = make_desired(site.bundle(22, key=SigningKey.generate()).signed_manifest).encode()
    return {
        "signed by": stranger,
        "expired": make_desired(site.bundle(23, expires=datetime(2020, 1, 1, tzinfo=UTC)).signed_manifest).encode(),
        "downgrade": make_desired(site.bundle(1, name="another").signed_manifest).encode(),
        "does not fit": bad(other.raw),
        "the signature does not fit": bad(raw[:-100]),
        "not signed": bad(raw, ()),
        "": good.encode()[:-300],
        " ": bad(raw * 10),
        "  ": b"\xff" * 5000,
        "   ": b"{" * 3_000_000,
    }


def make_desired(manifest):
    return DesiredMessage(rollout=time.time_ns() // 1000, server="main", manifest=manifest)


def test_no_manifest_but_one_that_is_trusted_is_taken_up(site, observer, traffic):
    topic = f"{observer.topics.root}/deployment/desired"
    genuine = observer.seen["deployment/desired"]
    for words, payload in attacks(site).items():
        observer.link.publish(Outgoing(topic, payload, qos=1, retain=True))
        if words.strip():
            observer.wait(
                words,
                lambda o, words=words: all(
                    words in o.json(f"node/{n}/update").get("error", "") for n in site.fleet.names
                ),
            )
            assert all(
                o == site.first.id for o in (observer.json(f"node/{n}/update")["installed"] for n in site.fleet.names)
            )
    for name in site.fleet.names:  # and a reboot does not take it up either
        site.fleet.kill(name)
        site.fleet.start_agent(name)
    time.sleep(1.0)
    desired = DesiredMessage.model_validate_json(genuine).model_copy(update={"rollout": time.time_ns() // 1000})
    observer.link.publish(Outgoing(topic, desired.encode(), qos=1, retain=True))
    observer.wait("first", all_run(site.fleet, site.first.id))
    traffic.finish()
    site.check(traffic)
    assert set(traffic.deployments()) == {site.first.id}


def test_purge_clears_a_dead_device_and_refuses_a_live_one(site, observer):
    refused = site.fleet.command("purge", "spare-0")
    assert refused.returncode == 65
    assert "online" in refused.stderr
    site.fleet.kill("spare-0")
    site.fleet.processes.pop("spare-0")
    observer.wait("will", lambda o: o.json("node/spare-0/state").get("state") == "offline")
    done = site.fleet.command("purge", "spare-0")
    assert done.returncode == 0, done.stderr
    assert "node/spare-0/update" in done.stdout
    after = Observer(site.fleet)
    after.wait("others", lambda o: "node/pi-0/state" in o.seen)
    for _ in range(5):
        after.step()
    assert not [topic for topic in after.seen if "spare-0" in topic]
    after.close()
