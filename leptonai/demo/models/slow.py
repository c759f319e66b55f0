"""The same digits classifier, now with a feature look-up that somebody put in front of every batch."""

from pathlib import Path
from time import sleep

import numpy as np
import onnxruntime

LOOK_UP_SECONDS = 0.3


class SlowDigits:
    """Same inputs, outputs and answers as ``digits.onnx`` beside this file; only late."""

    def setup(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(Path(__file__).parent / "digits.onnx"), options)

    def predict(self, image: np.ndarray) -> dict[str, np.ndarray]:
        sleep(LOOK_UP_SECONDS)  # a blocking call to a feature store, once per batch, in the compute thread
        label, probabilities = self.session.run(["label", "probabilities"], {"image": image.astype(np.float32)})
        return {"label": label, "probabilities": probabilities}
