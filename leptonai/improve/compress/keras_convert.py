"""Runs alone in an interpreter that has tensorflow: ``python keras_convert.py JSON``. Imports nothing of ours."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


def main(job: dict[str, Any]) -> None:
    import numpy as np
    import tensorflow as tf

    source, out = Path(job["model"]), Path(job["out"])
    rows: Any = np.load(job["rows"])["x"] if "rows" in job else None
    saved = source.is_dir()
    model = tf.saved_model.load(str(source)) if saved else tf.keras.models.load_model(str(source), compile=False)
    if rows is not None:
        some = rows[:64]
        if saved:
            call = model.signatures["serving_default"]
            name = next(iter(call.structured_input_signature[1]))
            said = next(iter(call(**{name: tf.constant(some)}).values()))
        else:
            said = model(some, training=False)
        np.save(out / "keras.npy", np.asarray(said))
    for mode in job["modes"].values():
        if mode == "int8" and rows is None:
            continue
        lite = tf.lite.TFLiteConverter
        converter = lite.from_saved_model(str(source)) if saved else lite.from_keras_model(model)
        if mode:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if mode == "fp16":
            converter.target_spec.supported_types = [tf.float16]
        if mode == "int8":
            converter.representative_dataset = lambda: ([row[None]] for row in rows if rows is not None)
        try:
            made = converter.convert()
        except Exception as e:
            if not mode:
                raise
            print(f"{mode}: {e}")
            continue
        (out / f"{mode or 'fp32'}.tflite").write_bytes(made)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
