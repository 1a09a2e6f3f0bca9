"""The names a user can choose from, for help texts, checks and messages.

Nothing heavy is imported here, so that ``--help`` answers at once. Where a name stands for a torch
object, the table that holds it is tested to have exactly these names.
"""

from typing import Literal, get_args

GeneratorKind = Literal["resnet", "unet"]
GENERATORS: tuple[GeneratorKind, ...] = get_args(GeneratorKind)

Norm = Literal["batch", "renorm", "channel", "none", "instance"]
NORMS: tuple[Norm, ...] = get_args(Norm)

DiscriminatorNorm = Literal["spectral", "instance", "none"]
DISCRIMINATOR_NORMS: tuple[DiscriminatorNorm, ...] = get_args(DiscriminatorNorm)

Upsample = Literal["transposed", "resize"]
UPSAMPLES: tuple[Upsample, ...] = get_args(Upsample)

ModelName = Literal["pix2pix", "cyclegan"]
MODELS: tuple[ModelName, ...] = get_args(ModelName)

NORM_OF_MODEL: dict[ModelName, Norm] = {"pix2pix": "batch", "cyclegan": "instance"}
"""The generator's norm where the user names none."""

GanLoss = Literal["lsgan", "bce"]
GAN_LOSSES: tuple[GanLoss, ...] = get_args(GanLoss)

Judge = Literal["detail", "image"]

Augment = Literal["d4", "none"]
AUGMENTS: tuple[Augment, ...] = get_args(Augment)

Precision = Literal["auto", "float32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

Compile = Literal["auto", "on", "off"]

LayoutName = Literal["pix2pix", "cyclegan", "train_a_b"]
LAYOUTS: tuple[LayoutName, ...] = get_args(LayoutName)

MosaicBlend = Literal["feather", "first", "last", "mean", "median", "best"]
MOSAIC_BLENDS: tuple[MosaicBlend, ...] = get_args(MosaicBlend)

MosaicMatch = Literal["gain", "histogram"]
MOSAIC_MATCHES: tuple[MosaicMatch, ...] = get_args(MosaicMatch)

Snap = Literal["first", "multiples", "bounds"]
SNAPS: tuple[Snap, ...] = get_args(Snap)

Direction = Literal["ab", "ba"]

PredictBlend = Literal["crop", "hann", "linear"]
PREDICT_BLENDS: tuple[PredictBlend, ...] = get_args(PredictBlend)

Seams = Literal["tile", "scene", "dense"]
SEAMS: tuple[Seams, ...] = get_args(Seams)

Turns = Literal[1, 2, 4, 8]

PredictDecibel = Literal["power", "amplitude", "none"]

Resampling = Literal["nearest", "bilinear", "cubic", "average"]
RESAMPLINGS: tuple[Resampling, ...] = get_args(Resampling)

Decibel = Literal["power", "amplitude"]
DECIBELS: tuple[Decibel, ...] = get_args(Decibel)
