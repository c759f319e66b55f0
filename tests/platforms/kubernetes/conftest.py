import sys
from pathlib import Path

for room in (Path(__file__).parents[1], Path(__file__).parents[2] / "render"):
    sys.path.append(str(room))  # suite_models, resource_texts
