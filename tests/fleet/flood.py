"""Random and truncated messages on every topic of the protocol, oversize ones and hostile leftovers."""

import random
import time
from collections.abc import Callable, Iterator

from edge_agent.protocol.link import Outgoing
from edge_agent.protocol.mqtt_link import MqttLink

BATCH = 250  # then real frames must be answered before the flood goes on: a broker's queue is bounded
OVERSIZE_BYTES = 20_000_000


def topics(root: str, deployment: str) -> list[str]:
    """One of every kind, with names that are in use."""
    return [
        f"{root}/frame/chaos", f"{root}/frame/chaos/deep", f"{root}/feature/chaos/{deployment}/0/pi-0",
        f"{root}/feature/chaos/{deployment}/250/nobody", f"{root}/feature/junk", f"{root}/prediction/other",
        f"{root}/node/pi-1/state", f"{root}/node/pi-1/info", f"{root}/node/pi-1/telemetry",
        f"{root}/node/pi-1/assignment", f"{root}/node/pi-1/update", f"{root}/coordinator/main/state",
        f"{root}/coordinator/main/info", f"{root}/coordinator/main/telemetry", f"{root}/request/classify",
        f"{root}/request/assign", f"{root}/response/classify", f"{root}/deployment/desired",
        f"{root}/deployment/switch", f"{root}/chunk/{'0' * 64}/0", f"{root}/picture/chaos",
    ]  # fmt: skip


def payloads(seed: int, samples: list[bytes]) -> Iterator[bytes]:
    """Random bytes, true messages cut short or with one byte changed, JSON that is none of ours."""
    chance = random.Random(seed)
    while True:
        kind = chance.randrange(4)
        sample = chance.choice(samples)
        if kind == 0:
            yield chance.randbytes(chance.randrange(200))
        elif kind == 1:
            yield sample[: chance.randrange(len(sample))]
        elif kind == 2:
            place = chance.randrange(len(sample))
            yield sample[:place] + chance.randbytes(1) + sample[place + 1 :]
        else:
            yield chance.choice([b"{}", b"null", b"[]", b'{"v":2}', b'{"v":1}', b'{"v":1,"state":"online"}', b"\xff{"])


def flood(link: MqttLink, names: list[str], each: int, samples: list[bytes], breathe: Callable[[], None]) -> int:
    """`each` messages on every topic, in batches; `breathe` runs between two batches. -> messages sent."""
    source = payloads(7, samples)
    sent = 0
    for name in names:
        for number in range(each):
            sent += link.publish(Outgoing(name, next(source)))
            if number % 50 == 0:
                link.poll(0.0)
            if number % BATCH == BATCH - 1:
                _drain(link)
                breathe()
    return sent


def oversize(link: MqttLink, names: list[str]) -> None:
    """One message far beyond every limit on each topic."""
    for name in names:
        link.publish(Outgoing(name, bytes(OVERSIZE_BYTES), qos=1))
        _drain(link, 0.5)


def _drain(link: MqttLink, seconds: float = 0.02) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        link.poll(0.005)
