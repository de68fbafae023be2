import json

import numpy as np
import pytest

from tutorial_lib.plots.curves import metric_curves, read_log, series

FLAT = [{"step": s, "images": 8 * s, "seconds": 0.1 * s, "critic": 1.0 / s, "generator": 2.0} for s in (50, 100, 150)]


def test_every_loss_has_a_panel_with_its_curve():
    figure = metric_curves(FLAT, title="A run")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["critic", "generator"]
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[50, 1 / 50], [100, 1 / 100], [150, 1 / 150]]


def test_bookkeeping_is_drawn_only_when_asked_for():
    assert list(series(FLAT)[1]) == ["critic", "generator"]
    assert list(series(FLAT, ["seconds"])[1]) == ["seconds"]


def test_nested_losses_are_found():
    assert series([{"step": 1, "losses": {"critic": 3.0}}])[1]["critic"].tolist() == [3.0]


def test_a_value_missing_from_a_line_leaves_a_gap():
    values = series([*FLAT, {"step": 200, "critic": 0.1}])[1]["generator"]
    assert np.isnan(values).tolist() == [False, False, False, True]


def test_an_unknown_key_is_named_with_what_there_is():
    with pytest.raises(ValueError, match=r"no \['fid'\]; it has critic, generator"):
        metric_curves(FLAT, ["fid"])


@pytest.mark.parametrize("metrics", [[], [{"critic": 1.0}]])
def test_lines_need_a_step(metrics):
    with pytest.raises(ValueError, match="lines with a 'step'"):
        metric_curves(metrics)


def test_a_log_is_read_line_by_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in FLAT))
    assert read_log(tmp_path / "metrics.jsonl") == FLAT
