import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from geotranslate.errors import SettingError
from geotranslate.translation import guards
from geotranslate.translation.config import TrainConfig
from geotranslate.translation.log import read_log
from geotranslate.translation.tensorboard import watched
from geotranslate.translation.train import train

CONFIG = TrainConfig(
    **{"width": 4, "blocks": 1, "discriminator_width": 4, "crop": 24, "updates": 8},
    **{"checkpoint_every": 2, "samples_every": 4, "device": "cpu", "precision": "float32"},
)


@pytest.fixture
def chips(make_raster, tmp_path):
    random = np.random.default_rng(0)
    for number in range(3):
        for folder, count in (("images", 1), ("images2", 3)):
            pixels = random.integers(0, 255, (count, 24, 24)).astype("uint8")
            make_raster(f"chips/{folder}/{number:09d}.tif", pixels, col=40 * number)
    return tmp_path / "chips"


def test_events_hold_what_the_log_holds_also_of_a_run_that_was_resumed(
    chips, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    monkeypatch.setattr(guards, "CLIPPED", -1.0)  # so that a guard fires at the first checkpoint
    steps = watched(train(chips, run, CONFIG), run)
    while next(steps).update < 6:
        pass
    steps.close()
    (run / "checkpoints" / "000000006.pt").unlink()  # so update 6 is done, and written, twice
    assert [step.update for step in watched(train(chips, run, CONFIG), run)] == [5, 6, 7, 8]

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    rows = read_log(run / "log.csv")
    names = [name for name in rows[0] if name != "update"]
    assert set(events.Tags()["scalars"]) == set(names)
    assert {"learning_rate", "d", "l1", "psnr8"} <= set(names)
    for name in names:
        written = events.Scalars(name)
        assert [event.step for event in written] == [row["update"] for row in rows] == [2, 4, 6, 8]
        values = [row[name] for row in rows]
        assert [event.value for event in written] == pytest.approx(values, rel=1e-5)
    pictures = events.Images("samples")
    assert [picture.step for picture in pictures] == [4, 8]
    assert pictures[0].encoded_image_string.startswith(b"\x89PNG")
    (said,) = events.Tensors("guards/clipping/text_summary")
    assert said.step == 2


def test_without_tensorboard_nothing_is_begun_and_the_mend_is_said(chips, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run = tmp_path / "run"
    with pytest.raises(SettingError, match=r'pip install "geotranslate\[tensorboard\]"'):
        next(watched(train(chips, run, CONFIG), run))
    assert not run.exists()
