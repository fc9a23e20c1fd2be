"""A boot test of a card with broker and coordinator, seen from outside over TLS; the agent may be on this machine."""

from collections.abc import Sequence

from edge_agent.console.exit_codes import UserError
from firmware_images.boot_coordinator import DEADLINE_MS, HUB, HubSite
from firmware_images.boot_run import BootRun
from firmware_images.qemu_machine import RunningMachine

UPDATE = 2  # version of the signed deployment; the card brings version 1
AGENT_BESIDE = "edge-beside"  # the agent of this machine, at a card that is coordinator only
# A Pi takes milliseconds for what an emulated one takes seconds for; gone with the next start.
SLOW_COORDINATOR = f"""set -e
mkdir -p /run/systemd/system/edge-coordinator.service.d
printf '[Service]\\nEnvironment=NONN_DEADLINE_MS={DEADLINE_MS} NONN_ADAPTIVE_DEADLINE=false\\n' \\
  > /run/systemd/system/edge-coordinator.service.d/emulated.conf
systemctl daemon-reload; systemctl restart edge-coordinator
"""
AGENTS = """systemctl show edge-agent -p ActiveState --value
for command in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $command; echo; done 2>/dev/null | grep '[n]onn-agent run'; true
"""


def run_hub(run: BootRun) -> None:
    """Start with the card's deployment, take a signed one, and after a power cut start with that."""
    expected = run.deployment.id
    if isinstance(run.site, HubSite) and run.options.role == "coordinator":
        # It waits for the broker, and for it to come back after the power cut, by itself.
        run.site.start_agent(AGENT_BESIDE, [slot.student.index for slot in run.slots])
    with run.started("first") as machine:
        if machine is None or not _runs(run, machine, expected, "first start"):
            return
        if run.options.power_cut:
            expected = run.site.deploy(UPDATE)
            if not run.updated(machine, expected, "first start"):
                return
            run.check_answers("first start, updated")
    if run.options.power_cut:
        with run.started("second") as machine:
            if machine is not None:
                _runs(run, machine, expected, "second start")


def _runs(run: BootRun, machine: RunningMachine, expected: str, when: str) -> bool:
    found = run.report.facts[f"{when}: deployment at birth"]
    if found != expected:
        run.report.fail(f"{when}: runs {found}, expected {expected}")
        return False
    try:
        if run.shell is not None and run.options.role == "both":
            run.shell.run(SLOW_COORDINATOR)
        before = set(run.observer.predictions)
        # More than one frame: nobody listened to the broker while the shell was busy, and it may have hung up.
        if not run.sends_until(lambda: _is_merged(run, before)):
            run.report.fail(f"{when}: no answer with all students")
            return False
        run.took(f"{when}: its own coordinator merged all students", machine)
        run.check_answers(when)
        if run.shell is not None and run.options.role == "coordinator":
            problems = agents_on_card(run.shell.run(AGENTS).split("\n"), run.observer.devices_online)
            for problem in problems:
                run.report.fail(f"{when}: {problem}")
            if not problems:
                run.report.note(f"{when}: no agent on the card; online are {', '.join(run.observer.devices_online)}")
        run.look_around()
    except UserError as error:
        run.report.fail(str(error))
        return False
    return True


def agents_on_card(said: Sequence[str], online: set[str]) -> list[str]:
    """Return what speaks against a card without an agent: its unit, a command line, a device that the site sees.

    >>> agents_on_card(["inactive", ""], {"edge-beside"})
    []
    >>> agents_on_card(["active", "nonn-agent run"], {"edge-beside", "edge-hub"})
    ['edge-agent.service is active', 'an agent runs: nonn-agent run', 'edge-hub says that it runs an agent']
    """
    problems = [] if said[:1] == ["inactive"] else [f"edge-agent.service is {' '.join(said[:1])}"]
    problems += [f"an agent runs: {line.strip()}" for line in said[1:] if line.strip()]
    return problems + ([f"{HUB} says that it runs an agent"] if HUB in online else [])


def _is_merged(run: BootRun, before: set[int]) -> bool:
    answers = run.observer.predictions
    return any(answers[frame].result == "complete" for frame in answers.keys() - before)
