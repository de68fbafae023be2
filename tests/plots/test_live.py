from io import BytesIO
from types import SimpleNamespace

import IPython
import IPython.display
import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image
from torch import nn

from tutorial_lib.plots.live import LiveView
from tutorial_lib.plots.style import NotebookFigure


class Painter(nn.Module):
    """A method that samples flat pictures of one grey, and draws random numbers doing so."""

    def __init__(self, grey: float = -1.0):
        super().__init__()
        self.generator = nn.Dropout()
        self.generator.grey = grey

    def sample(self, n, *, tied=False, generator=None):
        torch.rand(3)
        self.seen_mode = self.generator.training
        return None, torch.full((n, 3, 8, 8), self.generator.grey)


def progress(step: int = 10, steps: int = 100, method: nn.Module | None = None, **losses: float) -> SimpleNamespace:
    average = nn.Identity()
    average.grey = 1.0
    method = method or Painter()
    return SimpleNamespace(
        step=step, steps=steps, losses=losses or {"critic": 1.0}, method=method, averaged={"generator": average}
    )


def first_pixel(view: LiveView) -> int:
    return int(view.figure.subfigs[0].axes[0].images[0].get_array()[0, 0, 0])


def test_samples_and_a_curve_for_each_loss_are_drawn():
    view = LiveView(interval=0)
    view(progress(10, critic=1.0, generator=2.0))
    view(progress(20, critic=0.5, generator=1.0))
    sheet, curves = view.figure.subfigs
    assert sheet.axes[0].get_title(loc="left") == "step 20 of 100"
    assert [axes.get_title(loc="left") for axes in curves.axes] == ["critic", "generator"]
    assert curves.axes[0].lines[0].get_xydata().tolist() == [[10, 1.0], [20, 0.5]]


@pytest.mark.parametrize(("n", "columns", "rows"), [(3, 3, 1), (8, 8, 1), (12, 8, 2), (16, 8, 2)])
def test_all_pictures_are_drawn_the_last_row_filled_up_with_white(n, columns, rows):
    view = LiveView(lambda method: torch.full((n, 3, 8, 8), -1.0), interval=0)
    view(progress())
    sheet = view.figure.subfigs[0].axes[0].images[0].get_array()
    black = (sheet == 0).all(-1).sum()
    assert black == n * 64
    assert sheet.shape[:2] == (rows * 8 + rows - 1, columns * 8 + columns - 1)


def test_watching_changes_neither_random_state_nor_mode_nor_weights():
    method = Painter()
    trained, before = method.generator, torch.get_rng_state()
    LiveView(interval=0, averaged=True)(progress(method=method))
    assert torch.equal(torch.get_rng_state(), before)
    assert method.training
    assert method.generator is trained
    assert trained.training


def test_a_figure_is_shown_as_it_is():
    drawn = []

    def draw(method):
        drawn.append(NotebookFigure())
        return drawn[-1]

    view = LiveView(draw, interval=0)
    for step in (10, 20):
        view(progress(step))
        assert view.figure is drawn[-1]
    assert len(drawn) == 2


def test_networks_are_looked_at_in_eval_mode():
    method = Painter()
    LiveView(interval=0)(progress(method=method))
    assert method.seen_mode is False


@pytest.mark.parametrize(("averaged", "pixel"), [(False, 0), (True, 255)])
def test_averaged_weights_are_shown_on_request(averaged, pixel):
    view = LiveView(interval=0, averaged=averaged)
    view(progress())
    assert first_pixel(view) == pixel


def test_a_failing_drawing_puts_the_method_back():
    method = Painter()
    trained = method.generator

    def fail(method):
        raise RuntimeError("no picture")

    with pytest.raises(RuntimeError, match="no picture"):
        LiveView(fail, averaged=True)(progress(method=method))
    assert method.generator is trained
    assert method.training


def test_own_rows_are_labelled():
    view = LiveView(lambda method: {"parent": torch.zeros(4, 3, 8, 8), "mask": torch.zeros(4, 1, 8, 8)}, interval=0)
    view(progress())
    assert [t.get_text() for t in view.figure.subfigs[0].axes[0].get_yticklabels()] == ["parent", "mask"]


def test_drawing_waits_for_its_interval_but_never_misses_the_last_step():
    view = LiveView(interval=1e9)
    view(progress(10))
    first = view.figure
    view(progress(20))
    assert view.figure is first
    view(progress(100))
    assert view.figure is not first


def test_watching_takes_at_most_a_fifth_of_the_time(monkeypatch):
    now, looked = [0.0], []
    monkeypatch.setattr("tutorial_lib.plots.live.time", SimpleNamespace(monotonic=lambda: now[0]))

    def slow(method):
        looked.append(now[0])
        now[0] += 3.0
        return torch.zeros(4, 3, 8, 8)

    view = LiveView(slow, interval=2)
    for step in range(1, 61):
        now[0] += 1.0  # a step
        view(progress(step))
    assert looked == [1.0, 16.0, 31.0, 46.0, 61.0]


def test_only_the_last_drawing_is_made_small(monkeypatch):
    shown = []
    monkeypatch.setattr(LiveView, "_show", lambda self, png: shown.append(Image.open(BytesIO(png)).mode))
    view = LiveView(lambda method: torch.rand(8, 3, 8, 8) * 2 - 1, interval=0)
    for step in (50, 100):
        view(progress(step))
    assert shown == ["RGBA", "P"]


def test_one_display_is_updated_in_place(monkeypatch):
    shown, updated = [], []
    handle = SimpleNamespace(update=updated.append)
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr(IPython.display, "display", lambda image, display_id: shown.append(image) or handle)
    view = LiveView(interval=0)
    for step in (10, 20, 100):
        view(progress(step))
    assert (len(shown), len(updated)) == (1, 2)
    assert updated[-1].data == view.figure.png()


def test_without_a_notebook_nothing_is_printed(capsys):
    LiveView(interval=0)(progress())
    assert capsys.readouterr().out == ""


def test_no_figure_is_left_open():
    before = plt.get_fignums()
    LiveView(interval=0)(progress())
    assert plt.get_fignums() == before


def test_many_losses_stand_below_the_pictures():
    view = LiveView(interval=0)
    view(progress(10, **{f"loss_{i}": 1.0 for i in range(18)}))
    sheet, curves = view.figure.subfigs
    assert len([axes for axes in curves.axes if axes.get_visible()]) == 18
    assert curves.bbox.y1 <= sheet.bbox.y0 + 1
