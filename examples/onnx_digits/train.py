"""Train a classifier of handwritten digits and write digits.onnx with its golden examples beside it."""

import json
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDER = Path(__file__).parent
GOLDEN = 8


def main() -> None:
    data = load_digits()
    image, label = data.data.astype(np.float32), data.target
    known, unseen, known_label, unseen_label = train_test_split(image, label, test_size=300, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(known, known_label)
    print(f"{model.score(unseen, unseen_label):.1%} of {len(unseen)} unseen digits right")

    # zipmap off: probabilities come as one tensor, not as a list of dictionaries
    graph = to_onnx(model, initial_types=[("image", FloatTensorType([None, 64]))], options={"zipmap": False})
    (FOLDER / "digits.onnx").write_bytes(graph.SerializeToString())

    # A replica answers these before it takes traffic; a model that gets one wrong is not served.
    right = np.flatnonzero(model.predict(unseen) == unseen_label)[:GOLDEN]
    chosen = zip(unseen[right], unseen_label[right], strict=True)
    examples = [{"inputs": {"image": [x.tolist()]}, "outputs": {"label": [int(y)]}} for x, y in chosen]
    (FOLDER / "digits.golden.json").write_text(json.dumps(examples))


if __name__ == "__main__":
    main()
