"""Home Assistant's MQTT discovery: topics and configurations of what a site has. Pure; docs/cookbook.md, recipe 9.

Keys and topics after https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery; the tests hold them against the
schemas of the homeassistant package where that is installed.
"""

import json
from dataclasses import dataclass
from typing import Any

from edge_agent.protocol.topics import SiteTopics

Config = dict[str, Any]
SUPPORT_URL = "https://www.home-assistant.io/integrations/mqtt/"
# A source that is silent for so long has no class any more.
EXPIRE_AFTER_S = 60
ONLINE = "{{ value_json.state }}"


@dataclass(frozen=True, slots=True)
class Site:
    """What all entities of a site share."""

    topics: SiteTopics
    coordinator: str
    prefix: str
    version: str

    def config_topic(self, component: str, thing: str, entity: str) -> str:
        """Where an entity is announced."""
        return f"{self.prefix}/{component}/nonn-{self.topics.site}-{thing}/{entity}/config"

    def picture_topic(self, source: str) -> str:
        """Where a source's latest picture is, as PNG."""
        return f"{self.topics.root}/home-assistant/picture/{source}"


def source_entities(site: Site, source: str) -> dict[str, Config]:
    """Class, probability, latency and picture of a source: {topic: configuration}."""
    thing = f"source-{source}"
    device = {
        "identifiers": [f"nonn-{site.topics.site}-{thing}"],
        "name": source,
        "manufacturer": "NoNN Edge",
        "model": "Source",
        "via_device": f"nonn-{site.topics.site}-coordinator-{site.coordinator}",
    }
    answers = {"state_topic": site.topics.prediction(source), "expire_after": EXPIRE_AFTER_S}
    best = "(value_json.probabilities | max) if value_json.probabilities else 0"
    entities: dict[tuple[str, str], Config] = {
        ("sensor", "class"): {
            **answers,
            "name": "Class",
            "icon": "mdi:eye",
            "value_template": "{{ value_json.class_name or 'none' }}",
            "json_attributes_topic": site.topics.prediction(source),
            "json_attributes_template": "{{ {'result': value_json.result, 'missing': value_json.missing,"
            " 'probabilities': value_json.probabilities, 'deployment': value_json.deployment} | tojson }}",
        },
        ("sensor", "probability"): {
            **answers,
            "name": "Probability",
            "icon": "mdi:percent",
            "unit_of_measurement": "%",
            "state_class": "measurement",
            "value_template": "{{ ((" + best + ") * 100) | round(1) }}",
        },
        ("sensor", "latency"): {
            **answers,
            "name": "Latency",
            "device_class": "duration",
            "unit_of_measurement": "ms",
            "state_class": "measurement",
            "entity_category": "diagnostic",
            "value_template": "{{ value_json.latency_ms.total | round(1) }}",
        },
        ("image", "picture"): {
            "name": "Picture",
            "image_topic": site.picture_topic(source),
            "content_type": "image/png",
        },
    }
    return _finished(site, thing, device, entities, [_coordinator_available(site)])


def device_entities(site: Site, name: str, version: str, machine: str, readings: frozenset[str]) -> dict[str, Config]:
    """Connectivity, readings and update of a device. `readings`: what its telemetry has, such as `temperature_c`."""
    thing = f"device-{name}"
    device = {
        "identifiers": [f"nonn-{site.topics.site}-{thing}"],
        "name": name,
        "manufacturer": "NoNN Edge",
        "model": machine,
        "sw_version": version,
    }
    telemetry = {"state_topic": site.topics.node(name, "telemetry"), "entity_category": "diagnostic"}
    sensors: dict[str, tuple[str, str, str, str]] = {
        "temperature_c": ("Temperature", "temperature", "°C", "value_json.temperature_c"),
        "power_w": ("Power", "power", "W", "value_json.power_w"),
        "student_ms_p50": ("Inference", "duration", "ms", "value_json.student_ms_p50"),
    }
    entities: dict[tuple[str, str], Config] = {}
    for key, (title, kind, unit, value) in sensors.items():
        if key in readings:
            entities["sensor", title.lower()] = {
                **telemetry,
                "name": title,
                "device_class": kind,
                "unit_of_measurement": unit,
                "state_class": "measurement",
                "value_template": "{{ " + value + " | default(None) }}",
            }
    if "throttled" in readings:
        entities["binary_sensor", "throttled"] = {
            **telemetry,
            "name": "Throttled",
            "device_class": "problem",
            "value_template": "{{ 'ON' if value_json.throttled else 'OFF' }}",
        }
    short = "{'installed_version': (value_json.installed or '')[:16], 'latest_version': (%s or '')[:16]} | tojson"
    entities["update", "deployment"] = {
        "name": "Deployment",
        "title": "NoNN deployment",
        "state_topic": site.topics.node(name, "update"),
        "entity_category": "diagnostic",
        "value_template": "{{ " + short % "value_json.target or value_json.installed" + " }}",
    }
    own = {
        "topic": site.topics.node(name, "state"),
        "value_template": ONLINE,
        "payload_available": "online",
        "payload_not_available": "offline",
    }
    found = _finished(site, thing, device, entities, [own])
    connectivity: dict[tuple[str, str], Config] = {
        ("binary_sensor", "connectivity"): {
            "name": "Connectivity",
            "device_class": "connectivity",
            "entity_category": "diagnostic",
            "state_topic": site.topics.node(name, "state"),
            "value_template": ONLINE,
            "payload_on": "online",
            "payload_off": "offline",
        }
    }
    # Whether a device is there must be known precisely when it is not.
    return found | _finished(site, thing, device, connectivity, [])


def encode(config: Config) -> bytes:
    """UTF-8 JSON."""
    return json.dumps(config, ensure_ascii=False).encode()


def _coordinator_available(site: Site) -> Config:
    return {
        "topic": site.topics.coordinator(site.coordinator, "state"),
        "value_template": ONLINE,
        "payload_available": "online",
        "payload_not_available": "offline",
    }


def _finished(
    site: Site, thing: str, device: Config, entities: dict[tuple[str, str], Config], availability: list[Config]
) -> dict[str, Config]:
    origin = {"name": "NoNN Edge", "sw_version": site.version, "support_url": SUPPORT_URL}
    found = {}
    for (component, entity), config in entities.items():
        unique = f"nonn-{site.topics.site}-{thing}-{entity}"
        shared: Config = {
            "unique_id": unique,
            "object_id": unique.replace("-", "_"),
            "device": device,
            "origin": origin,
        }
        if availability:
            shared["availability"] = availability
        found[site.config_topic(component, thing, entity)] = {**config, **shared}
    return found
