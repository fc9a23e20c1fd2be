"""Where a camera role's images come from; each kind is imported when it is opened."""

from edge_agent.frame_sources.frame_source import FrameSource, Image, Shape
from edge_agent.settings import CameraSettings

__all__ = ["FrameSource", "Image", "Shape", "open_source"]


def open_source(settings: CameraSettings, shape: Shape) -> FrameSource:
    """Open the camera, file, folder or URL of `settings` for images of `shape`; UserError says what is missing."""
    if settings.kind == "picamera2":
        from edge_agent.frame_sources.pi_camera import open_pi_camera

        return open_pi_camera(settings, shape)
    if settings.kind == "v4l2":
        from edge_agent.frame_sources.v4l2_camera import V4l2Camera

        return V4l2Camera(settings.location, settings.frames_per_s, shape)
    if settings.kind == "video":
        from edge_agent.frame_sources.video_file import VideoFile

        return VideoFile(settings.location, shape, settings.repeat)
    if settings.kind == "http":
        from edge_agent.frame_sources.http_snapshot import HttpSnapshot

        return HttpSnapshot(settings.location, shape)
    from edge_agent.frame_sources.image_folder import ImageFolder

    return ImageFolder(settings.location, shape, settings.repeat)
