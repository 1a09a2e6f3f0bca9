"""Code in the docs does what it says."""

import re
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from geotranslate.translation.config import TrainConfig
from geotranslate.translation.train import Progress

PAGE = Path(__file__).parents[1] / "docs" / "train.md"
STEPS = [
    Progress(1, 2, {}, {}, 0),
    Progress(2, 2, {"d": 0.5}, {}, 0, {"update": 2, "d": 0.5}),
]


class Keeper:
    """Stands for W&B and for MLflow: notes what it is told."""

    def __init__(self):
        self.settings, self.rows = {}, {}

    @contextmanager
    def init(self, project, config):
        self.settings = config
        yield self

    @contextmanager
    def start_run(self):
        yield

    def log_params(self, settings):
        self.settings = settings

    def log(self, row, step):
        self.rows |= {step: row} if row else {}

    log_metrics = log


@pytest.mark.parametrize("library", ["wandb", "mlflow"])
def test_other_keepers_of_experiments_are_served_as_the_page_says(library, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = (block for block in blocks if f"import {library}" in block)
    lines = [line for line in code.splitlines() if line and not line.startswith("import")]
    assert len(lines) <= 5
    keeper, config = Keeper(), TrainConfig()
    monkeypatch.setitem(sys.modules, library, keeper)
    exec(code, {"train": lambda *_: iter(STEPS), "Path": Path, "config": config})
    assert keeper.rows == {2: {"update": 2, "d": 0.5}}
    assert keeper.settings == config.settings()
