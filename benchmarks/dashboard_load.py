"""Round trip of live frames while the dashboard is watched, flooded and abused, against the same fleet left alone.

    python benchmarks/dashboard_load.py [--frames 300] [--rounds 3]

Each round measures `alone` and every load after one another, so that a drift of the machine meets all of them. Clients
of the dashboard run in a process of their own, on the same cores: what they take themselves is part of the figures.
"""

import argparse
import http.client
import multiprocessing
import os
import platform
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from fleet_processes import FleetProcesses, free_port

from coordinator.frame_client import FrameClient
from coordinator.settings import ClientSettings
from edge_agent.protocol.broker import BrokerSettings

FRAMES_PER_S = 20.0
PAGES = 100
SETTLE_S = 1.5


def main() -> int:
    """Measure every load and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300, help="frames for each figure of a round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, "
          f"Python {platform.python_version()}, {FRAMES_PER_S:g} frames/s, 3 students\n")  # fmt: skip
    times: dict[str, list[float]] = {}
    statuses: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as folder, FleetProcesses(Path(folder)) as fleet:
        port = free_port()
        fleet.start_broker()
        for student in range(3):
            fleet.start_agent(f"pi-{student}", str(student))
        fleet.start_coordinator("--dashboard-port", str(port))
        client = FrameClient(ClientSettings(broker=BrokerSettings(port=fleet.port)), "cam")
        info = client.wait_for_site(120)
        images = np.random.default_rng(0).integers(
            0, 256, (arguments.frames, info.height, info.width, info.channels), np.uint8
        )
        list(client.classify(images[:20], 4, FRAMES_PER_S))
        for _ in range(arguments.rounds):
            for name, load in LOADS.items():
                with Load(load, port) as running:
                    found = [1000 * answer.round_trip_s for answer in client.classify(images, 4, FRAMES_PER_S)]
                    if len(found) < len(images):
                        print(f"{name}: {len(images) - len(found)} frames without answer")
                times.setdefault(name, []).extend(found)
                for status, count in running.statuses().items():
                    statuses.setdefault(name, {}).setdefault(status, 0)
                    statuses[name][status] += count
        client.close()
    alone = times["alone"]
    print("| load | p50, ms | ratio | p95, ms | ratio | answers of the dashboard |\n|---|---:|---:|---:|---:|---|")
    for name, found in times.items():
        told = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.get(name, {}).items()))
        cells = [f"{_share(found, p):.2f} | {_share(found, p) / _share(alone, p):.2f}" for p in (0.5, 0.95)]
        print(f"| {name} | {' | '.join(cells)} | {told} |")
    print(f"\nn = {len(alone)} frames each; mean alone {statistics.mean(alone):.2f} ms")
    return 0


def _share(times_ms: list[float], share: float) -> float:
    return sorted(times_ms)[int(share * (len(times_ms) - 1))]


class Load:
    """A process that does something to the dashboard as long as the block lasts."""

    def __init__(self, act: Callable[[int, "dict[str, int]"], None] | None, port: int) -> None:
        self._act, self._port = act, port
        self._out, self._in = multiprocessing.Pipe(duplex=False)
        self._counts: dict[str, int] = {}

    def __enter__(self) -> Self:
        if self._act is not None:
            self._child = multiprocessing.Process(target=_run, args=(self._act, self._port, self._in), daemon=True)
            self._child.start()
            time.sleep(SETTLE_S)
        return self

    def __exit__(self, *_: object) -> None:
        if self._act is not None:
            self._child.terminate()
            while self._out.poll(0.2):
                self._counts = self._out.recv()
            self._child.join()
            time.sleep(SETTLE_S)

    def statuses(self) -> dict[str, int]:
        """What the dashboard answered, by status."""
        return self._counts


def _run(
    act: Callable[[int, "dict[str, int]"], None], port: int, told: "multiprocessing.connection.Connection"
) -> None:
    counts: dict[str, int] = {}
    threading.Thread(target=act, args=(port, counts), daemon=True).start()
    while True:
        time.sleep(0.1)
        told.send(dict(counts))


def _count(counts: dict[str, int], status: object) -> None:
    counts[str(status)] = counts.get(str(status), 0) + 1


def _pages(port: int, counts: dict[str, int], read: bool) -> None:
    pages = []
    for _ in range(PAGES):
        page = socket.create_connection(("127.0.0.1", port), timeout=30)
        page.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        _count(counts, page.recv(12).decode().split()[1])
        pages.append(page)
    while True:
        time.sleep(0.05)
        for page in pages if read else []:
            page.setblocking(False)
            try:
                while page.recv(1 << 16):
                    pass
            except BlockingIOError:
                pass


def reading_pages(port: int, counts: dict[str, int]) -> None:
    """A hundred open tabs."""
    _pages(port, counts, read=True)


def sleeping_pages(port: int, counts: dict[str, int]) -> None:
    """A hundred tabs that read nothing."""
    _pages(port, counts, read=False)


def _post_for_ever(port: int, counts: dict[str, int], path: str, body: bytes) -> None:
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("POST", path, body)
            _count(counts, connection.getresponse().status)
            connection.close()
        except OSError:
            _count(counts, "hung up")


def _posters(port: int, counts: dict[str, int], path: str, body: bytes, threads: int = 4) -> None:
    for _ in range(threads - 1):
        threading.Thread(target=_post_for_ever, args=(port, counts, path, body), daemon=True).start()
    _post_for_ever(port, counts, path, body)


def picture_flood(port: int, counts: dict[str, int]) -> None:
    """Four clients that send noise of 1 MB as fast as they can."""
    _posters(port, counts, "/api/classify", np.random.default_rng(1).bytes(1_000_000))


def endless_uploads(port: int, counts: dict[str, int]) -> None:
    """Two clients that send 50 MB as fast as they can."""
    _posters(port, counts, "/api/classify", bytes(50_000_000), threads=2)


def guesses(port: int, counts: dict[str, int]) -> None:
    """Four clients that ask for pages as fast as they can."""
    _posters(port, counts, "/login", b"token=guess")


LOADS: dict[str, Callable[[int, dict[str, int]], None] | None] = {
    "alone": None,
    "100 pages": reading_pages,
    "100 pages that do not read": sleeping_pages,
    "flood of 1 MB uploads": picture_flood,
    "flood of 50 MB uploads": endless_uploads,
    "flood of logins": guesses,
}


if __name__ == "__main__":
    sys.exit(main())
