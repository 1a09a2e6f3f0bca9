"""What was written, read again."""

from pathlib import Path
from typing import Any

from geotranslate.raster.mosaic import mosaic_rasters
from geotranslate.raster.scene import Chip, Scene, open_scene


def read(path: str | Path) -> tuple[Scene, Chip]:
    """A raster's scene, closed, for what it says of itself; and all of its pixels."""
    with open_scene(path) as scene:
        return scene, scene.read(scene.grid.whole)


def join(inputs: list[Path], output: Path, **settings: Any) -> tuple[Scene, Chip]:
    """Make a mosaic and read it."""
    list(mosaic_rasters(inputs, output, **settings))
    return read(output)
