"""Packets too long for one side cost that packet, never the connection; and paho hears what our client says."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.link import Connected, Disconnected, Event, Message, Outgoing
from edge_agent.protocol.mqtt_link import MqttLink
from edge_agent.protocol.mqtt_packets import MAX_PACKET_BYTES

PATIENCE_S = 45.0
VERSIONS = {"3.1.1": MQTTProtocolVersion.MQTTv311, "5": MQTTProtocolVersion.MQTTv5}


class Both:
    """Our link and a paho client at one broker."""

    def __init__(self, port: int, protocol: str) -> None:
        self.link = MqttLink(BrokerSettings.model_validate({"port": port, "protocol": protocol}), "ours", [("x/#", 1)])
        self.events: list[Event] = []
        self.heard: list[mqtt.MQTTMessage] = []
        self.paho = mqtt.Client(CallbackAPIVersion.VERSION2, "theirs", protocol=VERSIONS[protocol])
        self.paho.on_message = lambda _client, _user, message: self.heard.append(message)
        self.paho.connect("127.0.0.1", port)
        self.paho.subscribe("y/#", 1)
        self.until(lambda: any(isinstance(event, Connected) for event in self.events))

    def until(self, reached: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not reached():
            assert time.monotonic() < end, self.events
            self.step()

    def step(self) -> None:
        self.events += self.link.poll(0.01)
        self.paho.loop(0.01)

    @property
    def messages(self) -> list[Message]:
        return [event for event in self.events if isinstance(event, Message)]


@pytest.fixture(params=["3.1.1", "5"])
def both(request: Any, broker: Any) -> Iterator[Both]:
    opened = Both(broker.port, request.param)
    yield opened
    opened.link.close()
    opened.paho.disconnect()


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_384, 300_000])
def test_paho_and_our_client_hear_each_other(both: Both, qos: int, size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    for _ in range(3):
        both.step()  # paho's subscription is with the broker
    both.paho.publish("x/grüße", payload, qos)
    both.link.publish(Outgoing("y/grüße", payload, qos, expiry_s=60))
    both.until(lambda: bool(both.messages and both.heard))
    assert (both.messages[0].topic, both.messages[0].payload) == ("x/grüße", payload)
    assert (both.heard[0].topic, both.heard[0].payload) == ("y/grüße", payload)


def test_response_topic_and_correlation_travel_both_ways(broker: Any) -> None:
    both = Both(broker.port, "5")
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic, properties.CorrelationData = "r/1", b"\0\1"
    properties.UserProperty = [("who", "paho"), ("which", "5")]
    properties.MessageExpiryInterval = 30
    for _ in range(3):
        both.step()
    both.paho.publish("x/1", b"q", 1, properties=properties)
    both.link.publish(Outgoing("y/1", b"a", 1, expiry_s=9, correlation=b"\2", response_topic="r/2"))
    both.until(lambda: bool(both.messages and both.heard))
    assert (both.messages[0].response_topic, both.messages[0].correlation) == ("r/1", b"\0\1")
    heard = both.heard[0].properties
    assert (heard.ResponseTopic, heard.CorrelationData, heard.MessageExpiryInterval) == ("r/2", b"\2", 9)
    both.link.close()
    both.paho.disconnect()


@pytest.mark.parametrize("qos", [0, 1])
def test_what_is_longer_than_we_take_does_not_reach_us_and_ends_nothing(both: Both, qos: int) -> None:
    both.paho.publish("x/long", bytes(MAX_PACKET_BYTES + 1), qos)
    both.paho.publish("x/short", b"after it", qos)
    both.until(lambda: bool(both.messages))
    assert [message.topic for message in both.messages] == ["x/short"]
    assert not [event for event in both.events if isinstance(event, Disconnected)]


def test_what_is_longer_than_the_broker_takes_is_dropped_and_counted(stage: Any) -> None:
    broker = stage.broker("allow_anonymous true\nmax_packet_size 2000\n")
    both = Both(broker.port, "5")
    assert not both.link.publish(Outgoing("y/1", bytes(3000)))
    both.link.publish(Outgoing("y/1", bytes(3000), qos=1))
    both.link.publish(Outgoing("x/1", b"short", qos=1))
    both.until(lambda: bool(both.messages))
    assert both.link.dropped == 2
    assert both.link.connected
    assert not [event for event in both.events if isinstance(event, Disconnected)]
    both.link.close()
    both.paho.disconnect()
