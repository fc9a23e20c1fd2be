"""Who is alive and what it runs, from retained status messages. Pure."""

from dataclasses import dataclass, replace

from edge_agent.protocol.status import NodeInfo, NodeState, NodeTelemetry


@dataclass(frozen=True, slots=True)
class Device:
    """What is known of one device."""

    name: str
    online: bool = False
    session: int = 0
    offline_since_s: float = 0.0  # only while offline
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
        self.changes = 0  # grows with every birth, death and info: what is derived from them is due again

    @property
    def devices(self) -> list[Device]:
        """All known devices, by name."""
        return [self._devices[name] for name in sorted(self._devices)]

    def state(self, name: str, message: NodeState, now: float = 0.0) -> None:
        """A birth, or a death: only the death of the session that is alive counts, others are stale.

        A birth always counts: a Pi without a battery clock may come back with an older session number.
        """
        device = self._known(name)
        online = message.state == "online"
        if device is None or (not online and device.online and message.session != device.session):
            return
        offline_since_s = now if device.online or not device.session else device.offline_since_s
        self._devices[name] = replace(device, online=online, session=message.session, offline_since_s=offline_since_s)
        self.changes += 1

    def info(self, name: str, message: NodeInfo) -> None:
        """What a device is and runs."""
        device = self._known(name)
        if device is not None:
            self._devices[name] = replace(device, info=message)
            self.changes += 1

    def telemetry(self, name: str, message: NodeTelemetry) -> None:
        """How a device fares."""
        device = self._known(name)
        if device is not None:
            self._devices[name] = replace(device, telemetry=message)

    def forget(self, name: str) -> None:
        """Drop a device whose retained state was purged."""
        self._devices.pop(name, None)
        self.changes += 1

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

    def absent(self, deployment: str, students: int) -> frozenset[int]:
        """Students whose devices are all known and all offline: nobody need wait for them.

        A student that no device was ever heard of may come any moment, just after a coordinator's start.
        """
        known: dict[int, bool] = {}
        for device in self._devices.values():
            if device.info and device.info.deployment == deployment:
                for student in device.students:
                    known[student] = known.get(student, False) or device.online
        return frozenset(student for student, online in known.items() if not online and student < students)

    def reads_packs(self, version: int) -> bool:
        """Whether every online device with students does."""
        infos = (device.info for device in self._devices.values() if device.online)
        return all((info.packs or 0) >= version for info in infos if info and info.students)

    def _known(self, name: str) -> Device | None:
        if name not in self._devices:
            if len(self._devices) >= self._max_devices and not self._make_room():
                return None
            self._devices[name] = Device(name)
        return self._devices[name]

    def _make_room(self) -> bool:
        """Forget an offline device: leftovers with invented names must not keep real devices out."""
        name = next((name for name, device in self._devices.items() if not device.online), None)
        self._devices.pop(name or "", None)
        return name is not None
