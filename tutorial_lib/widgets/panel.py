"""One panel for every method: factors with their controls beside a picture that follows them.

    panel = Panel({"shape": {"p": IntSlider(max=5, description="p")}}, draw=lambda state: picture_of(state["p"]))
    panel                # in a notebook: the panel
    panel.set(p=3)       # anywhere, with or without a front end: the controls move and the picture is drawn
    panel.png            # what the panel shows now
    panel.undo()         # back before the last move

A drag never queues, because the picture is drawn inside the handler of its change: the front end has one message of a
control under way, merges the later ones, and sends what they come to when the kernel is idle again. It is idle when the
picture is drawn. A front end may have several threads of the kernel (subshells) answer its controls: moves wait for each other.

Half of PyTorch's threads draw: the page, which often shares the machine, has as much to do as the picture. With a thread for
each of two cores, every layer waited for the one that the page held up.
"""

import asyncio
import html
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from io import BytesIO
from pathlib import Path
from threading import RLock
from time import monotonic, sleep

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from traitlets import TraitError

State = dict[str, object]
Controls = Mapping[str, widgets.ValueWidget]

LETTERS = "ABCDEFGH"
STEPS_BACK = 100  # how many moves can be undone
_COLUMNS, _GAP = 398, 4  # pixels for a row of pictures or of buttons, and between two of them
_LABELS = "90px"  # as in panel.css
_FRAME = 1 / 60  # seconds: the page shows the picture before it is given the strip, which would hold that up as long
APART = 1 / 40  # seconds at least between two pictures of a drag: more keep the page so busy that it shows the last one late
_BEHIND = 1 / 5  # seconds that the strip may stay behind a picture that is dragged
_DRAWING = RLock()
_SLIDERS = (
    widgets.FloatSlider,
    widgets.FloatLogSlider,
    widgets.FloatRangeSlider,
    widgets.IntSlider,
    widgets.IntRangeSlider,
    widgets.SelectionSlider,
)


def to_uint8(picture: Tensor) -> np.ndarray:
    """A picture (3, H, W) in [-1, 1] as uint8 (H, W, 3), or a mask (1, H, W) in [0, 1] as uint8 (H, W)."""
    if len(picture) == 3:
        picture = (picture + 1) / 2
    return (picture.float() * 255).round().clamp(0, 255).byte().permute(1, 2, 0).squeeze(-1).cpu().numpy()


def check_eval(model: nn.Module | None) -> None:
    """Raise ValueError for a model in training mode, whose pictures are others, and change its statistics."""
    if model is not None and model.training:
        raise ValueError("the model is in training mode; call model.eval() first")


def png(picture: np.ndarray, size: int | None = None) -> bytes:
    """PNG bytes of a uint8 picture (H, W, 3) or (H, W), made smaller first if it is larger than `size`."""
    if picture.dtype != np.uint8 or not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)):
        raise ValueError(f"a picture is uint8 (H, W, 3) or (H, W), got {picture.dtype} {picture.shape}")
    image, file = Image.fromarray(picture), BytesIO()
    if size is not None and max(image.size) > size:
        image.thumbnail((size, size))
    image.save(file, "PNG", compress_level=1)  # at 256 x 256 a third faster than torchvision, a tenth of level 0's bytes
    return file.getvalue()


def spell_z(state: State, names: Sequence[str], dim: int) -> str:
    """Python that builds z (1, dim) of the values of the controls z1, z2, … and, beyond them, of the number `rest`."""
    values = f"[{', '.join(f'{state[name]:g}' for name in names)}]"
    places = [int(name[1:]) - 1 for name in names]
    if len(names) == dim:
        return f"z = torch.tensor([{values}], dtype=torch.float32)"
    where = f":{len(places)}" if places == list(range(len(places))) else str(places)
    drawn = f"z = torch.randn(1, {dim}, generator=torch.Generator().manual_seed({state['rest']}))"
    return f"{drawn}\nz[0, {where}] = torch.tensor({values})" if names else drawn


@contextmanager
def _half_the_threads() -> Iterator[None]:
    """PyTorch computes with half of its threads in here, and with at least one. One panel at a time: the number is global."""
    with _DRAWING:
        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, threads // 2))
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _one_at_a_time(move: Callable) -> Callable:
    """A method of Panel that waits until what another thread does to the panel is done."""

    @wraps(move)
    def alone(self, *args, **kwargs):
        with self._lock:
            return move(self, *args, **kwargs)

    return alone


class Panel:
    """Controls in groups (the factors), a picture, and pictures to take factors from.

    factors: factor -> name -> control; a control's `description` is its label and must be there. options: further
    controls (locks) by name. draw(state) returns the picture, uint8 (H, W, 3), where state maps the names of all
    controls to their values; with a `strip` (captions) it returns (picture, further pictures). follow(state)
    returns the values that others decide; their controls move and cannot be moved. sample(seed) returns the values
    of a random picture: the panel starts with the first, shuffle shows the next, and the first `sources` of them
    are its pictures A, B, C …, from which any factor can be taken.

    code(state) returns the Python that makes the picture with the library; the panel shows it for copying. model: what must be
    in eval mode whenever a picture is drawn or read. name: what the picture is called in a file name and to a screen reader.

    pictures: shown above the factors, under the letters A, B, C …, for a method that reads real pictures. A factor's first
    control, if it is ToggleButtons, says which of them (0, 1, 2 …) it comes from; its FloatSliders and FloatRangeSliders say
    what is done to that. upload(data) takes the bytes of an image file that the user brings, and returns the picture that takes
    the last one's place. Until there is one that place is empty: the last of `pictures` is not shown, and choosing it is one
    line of `error`.

    `state`, `png` and `strip` (caption -> PNG bytes) are what the panel shows; `error` says why the last change
    could not be drawn ("" if it was) while the picture before it stays. Only the very first picture raises.
    """

    def __init__(
        self,
        factors: Mapping[str, Controls],
        draw: Callable[[State], object],
        *,
        options: Controls | None = None,
        follow: Callable[[State], State] | None = None,
        sample: Callable[[int], State] | None = None,
        sources: int = 6,
        strip: Sequence[str] = (),
        pictures: Sequence[np.ndarray] = (),
        upload: Callable[[bytes], np.ndarray] | None = None,
        code: Callable[[State], str] | None = None,
        model: nn.Module | None = None,
        name: str = "picture",
        width: int = 320,
    ):
        if not 0 <= sources <= len(LETTERS):
            raise ValueError(f"sources must be 0 … {len(LETTERS)}, got {sources}")
        if len(pictures) > len(LETTERS):
            raise ValueError(f"pictures must be at most {len(LETTERS)}, got {len(pictures)}")
        if upload is not None and not len(pictures):
            raise ValueError("an upload takes the last picture's place: give pictures")
        self.factors = {factor: tuple(controls) for factor, controls in factors.items()}
        self.controls: dict[str, widgets.ValueWidget] = {}
        for factor, controls in {**factors, "options": options or {}}.items():
            for key, control in controls.items():
                if key in self.controls:
                    raise ValueError(f"two controls are called {key!r}")
                if not control.description:
                    raise ValueError(f"control {key!r} has no description, which is its label")
                control.tooltip = control.tooltip or f"{factor}: {control.description}"
                self.controls[key] = control
        self._draw, self._follow, self._sample = draw, follow or (lambda state: {}), sample
        self._captions, self._held, self._lock = tuple(strip), False, RLock()
        choices = [len(c.options) for c in self.controls.values() if isinstance(c, widgets.ToggleButtons)]
        self._places = max([*choices, len(pictures), sources if sample else 0])  # in a row of pictures or buttons
        self._column = min(52, (_COLUMNS + _GAP) // max(1, self._places) - _GAP)
        self._model = model
        self._accept, self.thumbnails = upload, [_image(png(picture, 64), self._column) for picture in pictures]
        self._empty = self.takes_uploads  # the upload's place
        self._spell, self.name = code, name
        self._seed = max(1, sources)
        self.sources = [sample(seed) for seed in range(sources)] if sample else []
        for key, value in (sample(0) if sample else {}).items():
            self._put(key, value)
        self._follow_others()
        self._first = self._now = self.state
        self._history: deque[State] = deque(maxlen=STEPS_BACK)
        self._moving: widgets.Widget | None = None
        self._behind: tuple[float, list[np.ndarray], State] | None = None  # since when, and what
        self._shown = -APART  # when the last picture was
        self.error = ""

        picture, *behind = self._pictures(self.state)
        self._drawn = self.state
        crisp = width % picture.shape[1] == 0
        self._image = _image(png(picture), width, crisp)
        self._strip = {
            caption: _image(png(tile), (width - 6 * (len(behind) - 1)) // len(behind))
            for caption, tile in zip(self._captions, behind, strict=True)
        }
        self.takers = {
            factor: widgets.ToggleButtons(
                options=[(LETTERS[i], i) for i in range(len(self.sources))],
                value=None,
                tooltips=[f"take the {factor} of picture {LETTERS[i]}" for i in range(len(self.sources))],
                style={"button_width": f"{self._column}px"},
            )
            for factor in (self.factors if self.sources else ())
        }
        self._mark_sources()
        self._line = widgets.HTML().add_class("tl-error")
        self._undo = _button("Undo", "undo", self.undo, "back before the last move")
        self._undo.disabled = True
        self._text = widgets.HTML()
        self.widget = self._laid_out(factors, options or {}, width)
        for control in self.controls.values():
            control.observe(self._changed, "value")
        for factor, taker in self.takers.items():
            taker.observe(lambda change, factor=factor: self._take(factor, change.new), "value")

    # ---- what it shows

    @property
    def state(self) -> State:
        """The values of all controls by name."""
        return {name: control.value for name, control in self.controls.items()}

    @property
    def png(self) -> bytes:
        return bytes(self._image.value)

    @property
    def strip(self) -> dict[str, bytes]:
        self._catch_up()
        return {caption: bytes(image.value) for caption, image in self._strip.items()}

    @property
    def code(self) -> str:
        """The Python that makes the picture that is shown. ValueError for a panel that was given none."""
        if self._spell is None:
            raise ValueError("this panel has no `code`")
        return self._spell(self._drawn)

    @property
    def takes_uploads(self) -> bool:
        """Whether `upload` has a place for a picture of the user's own."""
        return self._accept is not None

    def save(self, path: str | Path) -> Path:
        """Write the picture as a PNG file of the size it was drawn in; returns its path. The button lets the browser do it."""
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise ValueError(f"path must end in .png, got {path}")
        path.write_bytes(self.png)
        return path

    # ---- what changes it

    @_one_at_a_time
    def set(self, **values) -> None:
        """Move controls and draw once. ValueError, and nothing moves, if a control is unknown or refuses its value."""
        if unknown := values.keys() - self.controls.keys():
            raise ValueError(f"no control {sorted(unknown)}; there are {list(self.controls)}")
        before = self.state
        with self._holding():
            try:
                for name, value in values.items():
                    self._put(name, value)
            except ValueError:
                for name, value in before.items():
                    self.controls[name].value = value
                raise
        self._update()

    def reset(self) -> None:
        """The state that the panel started with."""
        self.set(**self._first)

    @_one_at_a_time
    def undo(self) -> None:
        """Back to where the panel was before the last control moved, however many steps it took; at the start, nothing."""
        if self._history:
            with self._holding():
                for name, value in self._history.pop().items():
                    self._put(name, value)
            self._update(is_move=False)

    @_one_at_a_time
    def shuffle(self) -> None:
        """The next random picture; options stay."""
        if self._sample is None:
            raise ValueError("this panel has no `sample` to shuffle with")
        self.set(**self._sample(self._seed))
        self._seed += 1

    def take(self, factor: str, source: int) -> None:
        """Set the controls of one factor to those of picture A (0), B (1), …"""
        if factor not in self.factors:
            raise ValueError(f"no factor {factor!r}; there are {list(self.factors)}")
        if not 0 <= source < len(self.sources):
            raise ValueError(f"source must be 0 … {len(self.sources) - 1}, got {source}")
        self.set(**{name: self.sources[source][name] for name in self.factors[factor]})

    @_one_at_a_time
    def take_all(self, place: int) -> None:
        """All factors from picture A (0), B (1), …, in one move: what a click on the picture does. What is done to them goes
        back to what it was at the start."""
        n = len(self.sources or self.thumbnails)
        if not 0 <= place < n:
            raise ValueError(f"place must be 0 … {n - 1}, got {place}")
        if self.sources:
            with self._holding():  # of two pictures that share a factor, this one's letter
                for taker in self.takers.values():
                    taker.value = place
            chosen = {name: self.sources[place][name] for names in self.factors.values() for name in names}
        else:
            chosen = {}
            for names in self.factors.values():
                if not isinstance(self.controls[names[0]], widgets.ToggleButtons):
                    continue
                for name in names:
                    if isinstance(self.controls[name], widgets.ToggleButtons):
                        chosen[name] = place
                    elif isinstance(self.controls[name], widgets.FloatSlider | widgets.FloatRangeSlider):
                        chosen[name] = self._first[name]
        self.set(**chosen)

    @_one_at_a_time
    def upload(self, data: bytes) -> None:
        """Put a picture of the user's own in the last one's place. What is no picture is one line of `error`."""
        if not self.takes_uploads:
            raise ValueError("this panel takes no uploads")
        try:
            check_eval(self._model)
            small = png(self._accept(data), 64)
        except Exception as error:  # as with what is drawn
            self._say(error)
            return
        self.thumbnails[-1].value = small
        self._empty = False
        self._mark_empty()
        self._update(is_move=False)  # what is read off another picture is no move that could be taken back

    def _put(self, name: str, value) -> None:
        control = self.controls[name]
        value = tuple(value) if isinstance(value, list) else value  # a range's two ends
        try:
            control.value = value
        except TraitError as error:
            raise ValueError(f"{name} cannot be {value!r}: {error}") from error
        if control.value != value:  # a slider clips silently
            raise ValueError(f"{name} must lie in {control.min} … {control.max}, got {value!r}")

    @_one_at_a_time
    def _changed(self, change) -> None:
        # A slider of the front end rounds the value that it is given, and says so.
        if not self._held and not _same(self._now, self.state, self.controls):
            self._update(change.owner)

    @_one_at_a_time
    def _take(self, factor: str, source: int | None) -> None:
        if not self._held and source is not None:
            self.take(factor, source)

    @contextmanager
    def _holding(self) -> Iterator[None]:
        """Changes in here do not draw."""
        held, self._held = self._held, True
        try:
            yield
        finally:
            self._held = held

    def _update(self, moved: widgets.Widget | None = None, *, is_move: bool = True) -> None:
        """Draw the state. moved: the control that the user has moved, if it was one; is_move: Undo can take this back."""
        try:
            self._follow_others()
            self._remember(moved, is_move)
            self._mark_sources()
            if self._empty_chosen():
                raise ValueError(f"{LETTERS[len(self.thumbnails) - 1]} is the place of a picture of yours: upload one first")
            check_eval(self._model)
            pictures = self._pictures(self.state)
            picture = png(pictures[0])
            if len(pictures) != 1 + len(self._strip):
                raise ValueError(f"the strip has {len(self._strip)} places, got {len(pictures) - 1} pictures for it")
        except Exception as error:  # whatever a method raises must not end the panel
            self._say(error)
        else:
            self._say(None)
            sleep(max(0, self._shown + APART - monotonic()) if moved is not None else 0)
            self._image.value, self._drawn = picture, self.state
            self._shown = monotonic()
            self._show_behind(pictures[1:], wait=moved is not None)

    def _show_behind(self, pictures: list[np.ndarray], *, wait: bool) -> None:
        """The strip, and the code, which come a frame after the picture. wait: for the kernel to be free, and not at all if a
        newer picture comes first, unless those on the page have been behind for long."""
        began = monotonic() if self._behind is None else self._behind[0]
        self._behind = behind = (began, pictures, self.state)
        loop = _running_loop() if wait and monotonic() - began < _BEHIND else None
        if loop is None:
            sleep(_FRAME if pictures else 0)
            self._catch_up(behind)
        else:
            loop.call_later(_FRAME, self._catch_up, behind)

    @_one_at_a_time
    def _catch_up(self, behind: tuple[float, list[np.ndarray], State] | None = None) -> None:
        """Show the strip and the code that are still to be shown; if they are given, those and no newer ones."""
        if self._behind is None or (behind is not None and behind is not self._behind):
            return
        (_, pictures, state), self._behind = self._behind, None
        try:
            for image, picture in zip(self._strip.values(), pictures, strict=True):
                image.value = png(picture)
            self._show_code(state)
        except Exception as error:  # nobody else would hear of it
            self._say(error)

    def _remember(self, moved: widgets.Widget | None, is_move: bool) -> None:
        if not is_move:
            self._now, self._moving = self.state, None
        elif not _same(self._now, self.state, self.controls):
            if moved is None or moved is not self._moving:  # a drag is one move
                self._history.append(self._now)
            self._now, self._moving = self.state, moved if isinstance(moved, _SLIDERS) else None
        self._undo.disabled = not self._history

    def _show_code(self, state: State) -> None:
        if self._spell is not None and self._code_box.layout.display != "none":
            self._text.value = f"<pre>{html.escape(self._spell(state))}</pre>"

    def _say(self, error: Exception | None) -> None:
        what = (str(error).splitlines() or [""])[0]
        self.error = "" if error is None else f"{type(error).__name__}: {what}"
        self._line.value = f'<span role="alert">{html.escape(self.error)}</span>' if self.error else ""

    def _empty_chosen(self) -> bool:
        """Whether anything is to come from the upload's place while that is empty."""
        if not self._empty:
            return False
        last = len(self.thumbnails) - 1
        toggles = (control for control in self.controls.values() if isinstance(control, widgets.ToggleButtons))
        return any((LETTERS[last], last) in control.options and control.value == last for control in toggles)

    def _mark_empty(self) -> None:
        """The upload's tile as it is: empty, and then a click uploads, or not."""
        tile, place = self._tiles[-1], len(self._tiles) - 1
        (tile.add_class if self._empty else tile.remove_class)("tl-empty")
        tile.children[-1].tooltip = "upload a picture of your own" if self._empty else _taking_all(place)

    def _follow_others(self) -> None:
        followers = self._follow(self.state)
        with self._holding():
            for name, control in self.controls.items():
                if name in followers:
                    self._put(name, followers[name])
                control.disabled = name in followers

    def _mark_sources(self) -> None:
        state = self.state
        with self._holding():
            for factor, taker in self.takers.items():
                names = self.factors[factor]
                same = [i for i, source in enumerate(self.sources) if _same(source, state, names)]
                if taker.value not in same:
                    taker.value = same[0] if same else None
                taker.disabled = all(self.controls[name].disabled for name in names)

    def _pictures(self, state: State) -> list[np.ndarray]:
        with _half_the_threads():
            drawn = self._draw(state)
        return [drawn[0], *drawn[1]] if self._captions else [drawn]

    # ---- what it looks like

    def _laid_out(self, factors: Mapping[str, Controls], options: Controls, width: int) -> widgets.Widget:
        strip = [_tile(image, caption) for caption, image in self._strip.items()]
        left = widgets.VBox([self._image, *([widgets.HBox(strip).add_class("tl-strip")] if strip else [])])
        left.children += (widgets.HBox(self._buttons()).add_class("tl-tools"), self._line)
        left.layout.width = f"{width + 4}px"
        groups = [self._sources_row()] if self.sources else []
        groups += [self._pictures_row()] if self.thumbnails else []
        groups += [self._factor(factor, controls) for factor, controls in factors.items()]
        if options:
            groups.append(widgets.HBox([_fitted(control) for control in options.values()]).add_class("tl-factor"))
            groups[-1].add_class("tl-options")
        copy = _button("Copy", "copy", lambda: None, "put the code on the clipboard").add_class("tl-copy")
        self._code_box = widgets.VBox([self._text, copy], layout={"display": "none"}).add_class("tl-code")
        columns = [left.add_class("tl-left"), widgets.VBox(groups).add_class("tl-right")]
        return widgets.HBox([_sheet(self.name), *columns, self._code_box]).add_class("tl-panel")

    def _buttons(self) -> list[widgets.Widget]:
        buttons = [self._undo, _button("Reset", "fast-backward", self.reset, "back to the first picture")]
        if self._sample is not None:
            buttons.append(_button("Shuffle", "random", self.shuffle, "a random picture"))
        # The browser has the picture and saves it where the user's files are, which need not be where the kernel's are.
        buttons.append(_button("Save", "download", lambda: None, f"download {self.name}.png").add_class("tl-save"))
        if self._spell is not None:
            shown = widgets.ToggleButton(description="Code", icon="code", tooltip="the Python that makes this picture")
            shown.observe(self._open_code, "value")
            buttons.append(shown)
        return buttons

    @_one_at_a_time
    def _open_code(self, change) -> None:
        self._code_box.layout.display = "" if change.new else "none"
        self._show_code(self._drawn)

    def _sources_row(self) -> widgets.Widget:
        pictures = [self._pictures(self.state | source)[0] for source in self.sources]
        tiles = [self._taking(i, _tile(_image(png(picture, 64), self._column))) for i, picture in enumerate(pictures)]
        return widgets.HBox([_name("take from"), self._row(tiles)]).add_class("tl-head")

    def _pictures_row(self) -> widgets.Widget:
        captions, name = list(LETTERS[: len(self.thumbnails)]), _name("pictures")
        if self.takes_uploads:
            captions[-1] = "yours"
            chooser = widgets.FileUpload(
                accept="image/*", description="Upload", tooltip="a picture of your own, in the last place"
            )

            def chosen(change) -> None:
                for file in change.new:
                    self.upload(bytes(file.content))
                if change.new:
                    chooser.value = ()  # so that the same file, chosen again, is a change again

            chooser.observe(chosen, "value")
            name = widgets.VBox([name.remove_class("tl-name"), chooser.add_class("tl-upload")]).add_class("tl-name")
        pairs = zip(captions, self.thumbnails, strict=True)
        self._tiles = [self._taking(i, _tile(image, caption)) for i, (caption, image) in enumerate(pairs)]
        if self._empty:
            self._mark_empty()
        return widgets.HBox([name, self._row(self._tiles)]).add_class("tl-head")

    def _taking(self, place: int, tile: widgets.Widget) -> widgets.Widget:
        """A tile whose picture is a button: a click takes everything from it."""
        button = widgets.Button(tooltip=_taking_all(place)).add_class("tl-take")
        button.on_click(lambda _: None if "tl-empty" in tile._dom_classes else self.take_all(place))
        tile.children += (button,)
        return tile

    def _row(self, tiles: list[widgets.Widget]) -> widgets.Widget:
        """Tiles above the buttons of the factors, which may be more."""
        empty = [widgets.Box(layout={"width": f"{self._column}px"}) for _ in range(self._places - len(tiles))]
        return widgets.HBox([*tiles, *empty]).add_class("tl-columns")

    def _factor(self, factor: str, controls: Controls) -> widgets.Widget:
        first, *others = controls.values()
        head, rows, narrow = [_name(factor)], [], []
        if self.takers:
            head.append(self.takers[factor])
        elif isinstance(first, widgets.ToggleButtons):
            head.append(_fitted(first, self._column))
        else:
            others.insert(0, first)
        for control in [first, *others] if self.takers else others:
            small = isinstance(control, widgets.FloatSlider)
            (narrow if small else rows).append(_fitted(control, self._column))
        rows += [widgets.Box(narrow).add_class("tl-row")] if narrow else []
        return widgets.VBox([widgets.HBox(head).add_class("tl-head"), *rows]).add_class("tl-factor")

    def _repr_mimebundle_(self, include=None, exclude=None, **kwargs) -> dict[str, object]:
        """The live panel, and its picture for places where nothing lives (a notebook read on the web)."""
        bundle = self.widget._repr_mimebundle_(include=include, exclude=exclude, **kwargs)
        return {**bundle, "image/png": b64encode(self.png).decode(), "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"Panel({', '.join(f'{name}={value!r}' for name, value in self.state.items())})"


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that this thread is in, if it is in one, as a kernel is."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _same(one: State, other: State, names: Iterable[str]) -> bool:
    """Whether two states agree but for the rounding of sliders."""
    pairs = ((one[name], other[name]) for name in names)
    return all(abs(a - b) < 1e-6 if isinstance(a, float) else a == b for a, b in pairs)


def _image(value: bytes, width: int, crisp: bool = False) -> widgets.Image:
    # No tooltip: in the front end an Image that has one cannot be shown (ipywidgets 8.1).
    image = widgets.Image(value=value, format="png", layout={"width": f"{width}px", "height": "auto", "margin": "0"})
    image.add_class("tl-picture")
    return image.add_class("tl-crisp") if crisp else image


def _tile(image: widgets.Image, caption: str = "") -> widgets.Widget:
    width, image.layout.width = image.layout.width, "100%"
    text = [widgets.HTML(html.escape(caption))] if caption else []
    return widgets.VBox([image, *text], layout={"width": width}).add_class("tl-tile")


def _taking_all(place: int) -> str:
    return f"take everything from picture {LETTERS[place]}"


def _name(text: str) -> widgets.Widget:
    return widgets.HTML(html.escape(text)).add_class("tl-name")


def _fitted(control: widgets.Widget, column: int = 0) -> widgets.Widget:
    """A control in the panel's columns."""
    if isinstance(control, widgets.Checkbox):
        return control
    control.style.description_width = _LABELS
    if isinstance(control, widgets.ToggleButtons):
        control.style.button_width = f"{column}px"
        return control
    if isinstance(control, widgets.SelectionSlider):
        control.add_class("tl-named")
    return control.add_class("tl-wide")


def _button(text: str, icon: str, action: Callable[[], None], tooltip: str) -> widgets.Button:
    button = widgets.Button(description=text, icon=icon, tooltip=tooltip, layout={"width": "auto"})
    button.on_click(lambda _: action())
    return button


def _sheet(name: str) -> widgets.Widget:
    """The style sheet, which brings the panel's script along: no other element of an HTML widget runs one reliably."""
    css, script = (Path(__file__).with_name(f"panel.{kind}").read_text("utf-8") for kind in ("css", "js"))
    run = html.escape(f"({script})(this)")
    return widgets.HTML(f'<style data-name="{html.escape(name)}" onload="{run}">{css}</style>', layout={"display": "none"})
