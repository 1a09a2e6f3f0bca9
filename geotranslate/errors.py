"""Every error geotranslate raises on purpose.

* GeotranslateError
  + SettingError   a setting cannot work, alone or beside another
  + RasterError    a file cannot be read as a georeferenced raster
  + GridError      two rasters do not lie on the same grid, or a window leaves it
    + OutsideError   nothing of a raster lies where something of it is wanted
  + BandError      the bands at hand are not the bands asked for
  + ChipsError     a folder of chips is incomplete, or holds other chips than needed
  + BundleError    a model bundle is missing a part or was made for other data
  + OutputError    the output is in use or cannot be written
    + TakenError   the output is there already, as other work than this
  + TrainingError  a run went wrong by itself and was stopped
    + LostError    one of the processes that learn together is gone

The message is one sentence or two: what is wrong, why it matters, how to mend it, with numbers.
"""


class GeotranslateError(Exception):
    """What a user can mend; the command line shows its message without a traceback.

    Attributes:
        exit_status: 2 for wrong words, settings or inputs, 1 for a failure on the way.
    """

    exit_status = 2


class SettingError(GeotranslateError):
    """A setting cannot work, alone or beside another."""


class RasterError(GeotranslateError):
    """A file cannot be read as a georeferenced raster."""


class GridError(GeotranslateError):
    """Two rasters do not lie on the same grid, or a window leaves it."""


class OutsideError(GridError):
    """Nothing of a raster lies where something of it is wanted; other rasters may."""


class BandError(GeotranslateError):
    """The bands at hand are not the bands asked for."""


class ChipsError(GeotranslateError):
    """A folder of chips is incomplete, or holds other chips than needed."""


class BundleError(GeotranslateError):
    """A model bundle is missing a part or was made for other data."""


class OutputError(GeotranslateError):
    """The output is in use or cannot be written."""

    exit_status = 1


class TakenError(OutputError):
    """The output is there already, as other work than this: other words would mend it."""

    exit_status = 2


class TrainingError(GeotranslateError):
    """A run went wrong by itself and was stopped."""

    exit_status = 1


class LostError(TrainingError):
    """One of the processes that learn together is gone, so the others cannot go on."""


def reason(error: BaseException) -> str:
    """Why a library failed: one line without a full stop, for the brackets of a message."""
    # rasterio's own message may only point at the error of GDAL's that it stands for.
    cause = error.__cause__ or error
    text = str(getattr(cause, "strerror", None) or cause).strip() or type(cause).__name__
    return text.splitlines()[0].rstrip(".")
