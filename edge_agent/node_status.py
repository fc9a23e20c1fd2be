"""What a device says of itself: birth, will, info, telemetry."""

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_agent import __version__
from edge_agent.console.own_certificate import certificate_validity
from edge_agent.device_problems import read_problems
from edge_agent.energy_account import EnergyAccount
from edge_agent.protocol import pack
from edge_agent.protocol.link import Outgoing
from edge_agent.protocol.status import NodeInfo, NodeState, NodeTelemetry
from edge_agent.protocol.topics import SiteTopics
from edge_agent.settings import AgentSettings
from edge_agent.student_slot import StudentSlot
from edge_agent.telemetry import DeviceSensors, LatencyWindow


@dataclass
class FrameCounts:
    """Frames and messages since the start, by what became of them."""

    received: int = 0
    answered: int = 0
    refused: int = 0
    captured: int = 0
    latency: LatencyWindow = field(default_factory=LatencyWindow)


class NodeStatus:
    """Builds the retained and periodic messages of one agent session."""

    def __init__(self, settings: AgentSettings, topics: SiteTopics, energy: EnergyAccount | None = None) -> None:
        self._settings = settings
        self.energy = energy or EnergyAccount()
        self._topics = topics
        self._sensors = DeviceSensors()
        self.session = time.time_ns() // 1000
        self.state_topic = topics.node(settings.device, "state")

    def state(self, state: str) -> Outgoing:
        """Birth or will."""
        birth = NodeState.model_validate({"state": state, "session": self.session})
        return Outgoing(self.state_topic, birth.encode(), qos=1, retain=True)

    def info(self, deployment: str, slots: Sequence[StudentSlot], refused: tuple[int, ...], mqtt: str) -> Outgoing:
        """What the device is and runs."""
        settings = self._settings
        validity = certificate_validity(settings.broker.certificate_file)
        info = NodeInfo(
            session=self.session,
            agent_version=__version__,
            deployment=deployment,
            students=tuple(slot.info for slot in slots),
            machine=platform.machine(),
            python=platform.python_version(),
            mqtt=mqtt,
            auto=settings.students == "auto",
            max_students=settings.max_students,
            refused=refused or None,
            camera=settings.camera.source,
            insecure=settings.broker.is_exposed or None,
            certificate_until=validity[1] if validity else None,
            packs=pack.VERSION,
            problems=read_problems(settings.problems_file) or None,
        )
        return Outgoing(self._topics.node(settings.device, "info"), info.encode(), 1, retain=True)

    def telemetry(self, uptime_s: float, counts: FrameCounts, dropped: int, queue_length: int) -> Outgoing:
        """How the device fares."""
        telemetry = NodeTelemetry(
            session=self.session,
            uptime_s=round(uptime_s, 1),
            cpu_percent=self._sensors.cpu_percent(),
            memory_rss_bytes=self._sensors.memory_rss_bytes(),
            memory_available_bytes=self._sensors.memory_available_bytes(),
            temperature_c=self._sensors.temperature_c(),
            throttled=self._sensors.throttled(),
            power_w=None if self.energy.power_w is None else round(self.energy.power_w, 3),
            power_source=self.energy.source if self.energy.power_w is not None else None,
            energy_j={source: round(joules, 1) for source, joules in self.energy.joules.items()} or None,
            frames_received=counts.received,
            frames_answered=counts.answered,
            frames_dropped=dropped,
            messages_refused=counts.refused,
            queue_length=queue_length,
            student_ms_p50=counts.latency.percentile(50),
            student_ms_p95=counts.latency.percentile(95),
            student_ms_histogram=counts.latency.histogram,
            frames_captured=counts.captured if self._settings.camera.source else None,
        )
        return Outgoing(self._topics.node(self._settings.device, "telemetry"), telemetry.encode())
