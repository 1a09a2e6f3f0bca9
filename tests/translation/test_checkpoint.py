import pytest
import torch

from geotranslate.errors import OutputError
from geotranslate.translation.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint

resource = pytest.importorskip("resource", reason="limits of a process, which Windows has not")


def save(run, update, best=0, keep=2):
    state = {"update": update, "w": torch.ones(9)}
    return save_checkpoint(run, update, state, best=best, keep=keep)


@pytest.mark.parametrize(
    ("keep", "kept"), [(1, [50, 20]), (2, [50, 40, 20]), (9, [*range(50, 0, -10)])]
)
def test_the_newest_and_the_best_are_kept(tmp_path, keep, kept):
    for update in (10, 20, 30, 40, 50):
        save(tmp_path, update, best=min(update, 20), keep=keep)
    assert [update for update, _ in list_checkpoints(tmp_path)] == kept
    assert load_checkpoint(tmp_path)["update"] == 50


def test_a_run_without_checkpoints_starts_at_the_beginning(tmp_path):
    assert load_checkpoint(tmp_path) is None


def test_a_checkpoint_that_was_cut_off_is_passed_over(tmp_path, caplog):
    save(tmp_path, 10)
    newest = save(tmp_path, 20)
    newest.write_bytes(newest.read_bytes()[:-100])
    assert load_checkpoint(tmp_path)["update"] == 10
    assert "000000020.pt cannot be read" in caplog.text


class Harm:
    def __reduce__(self):
        return print, ("harm done",)


def test_nothing_in_a_checkpoint_is_executed(tmp_path, capsys):
    torch.save({"update": 10, "harm": Harm()}, save(tmp_path, 10))
    with pytest.raises(OutputError, match=r"none of the 1 checkpoints.*--overwrite"):
        load_checkpoint(tmp_path)
    assert "harm done" not in capsys.readouterr().out


def test_a_full_disk_is_one_sentence_and_leaves_the_earlier_checkpoint(tmp_path):
    save(tmp_path, 10)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"Make room and run the same command again"):
            save_checkpoint(tmp_path, 20, {"w": torch.ones(9000)}, best=0, keep=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000000010.pt"]
    assert load_checkpoint(tmp_path)["update"] == 10
