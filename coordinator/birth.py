"""What a coordinator says of itself when it comes, and whenever that changes."""

from coordinator.settings import CoordinatorSettings
from edge_agent import __version__
from edge_agent.console.deployment_directory import DeploymentDirectory
from edge_agent.console.own_certificate import certificate_validity
from edge_agent.protocol import pack
from edge_agent.protocol.status import CoordinatorInfo


def coordinator_info(settings: CoordinatorSettings, deployment: DeploymentDirectory, session: int) -> CoordinatorInfo:
    """Enough for anybody to send it images."""
    manifest = deployment.manifest
    validity = certificate_validity(settings.broker.certificate_file)
    return CoordinatorInfo(
        session=session,
        coordinator_version=__version__,
        deployment=deployment.id,
        deployment_name=manifest.name,
        classes=manifest.classes,
        height=manifest.input.height,
        width=manifest.input.width,
        channels=manifest.input.channels,
        students=len(manifest.students),
        deadline_ms=settings.deadline_ms,
        packs=pack.VERSION,
        insecure=settings.broker.is_exposed or None,
        certificate_until=validity[1] if validity else None,
    )
