"""Logging of the programs: one line per event, and a limiter for lines that could flood."""

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Literal

_OTHERS = "others"  # a kind beyond `max_kinds`
LogFormat = Literal["text", "json"]


def start_logging(log_format: LogFormat, level: str) -> None:
    """Send all records to stderr, as `LEVEL name: message` (journald adds the time) or as JSON lines."""
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(
        _JsonLines() if log_format == "json" else logging.Formatter("%(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=level.upper(), handlers=[stream], force=True)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class LimitedLog:
    """Logs the first event of a kind, then at most one line per `period_s` with the count of what it kept back."""

    def __init__(
        self,
        logger: logging.Logger,
        period_s: float = 60.0,
        max_kinds: int = 256,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._period_s = period_s
        self._max_kinds = max_kinds  # kinds come from senders: a flood of names must not fill the memory
        self._clock = clock
        self._last: dict[str, tuple[float, int]] = {}

    def warn(self, kind: str, message: str) -> None:
        """Log `message` unless `kind` was logged less than a period ago; then only count it."""
        now = self._clock()
        if kind not in self._last and len(self._last) >= self._max_kinds:
            kind = self._room_for(kind, now)
        last, kept_back = self._last.get(kind, (-self._period_s, 0))
        if now - last < self._period_s:
            self._last[kind] = (last, kept_back + 1)
            return
        self._last[kind] = (now, 0)
        self._logger.warning("%s%s", message, f" ({kept_back} more like it since)" if kept_back else "")

    def _room_for(self, kind: str, now: float) -> str:
        """Forget kinds that are quiet; while there are none, all new kinds share one."""
        for quiet in [old for old, (last, _) in self._last.items() if now - last >= self._period_s]:
            del self._last[quiet]
        return kind if len(self._last) < self._max_kinds else _OTHERS
