"""A site is updated, tried on a canary, rolled back and cleaned up under 30 frames/s from two sources."""

import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from fleet import Observer, Site, all_run, running
from real_broker import MOSQUITTO
from traffic import Traffic

from edge_agent.protocol.link import Outgoing
from edge_agent.protocol.signature import SigningKey
from edge_agent.protocol.update_messages import DesiredMessage, SignedContent

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("update"), pad_bytes=200_000)
    # Only a student that never answers makes an answer degraded here, not a busy machine.
    site.fleet.extra["coordinator"] = ["--deadline-ms", "8000", "--adaptive-deadline", "false"]
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


def test_update_and_rollback_lose_no_frame_and_mix_none(site, observer):
    traffic = Traffic(site.fleet.port, resend=False).start()  # whatever is lost stays lost
    time.sleep(1.5)
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


def test_a_rollback_can_be_signed_on_one_machine_and_sent_from_another(site, observer, traffic):
    sixth = site.bundle(6)
    assert site.deploy(6).returncode == 0
    observer.wait("sixth", all_run(site.fleet, sixth.id))
    order = site.folder / "back.order"
    signed = site.fleet.command(
        "rollback", "--key", str(site.key_file), "--to", site.first.id, "--order-out", str(order)
    )
    assert signed.returncode == 0, signed.stderr
    assert observer.json("coordinator/main/rollout")["active"] == sixth.id  # nothing was sent
    both = site.fleet.command("rollback", "--order", str(order), "--key", str(site.key_file))
    assert both.returncode == 64
    unsigned = site.fleet.command("rollback", "--to", site.first.id, "--wait")
    assert unsigned.returncode == 65
    assert "not signed" in unsigned.stderr
    assert "expected --key FILE" in unsigned.stderr
    sent = site.fleet.command("rollback", "--order", str(order), "--wait")
    assert sent.returncode == 0, sent.stderr
    observer.wait("first again", all_run(site.fleet, site.first.id))
    traffic.finish()
    site.check(traffic)
    again = site.fleet.command("rollback", "--order", str(order), "--wait")
    assert again.returncode == 65
    assert "active already" in again.stderr
    assert b"PRIVATE" not in order.read_bytes()
    (site.folder / "bad.order").write_bytes(b"{}")
    assert site.fleet.command("rollback", "--order", str(site.folder / "bad.order")).returncode == 65


def restart_all(fleet, observer):
    """Stop and start every program but the broker, and wait until all of them are new."""
    states = [f"node/{name}/state" for name in fleet.names] + ["coordinator/main/state"]
    before = {state: observer.json(state)["session"] for state in states}
    for name in (*fleet.names, "coordinator"):
        fleet.kill(name, 15)
        fleet.restart(name)

    def are_new(o):
        said = {state: o.json(state) for state in states}
        return all(s.get("state") == "online" and s["session"] != before[state] for state, s in said.items())

    observer.wait("all are back", are_new)


def test_keys_are_rotated_without_a_gap(site, observer):
    """Both keys are trusted, bundles carry both signatures, the old key goes: the new one is enough."""
    fleet, new = site.fleet, SigningKey.generate()
    seventh = site.bundle(7)
    both = seventh.manifest_bytes
    signatures = (site.key.sign("manifest", both), new.sign("manifest", both))
    (site.folder / "7.nonn").write_bytes(replace(seventh, signatures=signatures).to_bytes())
    old_line = site.trusted.read_text()
    site.trusted.write_text(new.public("release 2027").to_line() + "\n")
    restart_all(fleet, observer)  # each reads its keys when it starts
    observer.wait("all", all_run(fleet, site.first.id))
    assert site.deploy(7).returncode == 0
    observer.wait("seventh", all_run(fleet, seventh.id))
    site.bundle(8)  # by the old key alone
    refused = site.deploy(8)
    assert refused.returncode == 65
    assert "signed by" in refused.stderr
    site.trusted.write_text(old_line)
    restart_all(fleet, observer)
    observer.wait("all", all_run(fleet, seventh.id))
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
    # Subscribed to last: it may come after the devices' messages that the fixture waits for.
    observer.wait("desired", lambda o: "deployment/desired" in o.seen)
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
    site.fleet.names.remove("spare-0")  # nobody waits for it any more
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


def test_purging_the_whole_site_leaves_nothing_retained(site, observer):
    assert "online" in site.fleet.command("purge", "--whole-site").stderr
    for name in list(site.fleet.processes):
        if name != "broker":
            site.fleet.kill(name, 15)
            site.fleet.processes.pop(name)
    done = site.fleet.command("purge", "--whole-site")
    assert done.returncode == 0, done.stderr
    assert "deployment/desired" in done.stdout
    after = Observer(site.fleet)
    for _ in range(20):
        after.step()
    assert after.seen == {}
    after.close()
