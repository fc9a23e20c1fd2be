"""Every way that a rollout can take, and every state on it in which something may die.

A step is a state of the site's machine (`RolloutPhase`) or of a device (`UpdateStateName`) that somebody outside can
see. `test_every_state_is_on_some_journey` holds this list against the two enumerations of the protocol.
"""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from fleet import COORDINATOR, ROOT, Observer, Site

from edge_agent.protocol.link import Outgoing
from edge_agent.protocol.update_messages import NodeUpdate

SITE = "coordinator/main/rollout"


@dataclass(frozen=True)
class Step:
    """A state of the site, or of one device."""

    where: str
    state: str

    @property
    def name(self) -> str:
        """For the test's name."""
        return f"{'site' if self.where == SITE else self.where.split('/')[1]} {self.state}"

    def reached(self, observer: Observer, target: str) -> bool:
        """The state was seen, of this deployment."""
        if self.where == SITE:
            return observer.saw(SITE, phase=self.state, target=target)
        if self.state == "idle":  # a device that a canary run leaves out has no target
            return observer.saw(self.where, state="idle") and observer.saw(SITE, phase="canary", target=target)
        return observer.saw(self.where, state=self.state, target=target)


def site(*states: str) -> tuple[Step, ...]:
    """Steps of the site."""
    return tuple(Step(SITE, state) for state in states)


def device(name: str, *states: str) -> tuple[Step, ...]:
    """Steps of one device."""
    return tuple(Step(f"node/{name}/update", state) for state in states)


@dataclass(frozen=True)
class Journey:
    """`arrives`: the deployment that was asked for answers in the end; else what answered before goes on."""

    name: str
    steps: tuple[Step, ...]
    victim: str  # the device that dies
    arrives: bool
    words: Callable[[Site, str, int], list[str]]
    head_sign: int = 1
    broken: int = -1
    provoke: Callable[[Observer, str], None] | None = None

    @property
    def brings_a_bundle(self) -> bool:
        """False for the way back, whose deployment everybody has."""
        return self.name != "rollback"

    def start(self, where: Site, target: str, number: int) -> subprocess.Popen:
        """The operator's command."""
        words = self.words(where, target, number)
        return subprocess.Popen(
            [*COORDINATOR, *words, "--wait", "--broker-port", str(where.fleet.port)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


def _deploy(where: Site, target: str, number: int) -> list[str]:
    del target
    return ["deploy", str(where.folder / f"{number}.nonn")]


def _canary(where: Site, target: str, number: int) -> list[str]:
    return [
        *_deploy(where, target, number), "--canary", "spare-0", "--canary-frames", "30", "--max-latency-ratio", "50",
    ]  # fmt: skip


def _rollback(where: Site, target: str, number: int) -> list[str]:
    del number
    return ["rollback", "--key", str(where.key_file), "--to", target]


def a_device_falls(observer: Observer, target: str) -> None:
    """In the trial pi-1, the only device with student 1, says that it has gone back."""
    observer.wait("switching", lambda o: o.saw(SITE, phase="switching", target=target))
    observer.wait("it answers", lambda o: o.saw("node/pi-1/update", state="active", target=target))
    said = NodeUpdate.model_validate(observer.json("node/pi-1/update"))
    fallen = said.model_copy(update={"state": "rolled_back", "error": "the agent ended 3 times"})
    observer.link.publish(Outgoing(f"{observer.topics.root}/node/pi-1/update", fallen.encode(), qos=1, retain=True))


JOURNEYS = (
    Journey(
        "update",
        (
            *site("fetching", "preparing", "switching", "complete"),
            *device("pi-1", "downloading", "verifying", "ready", "active"),
        ),
        "pi-1", True, _deploy,
    ),
    Journey(
        "rollback",
        (*site("preparing", "switching", "complete"), *device("pi-1", "verifying", "ready", "active")),
        "pi-1", True, _rollback,
    ),
    Journey(
        "canary promoted",
        (
            *site("fetching", "canary", "preparing", "switching", "complete"),
            *device("spare-0", "downloading", "verifying", "ready", "active"),
            *device("pi-1", "idle"),
        ),
        "spare-0", True, _canary,
    ),
    Journey(
        "canary stopped", (*site("canary", "failed"), *device("spare-0", "ready")), "spare-0", False, _canary,
        head_sign=-1,
    ),
    Journey(
        "taken back", (*site("reverting", "failed"), *device("pi-1", "rolled_back")), "pi-1", False, _deploy,
        provoke=a_device_falls,
    ),
    Journey("self-test fails", (*site("failed"), *device("pi-1", "failed")), "pi-1", False, _deploy, broken=1),
)  # fmt: skip
