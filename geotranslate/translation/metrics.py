"""How near a translated image comes to the true one: figures over valid pixels.

Each figure is a function of sums, and the sums of an image's windows add up to the image's, so
an image of any size is measured window by window::

    figures(sum_window(...) + sum_window(...) + ..., value_range)

No figure judges alone. PSNR and SSIM reward blur, sharpness rewards noise; `FIGURES` says what
each one is blind to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from geotranslate.errors import GridError, SettingError

Pixels = NDArray[np.float64]
Valid = NDArray[np.bool_]
Added = TypeVar("Added", "Moments", "Sums")

CELL = 8
"""Side of the cells that are averaged to forgive pairs a few pixels off, in pixels."""

SSIM_RADIUS = 5
SSIM_SIGMA = 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03

HALO = SSIM_RADIUS
"""Rim that `sum_window` needs around a core, so that windows add up to the whole, in pixels."""

# Values are in parts of the full range; a sum of squares or steps below this is only rounding.
FLAT = 1e-10


@dataclass(frozen=True)
class Figure:
    """What a figure means to whoever reads it.

    Attributes:
        title: as it stands in a table.
        unit: "" for a plain number, "band" for the band's own unit.
        best: which way is better; "" for a yardstick.
        meaning: what it is, and what it does not see.
    """

    title: str
    unit: str
    best: Literal["higher", "lower", "0", "1", ""]
    meaning: str


FIGURES = {
    "mae": Figure("MAE", "band", "lower", "mean absolute error of each band"),
    "rmse": Figure("RMSE", "band", "lower", "root of the mean squared error of each band"),
    "bias": Figure("bias", "band", "0", "mean of prediction minus truth of each band"),
    "psnr": Figure(
        "PSNR", "dB", "higher", "full range over RMSE, all bands together; rewards blur"
    ),
    "psnr8": Figure(
        f"PSNR {CELL} x {CELL}",
        "dB",
        "higher",
        f"PSNR of {CELL} x {CELL} px means: the right colour in the right place, whatever the "
        "detail; forgives pairs that lie a few pixels off",
    ),
    "ssim": Figure(
        "SSIM", "", "higher", "likeness of local mean, contrast and pattern; rewards blur"
    ),
    "sam": Figure(
        "SAM",
        "degrees",
        "lower",
        "mean angle between the spectra; blind to brightness, needs two bands",
    ),
    "ergas": Figure(
        "ERGAS",
        "",
        "lower",
        "RMSE in percent of the true mean, over the bands; of no use where means are near zero, "
        "as in decibels",
    ),
    "contrast": Figure(
        "contrast", "", "1", "standard deviation over the truth's; blind to where things are"
    ),
    "sharpness": Figure(
        "sharpness", "", "1", "mean gradient over the truth's; noise counts as detail"
    ),
    "corr8": Figure(
        f"corr {CELL} x {CELL}",
        "",
        "higher",
        f"correlation with the truth of {CELL} x {CELL} px means, mean over bands; blind to "
        "level and contrast",
    ),
    "color_bias": Figure(
        "colour bias",
        "",
        "0",
        "difference of the mean colours in parts of the full range, mean over bands",
    ),
}
"""Every figure by its name in `Figures` and in reports."""


@dataclass(frozen=True)
class Figures:
    """The figures of one image, or their average over images; `FIGURES` says what each one is.

    A figure that has no value is NaN: SAM of a single band, a ratio to a flat truth, a mean over
    8 x 8 px where no cell is valid. PSNR of equal images is infinite.
    """

    mae: tuple[float, ...]
    rmse: tuple[float, ...]
    bias: tuple[float, ...]
    psnr: float
    psnr8: float
    ssim: float
    sam: float
    ergas: float
    contrast: float
    sharpness: float
    corr8: float
    color_bias: float


@dataclass(frozen=True)
class ValueRange:
    """The physical values of each band that count as 0 and as 1 in PSNR, SSIM and their kin.

    SSIM assumes values from 0 up; counted from ``low``, decibels are as well served as
    reflectances. With ``low`` 0 and ``high`` 255 it is the usual ``data_range`` of 255.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        for band, (low, high) in enumerate(zip(self.low, self.high, strict=True), start=1):
            if not low < high:
                raise SettingError(
                    f"the value range of band {band} goes from {low:g} to {high:g}: PSNR and SSIM "
                    "measure errors against its width. Give a range whose second number is "
                    "larger, or leave the band out."
                )

    @property
    def span(self) -> Pixels:
        """Width of the range of each band, (bands,)."""
        return np.array(self.high, np.float64) - np.array(self.low, np.float64)

    def scale(self, pixels: NDArray[Any]) -> Pixels:
        """From physical values (bands, rows, cols) to parts of the range; nothing is clipped."""
        low = np.array(self.low, np.float64)
        return np.asarray((pixels - low[:, None, None]) / self.span[:, None, None])


@dataclass(frozen=True)
class Moments:
    """Sums over samples of two images in parts of the range; each (bands,) but ``count``."""

    count: int
    predicted: Pixels
    truth: Pixels
    predicted_squared: Pixels
    truth_squared: Pixels
    product: Pixels
    error: Pixels
    error_squared: Pixels

    def __add__(self, other: Moments) -> Moments:
        return _added(self, other)

    @property
    def variances(self) -> tuple[Pixels, Pixels, Pixels]:
        """Variance of the prediction, variance of the truth, and their covariance, per band.

        A variance that is only rounding is 0.
        """
        x, y = self.predicted / self.count, self.truth / self.count
        x_variance = self.predicted_squared / self.count - x * x
        y_variance = self.truth_squared / self.count - y * y
        return (
            np.where(x_variance > FLAT, x_variance, 0.0),
            np.where(y_variance > FLAT, y_variance, 0.0),
            self.product / self.count - x * y,
        )


@dataclass(frozen=True)
class Sums:
    """What one window adds to an image's figures; sums of windows add up.

    Attributes:
        pixels: moments of the valid pixels.
        cells: moments of the means of 8 x 8 px.
        ssim: (bands,) local SSIM, summed over valid pixels.
        gradients: (2, bands) gradient of prediction and truth, summed where it is defined.
        angle: spectral angle in degrees, summed over ``angles`` pixels.
        angles: valid pixels where neither spectrum is zero.
    """

    pixels: Moments
    cells: Moments
    ssim: Pixels
    gradients: Pixels
    angle: float
    angles: int

    def __add__(self, other: Sums) -> Sums:
        return _added(self, other)


def _added(one: Added, other: Added) -> Added:
    return type(one)(*(getattr(one, f.name) + getattr(other, f.name) for f in fields(one)))


def measure(
    predicted: NDArray[Any],
    truth: NDArray[Any],
    valid: Valid,
    value_range: ValueRange,
) -> Figures:
    """The figures of one image that fits in memory.

    Args:
        predicted: (bands, rows, cols), in physical units.
        truth: as ``predicted``.
        valid: (rows, cols), True where both hold data.
        value_range: what counts as full range.

    Raises:
        GridError: no pixel is valid.
    """
    return figures(sum_window(predicted, truth, valid, value_range), value_range)


def sum_window(
    predicted: NDArray[Any],
    truth: NDArray[Any],
    valid: Valid,
    value_range: ValueRange,
    core: tuple[slice, slice] = (slice(None), slice(None)),
) -> Sums:
    """What the core of a window adds to an image's figures.

    To add up to the whole image, cores tile it, start on multiples of `CELL`, and their windows
    reach `HALO` pixels further on every side, unless the image ends before.

    Args:
        predicted: (bands, rows, cols) of core and halo, in physical units.
        truth: as ``predicted``.
        valid: (rows, cols), True where both hold data.
        value_range: what counts as full range.
        core: rows and columns of the window that count.
    """
    predicted = np.where(valid, predicted, 0.0)
    truth = np.where(valid, truth, 0.0)
    x = np.where(valid, value_range.scale(predicted), 0.0)
    y = np.where(valid, value_range.scale(truth), 0.0)
    inside = valid[core]
    inner = (slice(None), *core)

    x_cells, whole = cell_means(x[inner], inside)
    y_cells, _ = cell_means(y[inner], inside)
    x_gradient, smooth = gradients(x, valid)
    y_gradient, _ = gradients(y, valid)
    angle = spectral_angle(predicted[inner], truth[inner])
    angled = inside & np.isfinite(angle)
    return Sums(
        pixels=_moments(x[inner], y[inner], inside),
        cells=_moments(x_cells, y_cells, whole),
        ssim=ssim_map(x, y, valid)[inner].sum(axis=(1, 2), where=inside),
        gradients=np.stack(
            [g[inner].sum(axis=(1, 2), where=smooth[core]) for g in (x_gradient, y_gradient)]
        ),
        angle=float(angle.sum(where=angled)),
        angles=int(angled.sum()),
    )


def _moments(x: Pixels, y: Pixels, valid: Valid) -> Moments:
    """Sums over images (bands, rows, cols) that are 0 where they are not valid."""
    return Moments(
        count=int(valid.sum()),
        predicted=x.sum(axis=(1, 2)),
        truth=y.sum(axis=(1, 2)),
        predicted_squared=(x * x).sum(axis=(1, 2)),
        truth_squared=(y * y).sum(axis=(1, 2)),
        product=(x * y).sum(axis=(1, 2)),
        error=np.abs(x - y).sum(axis=(1, 2)),
        error_squared=np.square(x - y).sum(axis=(1, 2)),
    )


def figures(sums: Sums, value_range: ValueRange) -> Figures:
    """The figures that an image's sums amount to.

    * MAE, RMSE, bias: of each band, in its unit.
    * PSNR = -10 log10(mean over bands and pixels of ((x - y) / span)^2), in dB.
    * ERGAS = 100 sqrt(mean over bands of (RMSE / mean of truth)^2): Wald, "Quality of high
      resolution synthesised images", 2000, with a ratio of pixel sizes of 1.
    * contrast = sqrt(sum of variances / sum of the truth's variances), over bands.
    * sharpness = sum of gradients / sum of the truth's gradients, over bands.
    * corr8: Pearson's correlation of each band, mean over the bands in which the truth varies; a
      band in which only the truth varies counts as 0.
    * colour bias = mean over bands of |mean of x - mean of y| / span.

    Raises:
        GridError: no pixel is valid.
    """
    pixels, cells, span = sums.pixels, sums.cells, value_range.span
    if not pixels.count:
        raise GridError(
            "no pixel is valid in both the prediction and the truth, so there is nothing to "
            "measure. Check that both show the same place and that their nodata values are right."
        )
    rmse = np.sqrt(pixels.error_squared / pixels.count)
    shift = (pixels.predicted - pixels.truth) / pixels.count
    true_mean = np.array(value_range.low) + span * pixels.truth / pixels.count
    with np.errstate(divide="ignore", invalid="ignore"):
        ergas = 100 * np.sqrt(np.mean(np.square(rmse * span / true_mean)))
    predicted_variance, true_variance, _ = pixels.variances
    return Figures(
        mae=_floats(span * pixels.error / pixels.count),
        rmse=_floats(span * rmse),
        bias=_floats(span * shift),
        psnr=_psnr(pixels),
        psnr8=_psnr(cells),
        ssim=float(np.mean(sums.ssim / pixels.count)),
        sam=sums.angle / sums.angles if sums.angles and len(span) > 1 else np.nan,
        ergas=float(ergas),
        contrast=_ratio(predicted_variance.sum(), true_variance.sum()) ** 0.5,
        sharpness=_ratio(*sums.gradients.sum(axis=1)),
        corr8=_correlation(cells),
        color_bias=float(np.mean(np.abs(shift))),
    )


def _psnr(moments: Moments) -> float:
    if not moments.count:
        return np.nan
    with np.errstate(divide="ignore"):
        return float(-10 * np.log10(np.mean(moments.error_squared / moments.count)))


def _ratio(ours: float, theirs: float) -> float:
    return float(ours / theirs) if theirs > FLAT else np.nan


def _correlation(moments: Moments) -> float:
    if not moments.count:
        return np.nan
    predicted, truth, together = moments.variances
    scale = np.sqrt(predicted * truth)
    correlation = np.divide(together, scale, out=np.zeros_like(scale), where=scale > 0)
    varied = truth > 0
    return float(np.mean(correlation[varied])) if varied.any() else np.nan


def _floats(values: Pixels) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def summarize(
    images: Sequence[Figures], how: Callable[[NDArray[np.float64]], Any] = np.mean
) -> Figures:
    """The figures of several images in one, each image counting the same.

    Args:
        images: at least one.
        how: np.mean or np.median; sees a figure's values in those images where it has one.
    """

    def over(values: Sequence[float]) -> float:
        known = [value for value in values if not np.isnan(value)]
        return float(how(np.array(known))) if known else np.nan

    summary: dict[str, Any] = {}
    for name in FIGURES:
        values = [getattr(image, name) for image in images]
        if isinstance(values[0], tuple):
            summary[name] = tuple(over(band) for band in zip(*values, strict=True))
        else:
            summary[name] = over(values)
    return Figures(**summary)


def cell_means(pixels: Pixels, valid: Valid, cell: int = CELL) -> tuple[Pixels, Valid]:
    """Means over square cells of pixels, over their valid pixels only.

    A cell counts where at least half of its ``cell * cell`` pixels are valid. So a cell that
    an image's right or lower edge cuts counts where half of it lies inside.

    Args:
        pixels: (bands, rows, cols); the first cell starts at the first row and column.
        valid: (rows, cols).
        cell: side of a cell in pixels.

    Returns:
        The means (bands, cell rows, cell cols), 0 where a cell does not count, and where
        they count (cell rows, cell cols).
    """
    rows, cols = valid.shape
    rim = (0, -rows % cell), (0, -cols % cell)

    def totals(layer: Pixels) -> Pixels:
        padded = np.pad(layer, rim)
        height, width = padded.shape
        cells = padded.reshape(height // cell, cell, width // cell, cell)
        return np.asarray(cells.sum(axis=(1, 3)))

    count = totals(valid.astype(np.float64))
    sums = np.stack([totals(np.where(valid, band, 0.0)) for band in pixels])
    counts = 2 * count >= cell * cell
    return np.where(counts, sums / np.maximum(count, 1), 0.0), counts


def gradients(pixels: Pixels, valid: Valid) -> tuple[Pixels, Valid]:
    """Length of the step from each pixel to its right and lower neighbours.

    sqrt((x[r, c + 1] - x[r, c])^2 + (x[r + 1, c] - x[r, c])^2), where the three pixels are valid.

    Args:
        pixels: (bands, rows, cols).
        valid: (rows, cols).

    Returns:
        The lengths (bands, rows - 1, cols - 1), and where they are defined.
    """
    here = pixels[:, :-1, :-1]
    length = np.hypot(pixels[:, :-1, 1:] - here, pixels[:, 1:, :-1] - here)
    return length, valid[:-1, :-1] & valid[:-1, 1:] & valid[1:, :-1]


def spectral_angle(predicted: Pixels, truth: Pixels) -> Pixels:
    """Angle between two images' spectra at each pixel, in degrees.

    Kruse et al., "The Spectral Image Processing System (SIPS)", 1993, in Kahan's form, which
    stays exact where the angle is small: 2 atan2(|u - v|, |u + v|) for unit vectors u and v.

    Args:
        predicted: (bands, rows, cols), in physical units.
        truth: as ``predicted``.

    Returns:
        (rows, cols), NaN where a spectrum is zero and has no direction.
    """
    with np.errstate(invalid="ignore"):
        u = predicted / np.linalg.norm(predicted, axis=0)
        v = truth / np.linalg.norm(truth, axis=0)
    apart, along = np.linalg.norm(u - v, axis=0), np.linalg.norm(u + v, axis=0)
    return np.asarray(np.degrees(2 * np.arctan2(apart, along)))


def ssim_map(predicted: Pixels, truth: Pixels, valid: Valid) -> Pixels:
    """Structural similarity around each pixel, with statistics of valid pixels only.

    Wang et al., "Image quality assessment: from error visibility to structural similarity",
    2004, equation 13: a Gaussian window of 11 x 11 px and sigma 1.5, K1 = 0.01, K2 = 0.03. The
    window's weights are shared out among its valid pixels (normalized convolution); the image is
    mirrored at its edges. Fully valid, the mean equals that of torchmetrics.

    Args:
        predicted: (bands, rows, cols), in parts of the value range.
        truth: as ``predicted``.
        valid: (rows, cols).

    Returns:
        (bands, rows, cols), 0 where no pixel of the window is valid.
    """
    weight = _smooth(valid.astype(np.float64))
    seen = np.maximum(weight, np.finfo(np.float64).tiny)
    similarity = np.empty(predicted.shape)
    for band in range(len(predicted)):
        x, y = np.where(valid, predicted[band], 0.0), np.where(valid, truth[band], 0.0)
        x_mean, y_mean = _smooth(x) / seen, _smooth(y) / seen
        x_variance = np.maximum(_smooth(x * x) / seen - x_mean * x_mean, 0)
        y_variance = np.maximum(_smooth(y * y) / seen - y_mean * y_mean, 0)
        covariance = _smooth(x * y) / seen - x_mean * y_mean
        c1, c2 = SSIM_K1**2, SSIM_K2**2
        similarity[band] = ((2 * x_mean * y_mean + c1) * (2 * covariance + c2)) / (
            (x_mean**2 + y_mean**2 + c1) * (x_variance + y_variance + c2)
        )
    return np.where(weight > 0, similarity, 0.0)


def _smooth(layer: Pixels) -> Pixels:
    # scipy's "mirror" does not repeat the edge pixel: it is what torch calls "reflect".
    return np.asarray(
        gaussian_filter(layer, SSIM_SIGMA, mode="mirror", radius=SSIM_RADIUS), np.float64
    )
