"""What plugs into the coordinator's loop: dashboard, rollout, requests, assignment."""

from coordinator.feature_merger import FrameMerged
from edge_agent.protocol.frame_message import FrameMessage
from edge_agent.protocol.link import Extension
from edge_agent.protocol.prediction_message import PredictionMessage


class CoordinatorExtension(Extension):
    """A part of the coordinator; override what it needs. It also sees every `node/...` message in `receive`."""

    def on_frame(self, source: str, frame: FrameMessage, now: float) -> None:
        """A frame of the right shape came."""

    def on_prediction(self, prediction: PredictionMessage, merged: FrameMerged | None, now: float) -> None:
        """The one answer of a frame has gone out. `merged`: what it was made of, None for abandoned frames."""
