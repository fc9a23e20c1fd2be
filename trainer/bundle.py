"""nonn-trainer bundle: what training produced, as one signed file."""

from typing import Any

from edge_agent.console.bundle_command import add_bundle_command as add_command


def add_bundle_command(commands: Any) -> None:
    """Add `bundle` to the trainer's commands."""
    add_command(commands, "nonn-trainer")
