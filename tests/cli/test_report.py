import json

import pytest
import tomli_w
from click.testing import CliRunner

from geotranslate.cli.report import report
from geotranslate.errors import SettingError
from geotranslate.translation.config import TrainConfig


@pytest.fixture
def folder(tmp_path):
    """A run that has just begun."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps({"chips": "chips", "work": {}, "changes": []}))
    (folder / "config.toml").write_text(tomli_w.dumps(TrainConfig().settings()))
    return folder


def run(*words):
    return CliRunner().invoke(report, [str(word) for word in words])


def test_it_writes_the_page_and_says_where(folder, tmp_path):
    done = run(folder)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{folder / 'report.html'} holds the report. Open it in a browser.\n"
    elsewhere = tmp_path / "page.html"
    assert json.loads(run(folder, "-o", elsewhere, "--json").stdout) == {"report": str(elsewhere)}
    assert elsewhere.read_text() == (folder / "report.html").read_text()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    assert isinstance(run(tmp_path).exception, SettingError)
