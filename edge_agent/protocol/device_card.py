"""What writer and reader of a device's card agree on: the words of nonn-edge.toml, its network, its broker. Pure."""

import re
from dataclasses import dataclass

CARD_FILE = "nonn-edge.toml"
# What stands on the card in a secret's place once the device has taken it: "keep what you have".
APPLIED = "(applied)"
ROLES = ("agent", "coordinator", "both")
_COUNTRY = re.compile(r"[A-Z]{2}")


@dataclass(frozen=True)
class Wifi:
    """One wireless network: the table [wifi]."""

    ssid: str
    psk: str
    country: str

    def problems(self) -> list[str]:
        """Everything that no device would accept, one line each."""
        found = []
        if not self.ssid.isprintable() or not 1 <= len(self.ssid.encode()) <= 32:
            found.append("[wifi] ssid: expected the network's name, 1 to 32 bytes of printable text")
        if self.psk != APPLIED and not (8 <= len(self.psk) <= 63 and self.psk.isascii() and self.psk.isprintable()):
            found.append("[wifi] psk: expected 8 to 63 plain characters")
        if not _COUNTRY.fullmatch(self.country):
            given = f' = "{self.country}":' if self.country else ": missing;"
            found.append(f"[wifi] country{given} expected two capital letters such as DE: it decides the channels")
        return found


@dataclass(frozen=True)
class BrokerServer:
    """What a device needs to be the site's broker: its certificate, who may do what, who no longer may."""

    cert: str
    key: str
    acl: str
    crl: str
