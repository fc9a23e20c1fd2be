"""nonn-agent: runs a device's students and answers frames over MQTT."""

import argparse
import os
import sys
from collections.abc import Sequence

from edge_agent import __version__
from edge_agent.console.exit_codes import ExitCode
from edge_agent.console.log import start_logging
from edge_agent.console.program import ProgramParser, StopFlag, run_program
from edge_agent.console.settings import add_setting_flags, load_settings
from edge_agent.settings import AgentSettings

EPILOG = """examples:
  nonn-agent run --deployment docs/examples/cifar10-wrn-16-1 --students 0
  nonn-agent run --config /etc/nonn-edge/agent.toml
  nonn-agent run --deployment /srv/deployment --students auto
  nonn-agent run --students none --camera-source door --camera-kind v4l2 --camera-location /dev/video0
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
    return parser


def _run(arguments: argparse.Namespace) -> int:
    settings = load_settings(AgentSettings, arguments, os.environ)
    start_logging(settings.log_format, settings.log_level)
    # Interpreters are imported late: --help and bad settings answer at once.
    from edge_agent.roles import build_agent

    stop = StopFlag()
    stop.listen()
    build_agent(settings).run(lambda: stop.stopped)
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
