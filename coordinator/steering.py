"""Gives students to the devices that are set to `auto`, and takes operators' choices."""

import logging
from collections.abc import Callable, Sequence

from coordinator.assignment import Assignment, Candidate, assign, room_of
from coordinator.extension import CoordinatorExtension
from coordinator.roster import Device, Roster
from edge_agent.protocol.fleet_messages import AssignRequest, NodeAssignment, Response
from edge_agent.protocol.json_message import decode_json
from edge_agent.protocol.link import Message, Outgoing
from edge_agent.protocol.manifest import Manifest
from edge_agent.protocol.topics import SiteTopics

# After a connect, until all retained births, infos and assignments are in: deciding on half of them would move
# students about for nothing.
SETTLE_S = 1.5
DECIDE_EVERY_S = 0.5
MAX_ASSIGNMENTS = 1024  # as many as the roster has devices, whatever leftovers arrive
_log = logging.getLogger("steering")


class Steering(CoordinatorExtension):
    """Wires roster, retained assignments and the pure decision."""

    def __init__(
        self,
        roster: Roster,
        topics: SiteTopics,
        publish: Callable[[Outgoing], bool],
        clock: Callable[[], float],
        away_s: float,
        deadline_s: float,
    ) -> None:
        self._roster = roster
        self._topics = topics
        self._publish = publish
        self._clock = clock
        self._away_s = away_s
        self._deadline_s = deadline_s
        self._deployment = ""
        self._artifact_bytes: Assignment = ()
        self._assignments: dict[str, NodeAssignment] = {}
        self._kept: set[str] = set()  # assignments that the broker keeps, as seen or sent since the last connect
        self._decide_at: float | None = None

    def use(self, deployment: str, manifest: Manifest) -> None:
        """Steer for this deployment."""
        self._deployment = deployment
        self._artifact_bytes = tuple(
            min(artifact.size_bytes for artifact in student.artifacts) for student in manifest.students
        )

    def subscriptions(self) -> Sequence[tuple[str, int]]:
        """Own assignments as the broker keeps them, and requests."""
        return [(self._topics.node("+", "assignment"), 1), (self._topics.request("assign"), 1)]

    def connected(self) -> None:
        """Decide when the retained state is in; a broker may have forgotten everything."""
        self._kept.clear()
        self._decide_at = self._clock() + SETTLE_S

    def receive(self, message: Message) -> bool:
        """Remember an assignment, or do what an operator asks for."""
        if message.topic == self._topics.request("assign"):
            if not message.retain:
                self._requested(message)
            return True
        if not message.topic.endswith("/assignment"):
            return False
        device, _ = self._topics.parse_leaf(message.topic, "node")
        self._kept.add(device)
        if not message.payload:
            self._assignments.pop(device, None)
        elif device in self._assignments or len(self._assignments) < MAX_ASSIGNMENTS:
            self._assignments[device] = decode_json(NodeAssignment, message.payload)
        return True

    def tick(self, now: float) -> None:
        """Decide anew; publish what has changed."""
        if self._decide_at is None or now < self._decide_at:
            return
        self._decide_at = now + DECIDE_EVERY_S
        candidates = [self._candidate(device, now) for device in self._roster.devices if device.info]
        pinned = {name: given.students for name, given in self._assignments.items() if given.by == "hand"}
        decided = assign(len(self._artifact_bytes), candidates, self._away_s, pinned)
        for device, students in decided.items():
            given = self._assignments.get(device)
            if given is None or (given.by == "auto" and given.students != students):
                _log.info("%s runs students %s", device, ", ".join(map(str, students)) or "none")
                self._give(device, NodeAssignment(students=students))
            elif device not in self._kept:
                self._give(device, given)

    def _candidate(self, device: Device, now: float) -> Candidate:
        info, telemetry = device.info, device.telemetry
        if info is None:
            raise ValueError(f"{device.name} has not said what it is")
        given = self._assignments.get(device.name)
        refused = info.refused or ()
        assigned = given.students if given else device.students
        current = info.deployment == self._deployment
        room = room_of(info, telemetry, max(self._artifact_bytes), self._deadline_s, info.max_students or 1)
        return Candidate(
            name=device.name,
            online=device.online,
            away_s=0.0 if device.online else max(0.0, now - device.offline_since_s),
            auto=bool(info.auto),
            assigned=tuple(s for s in assigned if s not in refused),
            running=device.students if current else (),
            room=0 if refused else room,  # what it could not load once is not tried again before its restart
            speed_ms=(telemetry.student_ms_p50 if telemetry else None) or 0.0,
        )

    def _requested(self, message: Message) -> None:
        request = decode_json(AssignRequest, message.payload)
        error = self._reason_to_refuse(request)
        if error is None:
            by_hand = request.students is not None
            previous = self._assignments.get(request.device)
            students = request.students if request.students is not None else (previous.students if previous else ())
            self._give(request.device, NodeAssignment(students=students, by="hand" if by_hand else "auto"))
        answer = Response(status="error" if error else "ok", transaction=request.transaction, error=error)
        self._publish(respond(self._topics, "assign", message, answer))

    def _reason_to_refuse(self, request: AssignRequest) -> str | None:
        device = next((d for d in self._roster.devices if d.name == request.device and d.info), None)
        if device is None or device.info is None:
            return f"device {request.device!r} is not known; expected one that was online once"
        if not device.info.auto:
            return f"device {request.device!r} has fixed students; expected one that runs with --students auto"
        most = len(self._artifact_bytes)
        if request.students and max(request.students) >= most:
            return f"student {max(request.students)}: the deployment has students 0 to {most - 1}"
        return None

    def _give(self, device: str, assignment: NodeAssignment) -> None:
        self._assignments[device] = assignment
        self._kept.add(device)
        self._publish(Outgoing(self._topics.node(device, "assignment"), assignment.encode(), qos=1, retain=True))


def respond(topics: SiteTopics, verb: str, request: Message, answer: Response) -> Outgoing:
    """The answer to `request`: on its own response topic if that lies below `response/`, else on `response/<verb>`.

    Any other topic is refused: callers must not make the coordinator write where they themselves may not.
    """
    topic = request.response_topic or ""
    if not topic.startswith(topics.response("")) or any(wildcard in topic for wildcard in "+#\0"):
        topic = topics.response(verb)
    # A flood of bad requests must not fill the queue of acknowledged messages: frames' answers wait there too.
    return Outgoing(topic, answer.encode(), qos=int(answer.status == "ok"), correlation=request.correlation)
