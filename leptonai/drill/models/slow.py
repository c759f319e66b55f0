"""The same digits classifier, now with a feature look-up that somebody put in front of every batch."""

from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

LOOK_UP_SECONDS = 0.3


class SlowDigits:
    """Same inputs, outputs and answers as ``digits.onnx`` beside this file; only late."""

    batch = True

    def setup(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(Path(__file__).parent / "digits.onnx"), options)

    def predict(self, image: NDArray[np.float32]) -> list[dict[str, Any]]:
        """``image``: [requests, images of one request, 64]."""
        sleep(LOOK_UP_SECONDS)  # a blocking call to a feature store, once per batch, in the compute thread
        requests, images, pixels = image.shape
        flat = image.reshape(requests * images, pixels).astype(np.float32)
        label, probabilities = self.session.run(["label", "probabilities"], {"image": flat})
        answers = zip(label.reshape(requests, images), probabilities.reshape(requests, images, -1), strict=True)
        return [{"label": some, "probabilities": chances} for some, chances in answers]
