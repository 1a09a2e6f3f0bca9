"""What the tests of predicting share."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from geotranslate.raster.domain import Band, Domain
from geotranslate.translation.predict import Progress, predict_scenes
from geotranslate.translation.predict_config import PredictConfig

RGB = Domain(
    bands=tuple(Band(name=name, color=name) for name in ("red", "green", "blue")),
    dtype="uint8",
    resolution_m=(10.0, 10.0),
    low=(0.0, 0.0, 0.0),
    high=(255.0, 255.0, 255.0),
)
SAR = Domain(
    bands=(Band(name="VV", unit="dB"), Band(name="VH", unit="dB")),
    dtype="float32",
    nodata=-999.0,
    resolution_m=(10.0, 10.0),
    low=(-25.0, -30.0),
    high=(5.0, 0.0),
)


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
