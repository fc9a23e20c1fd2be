"""Shows a rollout: a table that changes on a terminal, one line a change elsewhere."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from edge_agent.protocol.update_messages import NodeUpdate, RolloutStatus

BAR = 20
COUNT_INTERVAL_S = 2.0


class DeployProgress:
    """`devices` is filled by whoever listens to the site."""

    def __init__(self, devices: Mapping[str, NodeUpdate], target: str) -> None:
        self._devices = devices
        self._target = target
        self._said: dict[str, str] = {}
        self._next_count = 0.0
        self._live = Live(console=Console(), auto_refresh=False) if sys.stdout.isatty() else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, status: RolloutStatus) -> None:
        """The site as it is now."""
        rows = {"site": _site_words(status)}
        rows |= {name: _words(update, self._target) for name, update in sorted(self._devices.items())}
        if rows == self._said:
            return
        if self._live is not None:
            table = Table(show_header=False, box=None, pad_edge=False)
            for name, words in rows.items():
                table.add_row(name, words, style="bold" if name == "site" else "")
            self._live.update(table, refresh=True)
        else:
            for name, words in rows.items():
                if self._said.get(name) != words and not self._too_soon(words):
                    print(f"{name}: {words}", flush=True)
        self._said = rows

    def _too_soon(self, words: str) -> bool:
        """A canary counts on with every frame: a line every two seconds is enough of it."""
        if "frames compared, agreement" not in words:
            return False
        now = time.monotonic()
        if now < self._next_count:
            return True
        self._next_count = now + COUNT_INTERVAL_S
        return False


def _site_words(status: RolloutStatus) -> str:
    if status.phase == "fetching":
        return f"the coordinator fetches the bundle {_bar(status.progress)}"
    if status.phase == "canary" and status.canary is not None and status.canary.frames:
        report = status.canary
        return (
            f"canary: {report.frames} frames compared, agreement {report.agreement or 0:.1%}, "
            f"p95 {report.new_ms_p95 or 0:.2f} ms against {report.old_ms_p95 or 0:.2f} ms"
        )
    if status.phase == "preparing" and status.waiting_for:
        return f"preparing, waiting for students {', '.join(map(str, status.waiting_for))}"
    return f"{status.phase}{': ' + status.error if status.error else ''}"


def _words(update: NodeUpdate, target: str) -> str:
    if update.target != target:
        return f"answers with {update.installed or 'nothing'}"
    if update.state == "downloading":
        return f"downloading {_bar(update.progress)}"
    shadow = " (in shadow)" if update.shadow else ""
    return f"{update.state.replace('_', ' ')}{shadow}{': ' + update.error if update.error else ''}"


def _bar(share: float) -> str:
    full = round(share * BAR)
    return f"{'█' * full}{'░' * (BAR - full)} {share:4.0%}"
