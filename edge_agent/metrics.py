"""The agent's /metrics: a small HTTP server of its own thread, which reads what the loop counts."""

import logging
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING

from edge_agent import __version__
from edge_agent.app import AgentApp
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.console.exposition import CONTENT_TYPE, Counter, Gauge, Metric, render
from edge_agent.metrics_settings import MetricsSettings
from edge_agent.protocol.status import HISTOGRAM_MS
from edge_agent.telemetry import DeviceSensors

# Imported where a port is named: with it come ssl and email, 5 MB.
if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer

REQUEST_TIMEOUT_S = 5.0
_log = logging.getLogger("metrics")


class AgentMetrics:
    """Numbers of one agent, rendered by the server's thread."""

    def __init__(self, app: AgentApp) -> None:
        self._app = app
        self._sensors = DeviceSensors()
        self._energy = app.status.energy

    def text(self) -> str:
        """The body of a scrape."""
        return render([*self._counters(), *self._gauges()]) + self._latency()

    def _counters(self) -> list[Metric]:
        counts = self._app.counts
        totals = {
            "received": ("Frames received", counts.received),
            "answered": ("Frames answered", counts.answered),
            "captured": ("Frames published by the own camera", counts.captured),
        }
        found: list[Metric] = []
        for name, (text, total) in totals.items():
            counter = Counter(f"nonn_agent_frames_{name}_total", text)
            counter.set_total(total=total)
            found.append(counter)
        refused = Counter("nonn_agent_messages_refused_total", "Messages that break the protocol")
        refused.set_total(total=counts.refused)
        energy = Counter("nonn_agent_energy_joules_total", "Energy since the agent's start", ("source",))
        for source, joules in self._energy.joules.copy().items():
            energy.set_total(source, total=joules)
        return [*found, refused, energy]

    def _gauges(self) -> list[Metric]:
        about = Gauge("nonn_agent_info", "What runs here; always 1", ("device", "version", "deployment", "machine"))
        about.set(self._app.settings.device, __version__, self._app.deployment_id, platform.machine(), number=1)
        power = Gauge("nonn_agent_power_watts", "Electrical power", ("source",))
        if self._energy.power_w is not None:
            power.set(self._energy.source, number=self._energy.power_w)
        readings = {
            "nonn_agent_temperature_celsius": ("Hottest sensor", self._sensors.temperature_c()),
            "nonn_agent_throttled": ("1 while heat or under-voltage slow the device down", self._sensors.throttled()),
            "process_resident_memory_bytes": ("Resident memory", self._sensors.memory_rss_bytes()),
            "nonn_agent_memory_available_bytes": ("Memory left", self._sensors.memory_available_bytes()),
        }
        found: list[Metric] = [about, power]
        for name, (text, reading) in readings.items():
            gauge = Gauge(name, text)
            if reading is not None:
                gauge.set(number=float(reading))
            found.append(gauge)
        return found

    def _latency(self) -> str:
        """The loop's own histogram, in seconds."""
        latency = self._app.counts.latency
        counts = list(accumulate(latency.histogram))
        bounds = [*(f"{bound / 1000:g}" for bound in HISTOGRAM_MS), "+Inf"]
        name = "nonn_agent_student_duration_seconds"
        lines = [f"# HELP {name} Interpreter time of one frame", f"# TYPE {name} histogram"]
        lines += [f'{name}_bucket{{le="{bound}"}} {count}' for bound, count in zip(bounds, counts, strict=True)]
        lines += [f"{name}_sum {latency.total_ms / 1000!r}", f"{name}_count {counts[-1]}"]
        return "\n".join(lines) + "\n"


@contextmanager
def metrics_served(app: AgentApp) -> Iterator[int | None]:
    """Serve /metrics around a run of the agent, if its settings name a port; gives the port."""
    settings: MetricsSettings = app.settings.metrics
    if settings.port is None:
        yield None
        return
    metrics = AgentMetrics(app)
    server = _listen(settings, metrics)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    _log.info("metrics at http://%s:%d/metrics", settings.host, server.server_address[1])
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


def _listen(settings: MetricsSettings, metrics: AgentMetrics) -> "ThreadingHTTPServer":
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Answer(BaseHTTPRequestHandler):
        timeout = REQUEST_TIMEOUT_S

        def do_GET(self) -> None:
            """Answer /metrics."""
            found = self.path.partition("?")[0] == "/metrics"
            body = metrics.text().encode() if found else b"see /metrics\n"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (the name of the base class)
            """Scrapes are no events."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 16

    try:
        return Server((settings.host, settings.port or 0), Answer)
    except OSError as error:
        message = f"metrics {settings.host}:{settings.port}: {error.strerror or error}; expected a free port"
        raise UserError(message, ExitCode.UNAVAILABLE) from None
