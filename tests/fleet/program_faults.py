"""Faults of programs: killed, stopped, restarted, slowed down. Each acts on a healthy fleet and leaves it as it was."""

import signal
import time

from chaos import PATIENCE_S, STEADY_S, Chaos


def nothing(chaos: Chaos) -> None:
    chaos.load.run(STEADY_S)


def kill_agent(chaos: Chaos) -> None:
    killed = time.monotonic()
    chaos.fleet.kill("pi-1")
    chaos.load.run(STEADY_S)
    chaos.note = chaos.first_degraded(killed)
    chaos.start_agent(1)
    chaos.wait_online("pi-1")


def stop_agent(chaos: Chaos) -> None:
    stopped = time.monotonic()
    chaos.fleet.send("pi-1", signal.SIGSTOP)
    chaos.load.run(STEADY_S)
    chaos.note = chaos.first_degraded(stopped)
    chaos.fleet.send("pi-1", signal.SIGCONT)


def restart_coordinator(chaos: Chaos) -> None:
    def act() -> None:
        chaos.end("coordinator")
        chaos.fleet.start_coordinator(*chaos.coordinator_flags)

    chaos.deaf(act)


def kill_coordinator(chaos: Chaos) -> None:
    def act() -> None:
        chaos.fleet.send("pi-1", signal.SIGSTOP)  # so that frames are open when it dies
        chaos.load.run(0.4)
        chaos.fleet.kill("coordinator")
        chaos.fleet.send("pi-1", signal.SIGCONT)
        chaos.fleet.start_coordinator(*chaos.coordinator_flags)

    chaos.deaf(act)


def restart_broker(chaos: Chaos) -> None:
    def act() -> None:
        chaos.end("broker")
        chaos.fleet.start_broker()

    chaos.load.states.clear()
    chaos.deaf(act)
    chaos.note += chaos.availability()


def kill_broker(chaos: Chaos) -> None:
    def act() -> None:
        chaos.fleet.kill("broker")
        for leftover in chaos.folder.glob("mosquitto.db*"):
            leftover.unlink()  # nothing retained survives: everybody must say again who they are
        chaos.fleet.start_broker()

    chaos.load.states.clear()
    chaos.deaf(act)
    chaos.note += chaos.availability()


def slow_student(chaos: Chaos) -> None:
    """The program gets a fifth of the time that it would take."""
    end = time.monotonic() + STEADY_S
    while time.monotonic() < end:
        chaos.fleet.send("pi-2", signal.SIGSTOP)
        chaos.load.run(0.2)
        chaos.fleet.send("pi-2", signal.SIGCONT)
        chaos.load.run(0.05)


def lose_one_for_good(chaos: Chaos) -> None:
    """Fleet of three on auto: one dies and never comes back, another takes its student."""
    died = time.monotonic()
    chaos.fleet.kill("pi-0")
    chaos.load.run(1.0)
    healed = chaos.load.wait_until_complete(PATIENCE_S)
    if healed is not None:
        chaos.note = f"complete again without it after {time.monotonic() - died:.1f} s (away-s 3)"
