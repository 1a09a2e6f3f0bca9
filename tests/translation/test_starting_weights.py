"""A run may begin with what another model has learned: ours, or a file of the papers' code."""

import logging
import pickle

import pytest
import torch
from torch import nn

from geotranslate.errors import BundleError, SettingError
from geotranslate.networks.build import GeneratorSpec, build_generator
from geotranslate.raster.domain import Band, Domain
from geotranslate.translation.starting_weights import begin_with, read_start
from geotranslate.translation.train import resume, train
from tests.translation.runs import config, finish

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH, BLOCKS = 4, 2


class PapersBlock(nn.Module):
    """A residual block as the papers' code lays it out."""

    def __init__(self, width, norm, dropout, *, bias):
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3, bias=bias),
            norm(width),
            nn.ReLU(),
            *([nn.Dropout(0.5)] if dropout else []),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3, bias=bias),
            norm(width),
        )

    def forward(self, x):
        return x + self.conv_block(x)


class PapersGenerator(nn.Module):
    """The generator as one sequence of torch's own layers, in the papers' order."""

    def __init__(self, bands_in, bands_out, norm, *, dropout=False):
        super().__init__()
        bias = norm is nn.InstanceNorm2d
        w = WIDTH
        self.model = nn.Sequential(
            nn.ReflectionPad2d(3),
            nn.Conv2d(bands_in, w, 7, bias=bias),
            norm(w),
            nn.ReLU(),
            nn.Conv2d(w, 2 * w, 3, 2, 1, bias=bias),
            norm(2 * w),
            nn.ReLU(),
            nn.Conv2d(2 * w, 4 * w, 3, 2, 1, bias=bias),
            norm(4 * w),
            nn.ReLU(),
            *(PapersBlock(4 * w, norm, dropout, bias=bias) for _ in range(BLOCKS)),
            nn.ConvTranspose2d(4 * w, 2 * w, 3, 2, 1, 1, bias=bias),
            norm(2 * w),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * w, w, 3, 2, 1, 1, bias=bias),
            norm(w),
            nn.ReLU(),
            nn.ReflectionPad2d(3),
            nn.Conv2d(w, bands_out, 7),
            nn.Tanh(),
        )

    def forward(self, x):
        return self.model(x)


NORMS = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d}


def papers(bands_in, bands_out, norm, seed=0, **words):
    torch.manual_seed(seed)
    network = PapersGenerator(bands_in, bands_out, NORMS[norm], **words)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
    return network.eval()


def domain(*names):
    return Domain(
        bands=tuple(Band(name=name) for name in names),
        dtype="uint8",
        resolution_m=(10.0, 10.0),
        low=(0.0,) * len(names),
        high=(255.0,) * len(names),
    )


def fresh(norm, bands_in, bands_out, seed=9):
    torch.manual_seed(seed)
    spec = GeneratorSpec(width=WIDTH, blocks=BLOCKS, norm=norm)
    return spec, build_generator(spec, bands_in, bands_out).eval()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dropout", [False, True])
def test_a_generator_of_the_papers_code_translates_here_as_there(tmp_path, norm, dropout):
    theirs = papers(3, 3, norm, dropout=dropout)
    torch.save(theirs.state_dict(), tmp_path / "latest_net_G.pth")
    spec, ours = fresh(norm, 3, 3)
    start = read_start(tmp_path / "latest_net_G.pth", spec)
    begin_with(start, {"g_ab": ours}, domain("R", "G", "B"), domain("r", "g", "b"))
    x = torch.randn(2, 3, 32, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)


def test_both_directions_of_a_cyclegan_lie_side_by_side(tmp_path):
    there, back = papers(3, 3, "instance", 1), papers(3, 3, "instance", 2)
    torch.save(there.state_dict(), tmp_path / "latest_net_G_A.pth")
    torch.save(back.state_dict(), tmp_path / "latest_net_G_B.pth")
    spec, g_ab = fresh("instance", 3, 3)
    _, g_ba = fresh("instance", 3, 3)
    start = read_start(tmp_path / "latest_net_G_A.pth", spec)
    begin_with(start, {"g_ab": g_ab, "g_ba": g_ba}, domain("R", "G", "B"), domain("r", "g", "b"))
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(g_ab(x), there(x), rtol=0, atol=1e-5)
        torch.testing.assert_close(g_ba(x), back(x), rtol=0, atol=1e-5)


def test_bands_that_both_have_keep_what_was_learned_and_the_rest_is_said(tmp_path, caplog):
    theirs = papers(3, 2, "batch")
    torch.save(theirs.state_dict(), tmp_path / "net_G.pth")
    spec, ours = fresh("batch", 2, 3)
    untouched = ours.head[1].weight[2].clone()
    with caplog.at_level(logging.WARNING):
        start = read_start(tmp_path / "net_G.pth", spec)
        begin_with(start, {"g_ab": ours}, domain("VV", "VH"), domain("R", "G", "B"))
    theirs_first, ours_first = theirs.model[1].weight, ours.body.layers[1].weight
    assert torch.equal(ours_first, theirs_first[:, :2])
    last = theirs.model[-2]
    assert torch.equal(ours.head[1].weight[:2], last.weight)
    assert torch.equal(ours.head[1].weight[2], untouched)
    assert "what g_ab learned of band 3 is dropped" in caplog.text
    assert "g_ab gives B, which it has not learned yet" in caplog.text


def test_another_architecture_is_refused_with_the_flags_that_mend_it(tmp_path):
    torch.save(papers(3, 3, "instance").state_dict(), tmp_path / "net_G.pth")
    with pytest.raises(SettingError, match=r"Say --blocks 2 --norm instance, or begin without"):
        read_start(tmp_path / "net_G.pth", GeneratorSpec(width=WIDTH, blocks=9, norm="batch"))


class Malicious:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize(
    ("content", "mend"),
    [
        (pickle.dumps(Malicious(), protocol=2), "cannot be read as weights"),
        (b"", "cannot be read as weights"),
        ({"fc.weight": torch.ones(2, 2)}, "it holds fc.weight"),
        ([1, 2], "something else than the weights"),
    ],
)
def test_other_files_are_refused_and_nothing_in_them_is_executed(tmp_path, capsys, content, mend):
    path = tmp_path / "net_G.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(BundleError, match=mend):
        read_start(path, GeneratorSpec(width=WIDTH, blocks=BLOCKS))
    assert "executed" not in capsys.readouterr().out


def test_a_run_begins_with_another_runs_weights_and_goes_on_when_that_is_gone(
    make_chips, tmp_path, caplog
):
    chips, first, second = make_chips(), tmp_path / "first", tmp_path / "second"
    finish(train(chips, first, config(updates=2)))
    steps = train(chips, second, config(init_from=str(first), updates=4, checkpoint_every=1))
    warm = next(steps)
    steps.close()
    cold = next(train(chips, tmp_path / "cold", config(updates=4, checkpoint_every=1)))
    assert warm.update == cold.update == 1
    assert warm.losses["l1"] != cold.losses["l1"]
    (first / "model").rename(tmp_path / "elsewhere")
    assert finish(resume(second)).update == 4
