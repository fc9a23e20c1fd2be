"""Open the link that the settings ask for."""

from collections.abc import Sequence

from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.link import Link, Outgoing


def open_link(
    settings: BrokerSettings,
    client_id: str,
    subscriptions: Sequence[tuple[str, int]],
    will: Outgoing | None = None,
    coalesce: bool = False,
) -> Link:
    """`coalesce`: what is published between two polls may leave together, at the second one."""
    # Imported here: paho takes 20 ms that an agent with our own link need not spend.
    if settings.client == "paho":
        from edge_agent.protocol.paho_link import PahoLink

        return PahoLink(settings, client_id, subscriptions, will)
    from edge_agent.protocol.mqtt_link import MqttLink

    return MqttLink(settings, client_id, subscriptions, will, coalesce)
