"""Faults of links and messages: cut, slow, lost, mangled, invented. Each leaves the fleet as it was."""

from collections.abc import Callable
from pathlib import Path

import flood
from chaos import STEADY_S, Chaos
from mangling_proxy import Harm

from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.link import Outgoing
from edge_agent.protocol.mqtt_link import MqttLink
from edge_agent.protocol.pack import encode_pack


def cut_link(chaos: Chaos) -> None:
    chaos.proxy.harm = Harm(refuse=True)
    chaos.proxy.cut()
    chaos.load.run(STEADY_S)
    chaos.proxy.harm = Harm()


def slow_link(chaos: Chaos) -> None:
    chaos.proxy.harm = Harm(delay_s=0.08)
    chaos.load.run(STEADY_S)
    chaos.proxy.harm = Harm()


def too_slow_link(chaos: Chaos) -> None:
    chaos.proxy.harm = Harm(delay_s=0.6)
    chaos.load.run(STEADY_S)
    chaos.proxy.harm = Harm()


def harmed_messages(**parts: float) -> Callable[[Chaos], None]:
    def act(chaos: Chaos) -> None:
        chaos.proxy.harm = Harm(**parts)
        chaos.load.run(2 * STEADY_S)
        chaos.proxy.harm = Harm()

    return act


def in_packs(fault: Callable[[Chaos], None], frames: int = 8) -> Callable[[Chaos], None]:
    """The fault while the source sends packs of so many frames."""

    def act(chaos: Chaos) -> None:
        chaos.load.together = frames
        fault(chaos)
        chaos.load.together = 1

    return act


def random_messages(chaos: Chaos) -> None:
    link = _hostile_link(chaos)
    names = flood.topics(chaos.load.topics.root, chaos.deployment.id)
    rss = _rss(chaos)
    samples = [b'{"v":1,"state":"online","session":1}', chaos.deployment.manifest.to_bytes()[:400],
               bytes(range(1, 120)), b"\x01\x01" + bytes(118), encode_pack([b"\x01\x01" + bytes(40)] * 3)]  # fmt: skip
    sent = flood.flood(link, names, chaos.messages, samples, lambda: chaos.load.run(0.15))
    link.close()
    chaos.note = f"{sent} messages on {len(names)} topics; {_growth(chaos, rss)}"


def oversize_payloads(chaos: Chaos) -> None:
    link = _hostile_link(chaos)
    rss = _rss(chaos)
    flood.oversize(link, flood.topics(chaos.load.topics.root, chaos.deployment.id)[:14:3])
    chaos.load.run(STEADY_S)
    link.close()
    chaos.note = f"5 of {flood.OVERSIZE_BYTES // 10**6} MB; {_growth(chaos, rss)}"


def hostile_leftovers(chaos: Chaos) -> None:
    """Retained junk on every topic and 1,200 invented devices; then everything starts on top of it."""
    link = _hostile_link(chaos)
    names = flood.topics(chaos.load.topics.root, chaos.deployment.id)
    names += [f"{chaos.load.topics.root}/node/ghost-{n}/state" for n in range(1200)]
    junk = [b'{"v":1,"state":"online","session":9007199254740991}', b"junk", b'{"v":1,"state":"offline","session":1}']
    for number, name in enumerate(names):
        link.publish(Outgoing(name, junk[number % 3], qos=1, retain=True))
        link.poll(0.001)

    def act() -> None:
        for name in ("pi-2", "coordinator"):
            chaos.fleet.kill(name)
        chaos.start_agent(2)
        chaos.fleet.start_coordinator(*chaos.coordinator_flags)

    chaos.deaf(act)
    for name in names:
        link.publish(Outgoing(name, b"", qos=1, retain=True))
        link.poll(0.001)
    link.close()
    for name in ("pi-1", "coordinator"):  # purged with the junk: these two publish their births again
        chaos.end(name)
    chaos.start_agent(1)
    chaos.deaf(lambda: chaos.fleet.start_coordinator(*chaos.coordinator_flags))


def _hostile_link(chaos: Chaos) -> MqttLink:
    link = MqttLink(BrokerSettings(port=chaos.fleet.port), "hostile", [])
    while not link.connected:
        link.poll(0.05)
    return link


def _rss(chaos: Chaos) -> dict[str, int]:
    pages = {}
    for name, program in chaos.fleet.running.items():
        if name != "broker":
            pages[name] = int(Path(f"/proc/{program.pid}/statm").read_text().split()[1])
    return pages


def _growth(chaos: Chaos, before: dict[str, int]) -> str:
    now = _rss(chaos)
    most = max(now, key=lambda name: now[name] - before.get(name, now[name]))
    return f"memory at most +{(now[most] - before.get(most, now[most])) * 4 / 1024:.1f} MB ({most})"
