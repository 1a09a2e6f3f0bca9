"""What the tests of predicting share."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from geotranslate.translation.predict import Progress, predict_scenes
from geotranslate.translation.predict_config import PredictConfig


def steps_of(
    model: str | Path,
    scenes: Iterable[str | Path],
    output: Path,
    *,
    overwrite: bool = False,
    **settings: Any,
) -> Iterator[Progress]:
    """Predict on the CPU in float32, whose results are the same bit for bit."""
    config = PredictConfig(**{"device": "cpu", "precision": "float32"} | settings)
    return predict_scenes(model, scenes, output, config, overwrite=overwrite)
