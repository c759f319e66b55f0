"""The names of every step, told without loading what they need."""

SHAPES = ("prune 50%", "prune 75%", "prune 88%", "low rank 50%", "low rank 25%", "split in 2", "zeros 80%")
PRECISIONS = (
    "fp16 stored",
    "bf16 stored",
    "int8 stored",
    "fp16",
    "int8 dynamic",
    "int8 static",
    "int8 static percentile",
    "int8 static reduced",
)
STEPS = (*SHAPES, *PRECISIONS)
