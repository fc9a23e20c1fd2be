"""Discovery configurations, held against Home Assistant's own schemas where its package is installed.

NONN_HOME_ASSISTANT_PYTHON names a Python with that package: pip install homeassistant in a venv of its own.
"""

import json
import os
import subprocess

import pytest

from coordinator.home_assistant import HomeAssistant
from coordinator.home_assistant_entities import Site, device_entities, source_entities
from coordinator.roster import Roster
from edge_agent.console.worker import Worker
from edge_agent.protocol.frame_message import FrameMessage
from edge_agent.protocol.prediction_message import LatencySplit, PredictionMessage
from edge_agent.protocol.status import NodeInfo, NodeState, NodeTelemetry
from edge_agent.protocol.topics import SiteTopics

SITE = Site(SiteTopics("home"), "main", "homeassistant", "0.1.0")
ALL_READINGS = frozenset({"temperature_c", "power_w", "student_ms_p50", "throttled"})

# Runs in Home Assistant's Python: its schema accepts each configuration, and its templates make the right states.
CHECK = """
import asyncio, importlib, json, sys
from homeassistant.core import HomeAssistant
from homeassistant.helpers.template import Template

async def main():
    hass = HomeAssistant("/tmp")
    given = json.load(sys.stdin)
    states = {}
    for topic, config in given["configs"].items():
        component = topic.split("/")[1]
        schema = importlib.import_module("homeassistant.components.mqtt." + component).DISCOVERY_SCHEMA
        checked = schema(dict(config))
        dropped = set(config) - set(checked)
        assert not dropped, (topic, dropped)
        payload = given["payloads"].get(config.get("state_topic"))
        if payload is not None and "value_template" in config:
            template = Template(config["value_template"], hass)
            states[topic] = template.async_render_with_possible_json_value(payload, parse_result=False)
        for entry in config.get("availability", []):
            payload = given["payloads"][entry["topic"]]
            assert Template(entry["value_template"], hass).async_render_with_possible_json_value(payload) == "online"
    from homeassistant.const import __version__
    print(json.dumps({"version": __version__, "states": states}))
    await hass.async_stop(force=True)

asyncio.run(main())
"""


def prediction(**more):
    usual = {
        "frame_id": 1, "source": "door", "coordinator": "main", "deployment": "d" * 16, "result": "complete",
        "class_index": 1, "class_name": "cat", "probabilities": (0.25, 0.75), "present": (0,),
        "latency_ms": LatencySplit(total=3.25, student=1, queue=0, transport=2, merge=0.25),
    }  # fmt: skip
    return PredictionMessage(**{**usual, **more})


def telemetry():
    return NodeTelemetry(
        session=1, uptime_s=1, cpu_percent=1, memory_rss_bytes=1, memory_available_bytes=1, frames_received=0,
        frames_answered=0, frames_dropped=0, messages_refused=0, queue_length=0, temperature_c=51.5, throttled=True,
    )  # fmt: skip


def info():
    return NodeInfo(session=1, agent_version="0", deployment="d" * 16, students=(), machine="aarch64", python="3")


@pytest.fixture
def home_assistant():
    python = os.environ.get("NONN_HOME_ASSISTANT_PYTHON")
    if not python:
        pytest.skip("NONN_HOME_ASSISTANT_PYTHON is not set: a Python with the homeassistant package")

    def check(configs, payloads):
        given = json.dumps({"configs": configs, "payloads": payloads})
        done = subprocess.run([python, "-c", CHECK], input=given, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])["states"]

    return check


def test_home_assistant_accepts_everything_and_reads_the_right_states(home_assistant):
    configs = source_entities(SITE, "door") | device_entities(SITE, "pi-0", "0.1.0", "aarch64", ALL_READINGS)
    topics = SITE.topics
    online = NodeState(state="online", session=1).encode().decode()
    payloads = {
        topics.prediction("door"): prediction().encode().decode(),
        topics.coordinator("main", "state"): online,
        topics.node("pi-0", "state"): online,
        topics.node("pi-0", "telemetry"): telemetry().encode().decode(),
        topics.node("pi-0", "update"): json.dumps(
            {"v": 1, "state": "ready", "installed": "a" * 16, "target": "b" * 16}
        ),
    }
    states = {topic.split("/", 2)[2]: state for topic, state in home_assistant(configs, payloads).items()}
    assert states["nonn-home-source-door/class/config"] == "cat"
    assert float(states["nonn-home-source-door/probability/config"]) == 75
    assert float(states["nonn-home-source-door/latency/config"]) == 3.2
    assert float(states["nonn-home-device-pi-0/temperature/config"]) == 51.5
    assert states["nonn-home-device-pi-0/throttled/config"] == "ON"
    assert states["nonn-home-device-pi-0/connectivity/config"] == "online"
    versions = json.loads(states["nonn-home-device-pi-0/deployment/config"])
    assert versions == {"installed_version": "a" * 16, "latest_version": "b" * 16}


def test_an_abandoned_frame_has_a_state_too(home_assistant):
    configs = source_entities(SITE, "door")
    abandoned = prediction(result="abandoned", class_index=None, class_name=None, probabilities=(), present=())
    online = NodeState(state="online", session=1).encode().decode()
    topics = SITE.topics
    payloads = {topics.prediction("door"): abandoned.encode().decode(), topics.coordinator("main", "state"): online}
    states = {topic.split("/")[3]: state for topic, state in home_assistant(configs, payloads).items()}
    assert states["class"] == "none"
    assert float(states["probability"]) == 0


def test_ids_are_unique_over_sources_devices_and_sites():
    other = Site(SiteTopics("barn"), "main", "homeassistant", "0.1.0")
    configs = [
        config
        for site in (SITE, other)
        for name in ("a", "b")
        for found in (source_entities(site, name), device_entities(site, name, "", "", ALL_READINGS))
        for config in found.values()
    ]
    assert len({config["unique_id"] for config in configs}) == len(configs)


class Broker:
    """What is retained after a list of messages."""

    def __init__(self):
        self.retained, self.sent = {}, []

    def publish(self, message):
        self.sent.append(message)
        if message.retain and message.payload:
            self.retained[message.topic] = message.payload
        elif message.retain:
            self.retained.pop(message.topic, None)
        return True


@pytest.fixture
def worker():
    opened = Worker("test")
    yield opened
    opened.close()


def test_entities_follow_what_there_is(worker):
    broker, roster = Broker(), Roster()
    part = HomeAssistant(SITE, roster, broker.publish, 2.0, worker)
    roster.state("pi-0", NodeState(state="online", session=1))
    roster.info("pi-0", info())
    part.tick(1.0)
    before = set(broker.retained)
    assert any("connectivity" in topic for topic in before)
    assert not any("temperature" in topic for topic in before)
    roster.telemetry("pi-0", telemetry())
    part.tick(3.0)
    assert {topic.split("/")[3] for topic in set(broker.retained) - before} == {"temperature", "throttled"}
    sent = len(broker.sent)
    part.tick(5.0)
    assert len(broker.sent) == sent, "nothing new, nothing said"
    roster.forget("pi-0")
    part.tick(7.0)
    assert broker.retained == {}


def test_a_source_is_announced_with_its_first_answer_and_brings_its_picture(worker):
    import numpy as np

    broker = Broker()
    part = HomeAssistant(SITE, Roster(), broker.publish, 2.0, worker)
    frame = FrameMessage(1, 0, np.zeros((8, 8, 1), np.uint8))
    part.on_frame("door", frame, 10.0)
    assert not broker.sent
    part.on_prediction(prediction(), None, 10.1)
    assert {topic.split("/")[3] for topic in broker.retained} == {"class", "probability", "latency", "picture"}
    while worker.pending:
        part.tick(10.2)
    [picture] = [message for message in broker.sent if message.topic == SITE.picture_topic("door")]
    assert picture.payload.startswith(b"\x89PNG")
    assert not picture.retain


def test_images_of_the_command_line_become_no_entities(worker):
    import numpy as np

    broker = Broker()
    part = HomeAssistant(SITE, Roster(), broker.publish, 2.0, worker)
    part.on_frame("client-0a1b2c3d", FrameMessage(1, 0, np.zeros((8, 8, 1), np.uint8)), 1.0)
    part.on_prediction(prediction(source="client-0a1b2c3d"), None, 1.1)
    assert not broker.sent


def test_after_a_broker_restart_everything_is_announced_again(worker):
    broker, roster = Broker(), Roster()
    part = HomeAssistant(SITE, roster, broker.publish, 2.0, worker)
    roster.state("pi-0", NodeState(state="online", session=1))
    roster.info("pi-0", info())
    part.tick(1.0)
    before, broker.retained = dict(broker.retained), {}
    part.connected()
    assert broker.retained == before
