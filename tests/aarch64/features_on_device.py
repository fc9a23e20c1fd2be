"""Run inside the emulated device: open each artifact, write its features. ARTIFACT=ENGINE ... IMAGE OUTPUT."""

import json
import sys
from pathlib import Path

import numpy as np

from edge_agent.runtimes import EngineError, open_runtime


def main(arguments: list[str]) -> int:
    *artifacts, image_file, output = arguments
    answers = {}
    for artifact in artifacts:
        path, _, engine = artifact.rpartition("=")
        try:
            runtime = open_runtime(Path(path), engine)
        except EngineError as error:
            answers[Path(path).name] = {"error": str(error)}
            continue
        image = np.fromfile(image_file, np.uint8).reshape(runtime.input_shape)
        features = runtime.run(image)
        answers[Path(path).name] = {
            "engine_version": runtime.engine_version,
            "quantization": runtime.quantization,
            "dtype": str(features.dtype),
            "features": features.tolist(),
        }
        runtime.close()
    Path(output).write_text(json.dumps(answers))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
