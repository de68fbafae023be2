"""Watching a model learn: one picture in the notebook, redrawn in place."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tutorial_lib.layers import seeded
from tutorial_lib.plots.curves import draw_curves, series
from tutorial_lib.plots.grids import draw_grid, to_uint8
from tutorial_lib.plots.style import NotebookFigure, new_figure, styled

if TYPE_CHECKING:
    from tutorial_lib.training.loop import Progress

Look = Tensor | Mapping[str, Tensor] | NotebookFigure


class LiveView:
    """A training callback that shows samples and loss curves while a method trains.

        train(method, data, run, callbacks=[LiveView()])

    It redraws every `interval` seconds, but less often where that would take more than a fifth of the time, and at the last
    step; with interval 0 at every record. Without a notebook nothing is displayed; `figure` holds the latest drawing all the
    same. Watching changes nothing: the random state and the modes of the networks are put back.

    `draw(method) -> Tensor (N, 3, H, W) or a dict of such rows` says what to look at; by default 32 samples of
    always the same codes. A figure that it returns is shown as it is, without the curves. `averaged` looks at the
    averaged weights, which lag behind in a short run.
    """

    def __init__(
        self,
        draw: Callable[[torch.nn.Module], Look] | None = None,
        *,
        averaged: bool = False,
        interval: float = 2.0,
        seed: int = 0,
        columns: int = 8,
    ):
        self.draw = draw or self._samples
        self.averaged, self.interval, self.seed, self.columns = averaged, interval, seed, columns
        self.figure: NotebookFigure | None = None
        self._log: list[dict] = []
        self._due = -math.inf
        self._handle = None

    def __call__(self, progress: Progress) -> None:
        self._log.append({"step": progress.step, **{name: float(loss) for name, loss in progress.losses.items()}})
        started, last = time.monotonic(), progress.step >= progress.steps
        if started < self._due and not last:
            return
        look = self._look(progress)
        self.figure = look if isinstance(look, NotebookFigure) else self._compose(look, progress)
        self._show(self.figure.png(small=last))
        now = time.monotonic()
        self._due = now + max(self.interval, 4 * (now - started)) if self.interval else now

    def _look(self, progress: Progress) -> Look:
        from tutorial_lib.training.loop import averaged_weights

        averaged = progress.averaged if self.averaged else {}
        with seeded(self.seed), torch.no_grad(), averaged_weights(progress.method, averaged) as method:
            return self.draw(method)

    def _samples(self, method: torch.nn.Module) -> Tensor:
        return method.sample(4 * self.columns, generator=torch.Generator().manual_seed(self.seed))[1]

    @styled
    def _compose(self, pictures: Tensor | Mapping[str, Tensor], progress: Progress) -> NotebookFigure:
        if isinstance(pictures, Mapping):
            rows, labels = [to_uint8(row) for row in pictures.values()], list(pictures)
        else:
            flat = to_uint8(pictures)
            if len(flat) > self.columns:  # the last row is filled up with white
                empty = np.full((-len(flat) % self.columns, *flat.shape[1:]), 255, dtype=np.uint8)
                flat = np.concatenate([flat, empty])
            rows, labels = [flat[i : i + self.columns] for i in range(0, len(flat), self.columns)], None
        steps, values = series(self._log)

        sheet_width = 0.62 * len(rows[0]) + 0.07 * max((len(label) for label in labels or []), default=0)
        sheet_height = 0.62 * len(rows) + 0.35
        n_columns = 2 if len(values) > 3 else 1
        n_rows = math.ceil(len(values) / n_columns)
        if 0.85 * n_rows <= 2 * sheet_height:  # curves to the right of the pictures, or below if they are many
            figure = new_figure(sheet_width + 1.75 * n_columns, max(sheet_height, 0.85 * n_rows))
            first, second = figure.subfigures(1, 2, width_ratios=[sheet_width, 1.75 * n_columns])
        else:
            n_columns = max(2, int(sheet_width / 1.75))
            n_rows = math.ceil(len(values) / n_columns)
            figure = new_figure(sheet_width, sheet_height + 0.85 * n_rows)
            first, second = figure.subfigures(2, 1, height_ratios=[sheet_height, 0.85 * n_rows])
        axes = first.add_subplot()
        draw_grid(axes, rows, labels)
        axes.set_title(f"step {progress.step:,} of {progress.steps:,}")
        panels = second.subplots(n_rows, n_columns, squeeze=False)
        draw_curves(panels.flat, steps, values, until=progress.steps)
        return figure

    def _show(self, png: bytes) -> None:
        try:
            from IPython import get_ipython
            from IPython.display import Image, display
        except ImportError:
            return
        if get_ipython() is None:
            return
        if self._handle is None:
            self._handle = display(Image(png), display_id=True)
        else:
            self._handle.update(Image(png))
