"""One panel for every method: factors with their controls beside a picture that follows them.

    panel = Panel({"shape": {"p": IntSlider(max=5, description="p")}}, draw=lambda state: picture_of(state["p"]))
    panel                # in a notebook: the panel
    panel.set(p=3)       # anywhere, with or without a front end: the controls move and the picture is drawn
    panel.png            # what the panel shows now

A drag never queues, because the picture is drawn inside the handler of its change: the front end has one message of a
control under way, merges the later ones, and sends what they come to when the kernel is idle again. It is idle when the
picture is drawn.
"""

import html
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO

import ipywidgets as widgets
import numpy as np
from PIL import Image
from torch import Tensor
from traitlets import TraitError

State = dict[str, object]
Controls = Mapping[str, widgets.ValueWidget]

LETTERS = "ABCDEFGH"
_THUMBNAIL = 52  # pixels of the page
_CSS = """
<style>
.tl-panel { gap: 20px; align-items: flex-start; flex-flow: row wrap; padding: 6px 4px 10px; }
.tl-panel, .tl-panel .widget-box { overflow: visible; }
.tl-panel .widget-box, .tl-panel .widget-inline-hbox { max-width: 100%; }
.tl-picture { border-radius: 6px; box-shadow: 0 0 0 1px var(--jp-border-color2, #ccc); }
.tl-crisp { image-rendering: pixelated; }
.tl-left, .tl-strip, .tl-head { gap: 6px; }
.tl-row, .tl-head { flex-flow: row wrap; }
.tl-tile .widget-html-content { font-size: 10px; line-height: 14px; text-align: center; white-space: nowrap;
  color: var(--jp-ui-font-color2, #666); }
.tl-factor { border-top: 1px solid var(--jp-border-color2, #ddd); padding: 4px 0; }
.tl-name .widget-html-content { font-weight: 600; color: var(--jp-ui-font-color1, #222); line-height: 22px; }
.tl-panel .widget-toggle-buttons { margin: 0; }
.tl-panel .widget-toggle-buttons > div { display: flex; flex-wrap: wrap; gap: 6px; }
.tl-panel .widget-toggle-button { padding: 0; margin: 0; height: 22px; line-height: 22px; border-radius: 3px; }
.tl-panel .widget-toggle-button.mod-active
  { background: var(--jp-brand-color1, #1976d2); color: var(--jp-ui-inverse-font-color1, #fff); box-shadow: none; }
.tl-panel .widget-inline-hbox .widget-label { color: var(--jp-ui-font-color1, #333); }
.tl-wide .widget-readout { min-width: 122px; }
.tl-panel .noUi-handle:focus-visible, .tl-panel button:focus-visible
  { outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: 1px; }
.tl-panel [disabled] { opacity: 0.55; }
.tl-error .widget-html-content { color: var(--jp-error-color1, #b00020); line-height: 18px; white-space: normal; }
</style>
"""


def to_uint8(picture: Tensor) -> np.ndarray:
    """A picture (3, H, W) in [-1, 1] as uint8 (H, W, 3), or a mask (1, H, W) in [0, 1] as uint8 (H, W)."""
    if len(picture) == 3:
        picture = (picture + 1) / 2
    return (picture.float() * 255).round().clamp(0, 255).byte().permute(1, 2, 0).squeeze(-1).cpu().numpy()


def png(picture: np.ndarray, size: int | None = None) -> bytes:
    """PNG bytes of a uint8 picture (H, W, 3) or (H, W), made smaller first if it is larger than `size`."""
    if picture.dtype != np.uint8 or not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)):
        raise ValueError(f"a picture is uint8 (H, W, 3) or (H, W), got {picture.dtype} {picture.shape}")
    image, file = Image.fromarray(picture), BytesIO()
    if size is not None and max(image.size) > size:
        image.thumbnail((size, size))
    image.save(file, "PNG", compress_level=1)  # at 256 x 256 a third faster than torchvision, a tenth of level 0's bytes
    return file.getvalue()


class Panel:
    """Controls in groups (the factors), a picture, and pictures to take factors from.

    factors: factor -> name -> control; a control's `description` is its label and must be there. options: further
    controls (locks) by name. draw(state) returns the picture, uint8 (H, W, 3), where state maps the names of all
    controls to their values; with a `strip` (captions) it returns (picture, further pictures). follow(state)
    returns the values that others decide; their controls move and cannot be moved. sample(seed) returns the values
    of a random picture: the panel starts with the first, shuffle shows the next, and the first `sources` of them
    are its pictures A, B, C …, from which any factor can be taken.

    pictures: shown above the factors, under the letters A, B, C …, for a method that reads real pictures; upload(data) takes
    the bytes of an image file that the user brings, and returns the picture that takes the last one's place.

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
            for name, control in controls.items():
                if name in self.controls:
                    raise ValueError(f"two controls are called {name!r}")
                if not control.description:
                    raise ValueError(f"control {name!r} has no description, which is its label")
                control.tooltip = control.tooltip or f"{factor}: {control.description}"
                self.controls[name] = control
        self._draw, self._follow, self._sample = draw, follow or (lambda state: {}), sample
        self._captions, self._held = tuple(strip), False
        self._accept, self.thumbnails = upload, [_image(png(picture, 64), _THUMBNAIL) for picture in pictures]
        self._seed = max(1, sources)
        self.sources = [sample(seed) for seed in range(sources)] if sample else []
        for name, value in (sample(0) if sample else {}).items():
            self._put(name, value)
        self._follow_others()
        self._first = self.state
        self.error = ""

        picture, *behind = self._pictures(self.state)
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
                style={"button_width": f"{_THUMBNAIL}px"},
            )
            for factor in (self.factors if self.sources else ())
        }
        self._mark_sources()
        self._line = widgets.HTML().add_class("tl-error")
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
        return {caption: bytes(image.value) for caption, image in self._strip.items()}

    # ---- what changes it

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

    def upload(self, data: bytes) -> None:
        """Put a picture of the user's own in the last one's place. What is no picture is one line of `error`."""
        if self._accept is None:
            raise ValueError("this panel takes no uploads")
        try:
            picture = self._accept(data)
        except (ValueError, OSError) as error:
            self._say(error)
            return
        self.thumbnails[-1].value = png(picture, 64)
        self._update()

    def _put(self, name: str, value) -> None:
        control = self.controls[name]
        try:
            control.value = value
        except TraitError as error:
            raise ValueError(f"{name} cannot be {value!r}: {error}") from error
        if control.value != value:  # a slider clips silently
            raise ValueError(f"{name} must lie in {control.min} … {control.max}, got {value!r}")

    def _changed(self, change) -> None:
        if not self._held:
            self._update()

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

    def _update(self) -> None:
        try:
            self._follow_others()
            self._mark_sources()
            picture, *behind = map(png, self._pictures(self.state))
        except Exception as error:  # whatever a method raises must not end the panel
            self._say(error)
        else:
            self._say(None)
            self._image.value = picture
            for image, value in zip(self._strip.values(), behind, strict=True):
                image.value = value

    def _say(self, error: Exception | None) -> None:
        what = (str(error).splitlines() or [""])[0]
        self.error = "" if error is None else f"{type(error).__name__}: {what}"
        self._line.value = f'<span role="alert">{html.escape(self.error)}</span>' if self.error else ""

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
        drawn = self._draw(state)
        return [drawn[0], *drawn[1]] if self._captions else [drawn]

    # ---- what it looks like

    def _laid_out(self, factors: Mapping[str, Controls], options: Controls, width: int) -> widgets.Widget:
        strip = [_tile(image, caption) for caption, image in self._strip.items()]
        self._line.layout.min_height = "22px"
        left = widgets.VBox([self._image, widgets.HBox(strip).add_class("tl-strip"), self._line]).add_class("tl-left")
        left.layout.width = f"{width + 4}px"
        groups = [self._sources_row()] if self.sources else []
        groups += [self._pictures_row()] if self.thumbnails else []
        groups += [self._factor(factor, controls) for factor, controls in factors.items()]
        buttons = [_button("Reset", "undo", self.reset, "back to the first picture")]
        if self._sample is not None:
            buttons.append(_button("Shuffle", "random", self.shuffle, "a random picture"))
        foot = widgets.HBox([*options.values(), *buttons], layout={"flex_flow": "row wrap"}).add_class("tl-factor")
        right = widgets.VBox([*groups, foot], layout={"width": "480px", "max_width": "100%"})
        return widgets.HBox([widgets.HTML(_CSS, layout={"display": "none"}), left, right]).add_class("tl-panel")

    def _sources_row(self) -> widgets.Widget:
        tiles = []
        for source in self.sources:
            picture = self._pictures(self.state | source)[0]
            tiles.append(_image(png(picture, 64), _THUMBNAIL))
        return widgets.HBox([_name("take from"), *tiles], layout={"margin": "0 0 5px"}).add_class("tl-head")

    def _pictures_row(self) -> widgets.Widget:
        tiles = [_tile(image, letter) for letter, image in zip(LETTERS, self.thumbnails, strict=False)]
        if self._accept is not None:
            chooser = widgets.FileUpload(
                accept="image/*", description="yours", tooltip="a picture of your own, in the last place"
            )
            chooser.layout.width = "104px"
            chooser.observe(lambda change: [self.upload(bytes(file.content)) for file in change.new], "value")
            tiles.append(chooser)
        return widgets.HBox([_name("pictures"), *tiles], layout={"margin": "0 0 5px"}).add_class("tl-head")

    def _factor(self, factor: str, controls: Controls) -> widgets.Widget:
        head = widgets.HBox([_name(factor), *([self.takers[factor]] if self.takers else [])]).add_class("tl-head")
        rows, narrow = [], []
        for control in controls.values():
            small = isinstance(control, widgets.FloatSlider)
            if isinstance(control, widgets.ToggleButtons):
                control.style.button_width = "38px"
            control.style.description_width = "58px" if small else "74px"
            control.layout.width = "232px" if small else "470px"
            (narrow if small else rows).append(control if small else control.add_class("tl-wide"))
        rows += [widgets.HBox(narrow[i : i + 2]).add_class("tl-row") for i in range(0, len(narrow), 2)]
        return widgets.VBox([head, *rows]).add_class("tl-factor")

    def _repr_mimebundle_(self, include=None, exclude=None, **kwargs) -> dict[str, object]:
        """The live panel, and its picture for places where nothing lives (a notebook read on the web)."""
        bundle = self.widget._repr_mimebundle_(include=include, exclude=exclude, **kwargs)
        return {**bundle, "image/png": b64encode(self.png).decode(), "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"Panel({', '.join(f'{name}={value!r}' for name, value in self.state.items())})"


def _same(source: State, state: State, names: Sequence[str]) -> bool:
    return all(abs(source[name] - state[name]) < 1e-6 for name in names)  # a slider of the front end rounds once more


def _image(value: bytes, width: int, crisp: bool = False) -> widgets.Image:
    size = f"{width}px"
    layout = {"width": size, "height": size, "margin": "0", "flex": "0 0 auto"}
    # No tooltip: in the front end an Image that has one cannot be shown (ipywidgets 8.1).
    image = widgets.Image(value=value, format="png", layout=layout)
    image.add_class("tl-picture")
    return image.add_class("tl-crisp") if crisp else image


def _tile(image: widgets.Image, caption: str) -> widgets.Widget:
    text = widgets.HTML(caption, layout={"width": image.layout.width, "margin": "0"})
    return widgets.VBox([image, text]).add_class("tl-tile")


def _name(text: str) -> widgets.Widget:
    return widgets.HTML(text, layout={"width": "90px", "margin": "0"}).add_class("tl-name")


def _button(text: str, icon: str, action: Callable[[], None], tooltip: str) -> widgets.Button:
    button = widgets.Button(description=text, icon=icon, tooltip=tooltip, layout={"width": "auto"})
    button.on_click(lambda _: action())
    return button
