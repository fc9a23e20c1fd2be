"""What this device says about updates, retained on `node/<device>/update`: what is new, progress twice a second."""

from edge_agent.model_store import ModelStore
from edge_agent.protocol.link import Link, Outgoing
from edge_agent.protocol.update_messages import NodeUpdate, UpdateStateName

PROGRESS_INTERVAL_S = 0.5


class UpdateReport:
    """Remembers the state; `publish` says it again after a reconnect."""

    def __init__(self, link: Link, topic: str, store: ModelStore) -> None:
        self._link = link
        self._topic = topic
        self._store = store
        self.rollout = store.record.rollout
        installed = store.record.active or None
        self._update = NodeUpdate(state="active" if installed else "idle", rollout=self.rollout, installed=installed)
        self._next_progress = 0.0

    @property
    def state(self) -> UpdateStateName:
        """The last state said."""
        return self._update.state

    def publish(self) -> None:
        """Say it (again)."""
        self._link.publish(Outgoing(self._topic, self._update.encode(), qos=1, retain=True))

    def say(self, state: UpdateStateName, target: str | None = None, error: str = "") -> None:
        """A new state of the target; what is installed stays."""
        self._set(state=state, target=target, error=error[:500], progress=0.0, shadow=False, students=())

    def ready(self, target: str, students: tuple[int, ...], shadow: bool) -> None:
        """The target waits for its switch."""
        self._set(state="ready", target=target, error="", progress=1.0, students=students, shadow=shadow)

    def active(self, deployment: str) -> None:
        """The target answers."""
        self._set(state="active", installed=deployment, target=deployment, error="", progress=1.0, shadow=False)

    def settled(self, deployment: str, students: tuple[int, ...]) -> None:
        """What is desired answers already. Why the last rollout failed here stays readable until the next one."""
        if self._update.state in ("failed", "rolled_back") and self._update.rollout == self.rollout:
            return
        self._set(state="active", installed=deployment, target=deployment, error="", progress=1.0, students=students)

    def rolled_back(self, target: str, installed: str, reason: str) -> None:
        """The target answered, or tried to, and `installed` is back."""
        self._set(state="rolled_back", target=target, installed=installed, error=reason[:500], shadow=False)

    def fell_back(self, reason: str) -> None:
        """The agent returned to the last good deployment before it connected."""
        record = self._store.record
        target = next(reversed(record.refused), "")
        if target:
            self.rollout = record.refused[target].rollout
        self._set(state="rolled_back", target=target or None, installed=record.active or None, error=reason[:500])

    def progress(self, share: float | None, now: float) -> None:
        """How far a download is."""
        if share is not None and now >= self._next_progress and self._update.state == "downloading":
            self._next_progress = now + PROGRESS_INTERVAL_S
            self._set(progress=round(share, 3))

    def _set(self, **fields: object) -> None:
        update = self._update.model_copy(update={"rollout": self.rollout, **fields})
        if update != self._update:
            self._update = update
            self.publish()
