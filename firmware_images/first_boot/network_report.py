"""report-network: a device that has not reached its broker says so on its card, and takes it back once it has.

A Pi without a network has no other way to say anything: it has no screen, and nobody can log in.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from edge_agent.console.exit_codes import ExitCode
from firmware_images.first_boot.card_settings import Broker, CardSettings
from firmware_images.first_boot.device_files import PROBLEMS
from firmware_images.first_boot.program import CARD, ROOT, say, writable_card
from firmware_images.first_boot.provision import DeviceFolders, WritableCard, write_problems
from firmware_images.first_boot.trouble import applied_settings, plain_failure

INTERFACES = Path("/sys/class/net")
WIFI = "wlan0"
# The card is written when the trouble changes, not more often than this.
PERIOD_S = 60.0
CONNECT_S = 10.0


def main() -> int:
    """Entry point: started by a timer minutes after the start; ends once the broker was reached."""
    folders = DeviceFolders(CARD, ROOT)
    settings = applied_settings(folders)
    if settings is None:
        return ExitCode.OK
    watch(lambda: network_problem(settings), lambda problem: note_on_card(folders, problem), time.sleep)
    return ExitCode.OK


def watch(look: Callable[[], str], note: Callable[[str], None], sleep: Callable[[float], None]) -> None:
    """Note every new trouble until there is none; then take the note away."""
    noted = ""
    while problem := look():
        if problem != noted:
            note(problem)
            noted = problem
        sleep(PERIOD_S)
    if noted:
        note("")


def note_on_card(folders: DeviceFolders, problem: str, writable: WritableCard = writable_card) -> None:
    """Write the trouble beside what the first boot has found; '' takes it away."""
    say(problem or "the broker was reached")
    listed = folders.root / PROBLEMS.lstrip("/")
    found = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    try:
        write_problems(folders, writable, [*found, *([problem] if problem else [])])
    except (OSError, subprocess.CalledProcessError) as error:
        say(plain_failure(error))


def network_problem(settings: CardSettings, interfaces: Path = INTERFACES) -> str:
    """Return what keeps the device from its broker, in words for whoever holds the card; '' for nothing."""
    if has_address():
        return broker_problem(settings.broker)
    others = [path for path in interfaces.iterdir() if path.name != "lo"]
    connected = any(map(is_connected, others))
    if connected and not broker_problem(settings.broker):
        return ""  # a cable from card to card, without a router: each gives itself an address
    if settings.wifi is None and not connected:
        return "no network: there is no cable; plug one in, or write [wifi] into nonn-edge.toml"
    if settings.wifi is not None and not (interfaces / WIFI).exists():
        return "no network: this device has no Wi-Fi; use a cable"
    if settings.wifi is not None and not is_connected(interfaces / WIFI):
        return (
            f'no network: no connection to Wi-Fi "{settings.wifi.ssid}"; is it in reach, '
            "and are ssid, psk and country in nonn-edge.toml right?"
        )
    return "no network: connected, but nobody gives this device an address; is the router (DHCP) on?"


def broker_problem(broker: Broker) -> str:
    """Return why the broker can't be reached, or ''."""
    where = f"{broker.host}:{broker.port}"
    try:
        socket.create_connection((broker.host, broker.port), CONNECT_S).close()
    except socket.gaierror:
        return f"the broker {broker.host} is not known on this network; is it on, and is its name right?"
    except ConnectionRefusedError:
        return f"{broker.host} is there, but no broker at {where}; is mosquitto running there?"
    except OSError as error:
        return f"the broker {where} does not answer ({error}); is it on, and in the same network?"
    return ""


def has_address() -> bool:
    """Whether any interface has an address that somebody gave it."""
    own = ("127.", "169.254.")
    addresses = [entry for entries in psutil.net_if_addrs().values() for entry in entries]
    return any(entry.family is socket.AF_INET and not entry.address.startswith(own) for entry in addresses) or any(
        entry.family is socket.AF_INET6 and not entry.address.startswith(("fe80", "::1")) for entry in addresses
    )


def is_connected(interface: Path) -> bool:
    """Whether a cable is plugged in, or a wireless network joined."""
    try:
        return (interface / "carrier").read_text().strip() == "1"
    except OSError:  # EINVAL while the interface is down
        return False


if __name__ == "__main__":
    sys.exit(main())
