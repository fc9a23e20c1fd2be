"""SIGKILL of agent, coordinator and broker at every step of every journey, under 30 frames/s from two sources."""

import itertools
import json
import time
from typing import get_args

import pytest
from fleet import Observer, Site, all_run, running
from journeys import JOURNEYS, SITE, Journey, Step
from real_broker import MOSQUITTO
from traffic import Traffic

from edge_agent.protocol.update_messages import RolloutPhase, UpdateStateName

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed"),
]
AT_REST = ("idle", "complete", "failed")
VICTIMS = ("agent", "coordinator", "broker")
CASES = [(journey, step, victim) for journey in JOURNEYS for step in journey.steps for victim in VICTIMS]
numbers = itertools.count(2)


def test_every_state_is_on_some_journey():
    """A state that is new in the protocol must be killed in, too."""
    steps = [step for journey in JOURNEYS for step in journey.steps]
    phases = {step.state for step in steps if step.where == SITE}
    assert phases == set(get_args(RolloutPhase)) - {"idle"}, "idle: no rollout since the coordinator's start"
    assert {step.state for step in steps if step.where != SITE} == set(get_args(UpdateStateName))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("chaos"), pad_bytes=200_000)
    # Slow enough that every step can be met: a file of 200 KB takes half a second.
    # Killed three times within half a minute, as nothing but this suite does, a device would leave its deployment.
    for device in site.fleet.names:
        site.fleet.extra[device] = ["--proof-s", "1"]
    site.fleet.extra["coordinator"] = ["--artifact-bytes-per-s", "1200000", "--trial-s", "1"]
    with running(site.fleet):
        observer = Observer(site.fleet)
        observer.wait("start", all_run(site.fleet, site.first.id), 90)
        site.bundle(number := next(numbers))  # so that there is a way back from the beginning
        assert site.deploy(number).returncode == 0
        observer.close()
        yield site


@pytest.mark.parametrize(
    ("journey", "step", "victim"), CASES, ids=[f"{j.name}-{s.name}-{v}".replace(" ", "_") for j, s, v in CASES]
)
def test_killed_at_this_step_the_site_answers_and_arrives(site, journey: Journey, step: Step, victim: str):
    fleet = site.fleet
    observer = Observer(fleet)
    observer.wait("rest", lambda o: o.json(SITE).get("phase") in AT_REST)
    before, number = observer.json(SITE)["active"], 0
    target = observer.json(SITE).get("previous")
    if journey.brings_a_bundle:
        number = next(numbers)
        target = site.bundle(number, head_sign=journey.head_sign, broken=journey.broken).id
    observer.wait("all", all_run(fleet, before))
    traffic = Traffic(fleet.port).start()
    time.sleep(1.2)
    observer.history.clear()
    client = journey.start(site, target, number)
    if journey.provoke is not None:
        journey.provoke(observer, target)
    observer.wait(step.name, lambda o: step.reached(o, target), 30)
    name = journey.victim if victim == "agent" else victim
    fleet.kill(name)
    if step.where == SITE and step.state in AT_REST:
        # Who comes back must not take up again what was said to have ended.
        assert json.loads((fleet.folder / "coordinator" / "record.json").read_text())["rollout"] is None
    fleet.restart(name)
    output, _ = client.communicate(timeout=90)
    observer.close()
    arrive(site, journey, target, before, number, output)
    traffic.finish()
    site.check(traffic)
    assert set(traffic.deployments()) <= {before, target}
    if journey.arrives:
        assert traffic.deployments()[target] > 0
    elif journey.name != "taken back":
        assert target not in traffic.deployments()


def arrive(site: Site, journey: Journey, target: str, before: str, number: int, output: str) -> None:
    """Wait for the journey's end; what ended with one of its sides is an operator's second try, which goes on."""
    fleet, observer = site.fleet, Observer(site.fleet)
    arrived, deadline = all_run(fleet, target if journey.arrives else before), time.monotonic() + 60
    observer.wait("status", lambda o: "phase" in o.json(SITE))
    while not (arrived(observer) and observer.json(SITE).get("phase") in AT_REST):
        assert time.monotonic() < deadline, (output, observer.seen, fleet.log("coordinator")[-1500:])
        if journey.arrives and observer.json(SITE).get("phase") in ("idle", "failed"):
            again = journey.start(site, target, number)
            said, _ = again.communicate(timeout=60)
            assert again.returncode == 0 or "active already" in said or "under way" in said, said
        observer.step()
    observer.close()
