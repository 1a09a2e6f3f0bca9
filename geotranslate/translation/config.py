"""How a network learns: every setting of a training run, with its default and its reason.

Nothing heavy is imported here: the command line makes its flags from these fields.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from geotranslate.choices import (
    NORM_OF_MODEL,
    Augment,
    Compile,
    DiscriminatorNorm,
    GanLoss,
    GeneratorKind,
    Judge,
    ModelName,
    Norm,
    Precision,
    Upsample,
)
from geotranslate.errors import SettingError
from geotranslate.translation.settings import Settings

BATCH_OF_MODEL: dict[ModelName, int] = {"pix2pix": 4, "cyclegan": 1}
"""Crops an update, where the user names no number."""

LARGEST_CROP = 256
"""Side in pixels of a crop of larger chips, where the user names none."""

WITHOUT_EFFECT = frozenset(
    {
        *("device", "devices", "nodes", "workers", "cache_gb", "compile", "save_memory"),
        *("samples_every", "keep_checkpoints", "checkpoint_minutes"),
    }
)
"""Settings that a run may be continued with another value of: they do not change what it learns.

Another device, or compiling, changes the last bits, and that is what one wants when a run moves to
another machine.
"""

BUILT_IN = frozenset(
    {
        *("model", "generator", "width", "blocks", "depth", "norm", "upsample"),
        *("discriminator_width", "discriminator_norm", "discriminator_layers"),
    }
)
"""Settings that decide which weights there are, so that no run can go on with other ones."""

DECIDED = frozenset({"crop", "precision"})
"""Settings left open that a run decides by its chips and its device before it begins."""

ONLY_FOR: dict[str, tuple[str, str]] = {
    "blocks": ("generator", "resnet"),
    "depth": ("generator", "unet"),
    "judge": ("model", "pix2pix"),
    "l1": ("model", "pix2pix"),
    "pool_l2": ("model", "pix2pix"),
    "cycle": ("model", "cyclegan"),
    "identity": ("model", "cyclegan"),
    "identity_bands": ("model", "cyclegan"),
    "image_pool": ("model", "cyclegan"),
}
"""Settings that only some runs have: their name, and the setting that decides with its value."""


def _by_model(table: dict[ModelName, Any]) -> Any:
    return Field(default_factory=lambda settings: table[settings["model"]])


def _tenth_of_updates(settings: dict[str, Any]) -> int:
    """A tenth; in short runs more, since figures and pictures take longer than some updates."""
    updates: int = settings["updates"]
    return min(updates, max(20, min(1000, updates // 10)))


class TrainConfig(Settings):
    """How one model learns. The flags of ``geotranslate train`` have the same names."""

    model: ModelName = "pix2pix"
    """Way of learning: pix2pix from pairs, cyclegan from two heaps without pairs."""

    generator: GeneratorKind = "resnet"
    """Architecture: resnet has an exact halo below 100 px, unet sees further and is quicker."""

    width: int = Field(64, ge=1)
    """Channels of the first layers; the others follow from it."""

    blocks: int = Field(9, ge=1)
    """Residual blocks of a resnet; 6 do for crops of 128 px."""

    depth: int = Field(8, ge=5, le=8)
    """Halvings of a unet: sides must be multiples of 2**depth."""

    norm: Norm = _by_model(NORM_OF_MODEL)
    """In the generator: batch keeps the level of the data, renorm does so from batches of 1 to 4,
    channel looks at one pixel alone, none at nothing, instance, the papers', at one window; unset,
    batch for pix2pix and instance for cyclegan."""

    upsample: Upsample = "transposed"
    """How a generator doubles: transposed convolution, or resize and convolve."""

    discriminator_width: int = Field(64, ge=1)
    """Channels of the discriminator's first layer."""

    discriminator_norm: DiscriminatorNorm = "spectral"
    """In the discriminator: spectral sees absolute colour and stays in balance."""

    discriminator_layers: int = Field(3, ge=1, le=5)
    """Halvings of the discriminator: it judges patches of 16, 34, 70, 142 or 286 px."""

    updates: int = Field(20_000, ge=1)
    """Steps of the generator's optimizer."""

    batch: int = Field(default_factory=lambda settings: BATCH_OF_MODEL[settings["model"]], ge=1)
    """Crops an update, of all devices together; unset, 4 for pix2pix and 1 for cyclegan."""

    accumulate: int = Field(1, ge=1)
    """Gradient accumulation: equal parts in which an update's crops are computed, one after the
    other, so that larger ones fit into memory; batch statistics are those of each part."""

    crop: int | None = Field(None, ge=1)
    """Side of the crops in pixels; unset, that of the chips up to 256."""

    augment: Augment = "d4"
    """How crops are varied: d4 turns and mirrors them; none keeps them as they lie, which a network
    needs to learn from where the sun and the radar look."""

    learning_rate: float = Field(2e-4, gt=0)
    """Of Adam, with momenta 0.5 and 0.999."""

    decay_from: float = Field(0.5, ge=0, le=1)
    """Share of the updates after which the rate goes to zero in a straight line."""

    average_over: float = Field(1 / 12, ge=0, le=1)
    """Share of the updates that the averaged weights look back over; 0 takes the last ones."""

    gan_loss: GanLoss = "lsgan"
    """What the discriminator is asked: least squares, or binary cross-entropy."""

    judge: Judge = "detail"
    """pix2pix: what the discriminator sees of a translation: its detail on the coarse colours of
    the truth, or the whole image."""

    l1: float = Field(5.0, ge=0)
    """pix2pix: weight of the mean distance to the truth."""

    pool_l2: float = Field(60.0, ge=0)
    """pix2pix: weight of the squared distance of 8 x 8 px means: forgives pairs some pixels off."""

    cycle: float = Field(10.0, ge=0)
    """cyclegan: weight of the way there and back."""

    identity: float = Field(0.5, ge=0)
    """cyclegan: weight of leaving the target's own images alone, in parts of --cycle."""

    identity_bands: str | None = None
    """cyclegan: bands that both sides share, as A1=B1,A2=B2 by number, where counts differ."""

    image_pool: int = Field(50, ge=0)
    """cyclegan: translated images kept for the discriminators."""

    checkpoint_every: int = Field(default_factory=_tenth_of_updates, ge=1)
    """Updates from one checkpoint, with its figures, to the next; unset, a tenth of all, but 20 to
    1000."""

    checkpoint_minutes: float = Field(10.0, ge=0)
    """Minutes from one checkpoint to the next, where the updates take that long; without figures,
    and 0 for none."""

    keep_checkpoints: int = Field(2, ge=1)
    """Newest checkpoints that stay, beside that of the best update."""

    samples_every: int = Field(default_factory=_tenth_of_updates, ge=1)
    """Updates from one picture in samples/ to the next; unset, as with checkpoints."""

    kid_features: str | None = None
    """safetensors file of the network whose features KID compares for images of B; unset, one with
    random weights."""

    init_from: str | None = None
    """Model whose weights the generators begin with: a bundle, a run, or a ResNet generator's .pth
    file of the papers' PyTorch code."""

    attribution: str = ""
    """Whom the data is owed to and under which licence; goes into the model."""

    seed: int = Field(0, ge=0)
    """Of all that is random: same seed, same result."""

    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1, mps."""

    devices: int = Field(1, ge=-1)
    """GPUs of each machine that learn together, -1 for all; on the CPU, processes."""

    nodes: int = Field(1, ge=1)
    """Machines that learn together."""

    precision: Precision = "auto"
    """Arithmetic of the convolutions: auto is bf16 where the hardware has it."""

    compile: Compile = "auto"
    """Whether the networks are compiled first: auto does it on a CPU with AMX where it pays within
    the run. It takes minutes, and makes updates about a fifth shorter there."""

    save_memory: bool = False
    """Gradient checkpointing: compute the generators' layers a second time instead of keeping what
    lies between them: half the memory, for larger crops, and one more forward pass; what is learned
    stays the same."""

    cache_gb: float | None = Field(None, ge=0)
    """Memory that chips, once read, may fill, in 10**9 bytes; unset, a quarter of what is free."""

    workers: int | None = Field(None, ge=0)
    """Processes that read chips ahead; unset, 4 beside a GPU whose chips do not fit into memory."""

    @model_validator(mode="after")
    def _refuse_uneven_parts(self) -> Self:
        if self.batch % self.accumulate:
            divisors = [each for each in range(1, self.batch + 1) if self.batch % each == 0]
            raise SettingError(
                f"accumulate is {self.accumulate}, but {self.batch} crops an update cannot be "
                f"taken in {self.accumulate} equal parts. Choose an accumulate of "
                f"{' or '.join(map(str, divisors))}, or another batch."
            )
        return self

    @model_validator(mode="after")
    def _refuse_settings_without_use(self) -> Self:
        for name in self.model_fields_set & ONLY_FOR.keys():
            decider, needed = ONLY_FOR[name]
            chosen = getattr(self, decider)
            if chosen != needed:
                raise SettingError(
                    f"{name} is a setting of {decider} {needed}, and the {decider} is {chosen}, "
                    f"which would not heed it. Leave out {name}, or choose {decider} {needed}."
                )
        return self

    def settings(self) -> dict[str, Any]:
        """The settings that this run has, as JSON values; those left open are missing."""
        values = self.model_dump(mode="json", exclude_none=True)
        return {
            name: value
            for name, value in values.items()
            if name not in ONLY_FOR or getattr(self, ONLY_FOR[name][0]) == ONLY_FOR[name][1]
        }
