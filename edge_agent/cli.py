"""nonn-agent: runs a device's students and answers frames over MQTT."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# Before NumPy is imported: our matrices are small, and threads of its BLAS take 0.1 s of CPU to start.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from edge_agent import __version__
from edge_agent.console.exit_codes import ExitCode
from edge_agent.console.log import start_logging
from edge_agent.console.own_certificate import wait_for_clock
from edge_agent.console.program import ProgramParser, StopFlag, run_program
from edge_agent.console.settings import add_setting_flags, load_settings
from edge_agent.settings import AgentSettings

EPILOG = """examples:
  nonn-agent run --deployment docs/examples/cifar10-2x-wrn-16-1 --students 0
  nonn-agent run --config /etc/nonn-edge/agent.toml
  nonn-agent run --deployment /srv/deployment --students auto
  nonn-agent run --students none --camera-source door --camera-kind v4l2 --camera-location /dev/video0
  nonn-agent bench --deployment docs/examples/cifar10-2x-wrn-16-1
  NONN_BROKER_HOST=broker.local nonn-agent run --deployment /srv/deployment --students 0,1

exit codes: 0 stopped on request, 64 usage, 65 bad deployment, 69 missing engine, 74 disk, 78 bad settings
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    arguments = _parser().parse_args(argv)
    return run_program(lambda: int(arguments.job(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = ProgramParser("nonn-agent", __doc__, EPILOG)
    parser.add_argument("--version", action="version", version=f"nonn-agent {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="answer frames until stopped", description="Answer frames until stopped.")
    add_setting_flags(run, AgentSettings)
    run.set_defaults(job=_run)
    bench = commands.add_parser(
        "bench",
        help="time every artifact of a deployment on this device",
        description="Time every artifact of a deployment on this device: latency, memory, energy, agreement.",
    )
    bench.add_argument("--deployment", type=Path, required=True, metavar="DIR", help="deployment directory")
    bench.add_argument("--students", type=_indices, metavar="N,N", help="students to time, such as 0 or 0,2 [all]")
    bench.add_argument("--num-threads", type=_threads, default=1, metavar="N", help="threads of the interpreter [1]")
    bench.add_argument("--json", action="store_true", help="print JSON")
    bench.set_defaults(job=_bench)
    return parser


def _indices(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of student numbers such as 0,2")
    return tuple(int(part) for part in parts)


def _threads(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 64):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 64")
    return int(text)


def _bench(arguments: argparse.Namespace) -> int:
    from edge_agent.bench import run_bench

    return run_bench(arguments.deployment, arguments.students, arguments.num_threads, arguments.json)


def _run(arguments: argparse.Namespace) -> int:
    settings = load_settings(AgentSettings, arguments, os.environ)
    start_logging(settings.log_format, settings.log_level)
    # Interpreters are imported late: --help and bad settings answer at once.
    from edge_agent.metrics import metrics_served
    from edge_agent.roles import build_agent

    stop = StopFlag()
    stop.listen()
    wait_for_clock(settings.broker, lambda: stop.stopped)
    agent = build_agent(settings)
    with metrics_served(agent):
        agent.run(lambda: stop.stopped)
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
