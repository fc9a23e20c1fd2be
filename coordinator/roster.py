"""Who is alive and what it runs, from retained status messages. Pure."""

from dataclasses import dataclass, replace

from edge_agent.protocol.status import NodeInfo, NodeState, NodeTelemetry


@dataclass(frozen=True, slots=True)
class Device:
    """What is known of one device."""

    name: str
    online: bool = False
    session: int = 0
    info: NodeInfo | None = None
    telemetry: NodeTelemetry | None = None

    @property
    def students(self) -> tuple[int, ...]:
        """Indices of the students that it runs."""
        return tuple(student.student for student in self.info.students) if self.info else ()


class Roster:
    """Devices of one site by name; at most `max_devices`, whatever names arrive."""

    def __init__(self, max_devices: int = 1024) -> None:
        self._devices: dict[str, Device] = {}
        self._max_devices = max_devices

    @property
    def devices(self) -> list[Device]:
        """All known devices, by name."""
        return [self._devices[name] for name in sorted(self._devices)]

    def state(self, name: str, message: NodeState) -> None:
        """A birth, or a death: the death of an older session than the known one is stale and ignored."""
        device = self._known(name)
        if device is not None and message.session >= device.session:
            self._devices[name] = replace(device, online=message.state == "online", session=message.session)

    def info(self, name: str, message: NodeInfo) -> None:
        """What a device is and runs."""
        device = self._known(name)
        if device is not None:
            self._devices[name] = replace(device, info=message)

    def telemetry(self, name: str, message: NodeTelemetry) -> None:
        """How a device fares."""
        device = self._known(name)
        if device is not None:
            self._devices[name] = replace(device, telemetry=message)

    def forget(self, name: str) -> None:
        """Drop a device whose retained state was purged."""
        self._devices.pop(name, None)

    def holders(self, deployment: str, student: int) -> list[Device]:
        """Online devices that run `student` of `deployment`."""
        return [
            device
            for device in self.devices
            if device.online and device.info and device.info.deployment == deployment and student in device.students
        ]

    def missing(self, deployment: str, students: int) -> tuple[int, ...]:
        """Students of `deployment` that no online device runs."""
        return tuple(student for student in range(students) if not self.holders(deployment, student))

    def _known(self, name: str) -> Device | None:
        if name not in self._devices:
            if len(self._devices) >= self._max_devices:
                return None
            self._devices[name] = Device(name)
        return self._devices[name]
