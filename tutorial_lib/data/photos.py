"""Photographs in the layouts they are published in, and a folder of one's own; cropped as FineGAN's public code crops them.

    birds = CUB("~/data", size=128)                       # CUB-200-2011, all 11,788 pictures
    mine = PhotoFolder("~/pictures/cats", size=128)       # images/, and boxes.csv and masks/ if there are any
    batch = mine.batch(range(16))                         # image, box, scene, scene_box; what else is known

*The object's view* (`image`): the square of 1.5 x the longer side of the box around the box's centre, moved and shrunk where it
would leave the picture; the middle square where there is no box. *The background's view* (`scene`): the whole picture, its
short side 76/64 of the size. Of both a random window of the size is taken, flipped or not, anew each time (`augment=False`: the
whole square, and the middle of the scene). Boxes, masks and keypoints follow by torchvision's v2 transforms.

Pictures are decoded and resized once, into a memory-mapped cache (see `cache`).
"""

import csv
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets, tv_tensors
from torchvision.transforms.v2 import functional as F
from torchvision.utils import draw_bounding_boxes, make_grid
from tqdm import tqdm

from tutorial_lib.data.batched import BatchedDataset
from tutorial_lib.data.cache import PictureCache, Row, cached
from tutorial_lib.data.pictures import SMALLEST, check_mode, read_picture

MARGIN = 76 / 64  # what is stored, over what a random window takes of it
CROP = 1.5  # side of the object's view, over the longer side of its box
EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff"}
EXIF_ORIENTATION = 0x0112
Sample = dict[str, Tensor]


@dataclass(frozen=True)
class Photo:
    """One picture of a data set, not read yet."""

    path: Path
    box: tuple[float, float, float, float] | None = None
    """x, y, width, height in pixels, origin at the top left."""
    values: dict[str, Any] = field(default_factory=dict)
    """Labels and other numbers: int, float or nested tuples of the same shape in every picture."""
    keypoints: tuple[tuple[float, float], ...] | None = None
    """x, y in pixels."""
    masks: tuple[Path, ...] = ()
    """Files whose union is the object."""


class Photographs(BatchedDataset):
    """What all photographs have in common; a subclass says which pictures there are (`list_photos`) and which window to take.

    root: the folder that the data lies in, or the one above it. size: of the pictures, in pixels. split: one of `splits`, the
    first if None. augment: random windows and flips, from torch's random numbers. scene: with the background's view, or
    without. partial: take what is there; pictures that are missing or cannot be read are left out, and no number of them is
    expected.

    An item is a dict; a batch has the same names with a leading axis B: image (3, size, size) float in [-1, 1]; box (4,),
    x1 y1 x2 y2 in pixels of the image, in a single item (1, 4); scene and scene_box likewise; and, where the data set has them,
    label int64; mask (1, size, size) float, 0 or 1; keypoints (K, 2) and visible (K,) bool. Box, mask and keypoints are
    tv_tensors. Without published boxes the object is guessed to lie in the middle, half as wide and high as the short side.

    Raises FileNotFoundError for a missing file and ValueError for a wrong number of pictures, a file that cannot be read, or a
    box outside its picture: each names the file, and where to get the data and where to put it.
    """

    stream_size = 64
    name: ClassVar[str]
    about: ClassVar[str]
    """Where to get the data, and where to put it."""
    splits: ClassVar[tuple[str, ...]] = ("all",)
    counts: ClassVar[dict[str, int]] = {}
    """Published number of pictures of each split."""
    label: ClassVar[str] = "label"
    """Which of the values a method learns that learns one."""
    n_classes: ClassVar[int | None] = None
    """How many values it has, where that is published."""
    attributes: ClassVar[dict[str, int]] = {}
    """How many values each attribute has, for a method that learns several."""
    margin: ClassVar[float] = MARGIN
    flips: ClassVar[bool] = True
    upright: ClassVar[bool] = False
    """Turn pictures as their EXIF entry says; published boxes count the pixels as stored."""
    strict: ClassVar[bool] = False
    """Refuse boxes that reach out of their pictures at all."""
    swapped: ClassVar[tuple[int, ...] | None] = None
    """For each keypoint, the one that takes its place in the mirror."""

    def __init__(
        self,
        root: str | Path,
        size: int = 64,
        split: str | None = None,
        augment: bool = True,
        scene: bool = True,
        partial: bool = False,
    ):
        split = self.splits[0] if split is None else split
        if split not in self.splits:
            raise ValueError(f"split must be one of {self.splits}, got {split!r}")
        if size < SMALLEST:
            raise ValueError(f"size must be at least {SMALLEST}, got {size}")
        self.root, self.size, self.split = Path(root).expanduser(), size, split
        self.augment, self.scene, self.partial = augment, scene, partial
        if not self.root.is_dir():
            raise FileNotFoundError(f"there is no folder {self.root}. {self.about}")
        self.photos = self.list_photos()
        self._check_files()

    def list_photos(self) -> list[Photo]:
        """The pictures of the split, in their published order."""
        raise NotImplementedError

    def window(self, photo: Photo, height: int, width: int) -> tuple[int, int, int]:
        """Top, left and side of the square of the picture that `image` shows."""
        if photo.box is None:
            side = min(height, width)
            return (height - side) // 2, (width - side) // 2, side
        return object_window(photo.box, height, width)

    def read_mask(self, photo: Photo) -> Tensor:
        """The object (1, H, W) as 0 and 255: where any of the mask files is lighter than half its lightest value.

        What is transparent in a mask is black.
        """
        pictures = [read_picture(path, upright=self.upright, backdrop="black") for path in photo.masks]
        for path, picture in zip(photo.masks, pictures, strict=True):
            if picture.shape != pictures[0].shape:
                raise ValueError(f"masks {photo.masks[0]} and {path} are of two sizes")
        covers = [picture.amax(0, keepdim=True) for picture in pictures]
        return torch.stack([(cover > cover.max() / 2).byte() * 255 for cover in covers]).amax(0)

    def mirrored(self, values: Sample) -> Sample:
        """Labels of the same picture in the mirror."""
        return values

    # ---- items

    def __len__(self) -> int:
        return len(self.cache) if self.partial else len(self.photos)

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The pictures `indices` together."""
        indices = list(indices)
        if indices and not 0 <= min(indices) <= max(indices) < len(self):
            raise IndexError(f"picture {min(indices)} … {max(indices)} of a set of {len(self)}")
        items = [self._item(index) for index in indices]
        return {name: _stack(name, [item[name] for item in items], self.size) for name in items[0]}

    def prepare(self) -> None:
        """Decode what is not in the cache yet."""
        _ = self.cache

    def read(self, indices: Sequence[int]) -> Tensor:
        """The object's views of a few pictures, (B, 3, size, size) in [-1, 1], decoded now: nothing goes into the cache."""
        photos = [self.photos[index] for index in indices]
        views = [self.crop(photo, self.whole(photo), self.size)["image"] for photo in photos]
        return _stack("image", views, self.size)

    @cached_property
    def cache(self) -> PictureCache:
        """The decoded pictures; built when it is first asked for."""
        stored = round(self.size * self.margin) if self.augment else self.size
        key = {
            "name": self.name, "version": 1, "root": str(self.root.resolve()), "split": self.split, "partial": self.partial,
            "crop": CROP, "image": stored, "scene": int(self.size * MARGIN) if self.scene else 0,
        }  # fmt: skip
        return cached(key, self.fingerprint(), lambda: self._rows(stored), length=len(self.photos))

    def fingerprint(self) -> str:
        """Changes when a picture or what is known of it changes: names, sizes and times of the files, boxes, labels."""
        digest = hashlib.sha256()
        for photo in self.photos:
            for path in (photo.path, *photo.masks):
                about = path.stat()
                name = os.path.relpath(path, self.root)  # one however the folder is spelled
                digest.update(f"{name} {about.st_size} {about.st_mtime_ns}\n".encode())
            digest.update(repr((photo.box, photo.values, photo.keypoints)).encode())
        return digest.hexdigest()

    @property
    def described(self) -> dict[str, str]:
        """What a run writes down of its pictures, to know them again: a digest of the files' names and sizes, and of boxes and
        labels. A copy elsewhere has the same, and masks, which no training sees, may come later."""
        within = os.path.commonpath([photo.path.parent for photo in self.photos])
        digest = hashlib.sha256()
        for photo in self.photos:
            name = os.path.relpath(photo.path, within)
            digest.update(repr((name, photo.path.stat().st_size, photo.box, photo.values, photo.keypoints)).encode())
        return {"files": digest.hexdigest()[:16]}

    def _item(self, index: int) -> Sample:
        cache, size = self.cache, self.size
        values = {name: torch.as_tensor(array[index]) for name, array in cache.values.items()}
        boxes = {name: values.pop(name) for name in ("box", "scene_box") if name in values}
        view = {"image": tv_tensors.Image(torch.from_numpy(cache.picture("image", index)))}
        canvas = tuple(view["image"].shape[-2:])
        view["box"] = tv_tensors.BoundingBoxes(boxes["box"], format="XYXY", canvas_size=canvas)
        if "mask" in cache.pictures:
            view["mask"] = tv_tensors.Mask(torch.from_numpy(cache.picture("mask", index)))
        if "keypoints" in values:
            view["keypoints"] = tv_tensors.KeyPoints(values.pop("keypoints"), canvas_size=canvas)
        flipped = False
        if self.augment:
            view, flipped = vary(view, size, flips=self.flips)
        if flipped:
            values = self.mirrored(values)
            if self.swapped is not None:
                order = torch.tensor(self.swapped)
                view["keypoints"] = tv_tensors.wrap(view["keypoints"][order], like=view["keypoints"])
                values["visible"] = values["visible"][order]
        if "keypoints" in view:
            points = view["keypoints"].as_subclass(Tensor)
            values["visible"] = values["visible"] & ((points >= 0) & (points < size)).all(-1)
        if self.scene:
            scene = tv_tensors.Image(torch.from_numpy(cache.picture("scene", index)))
            box = tv_tensors.BoundingBoxes(boxes["scene_box"], format="XYXY", canvas_size=tuple(scene.shape[-2:]))
            whole = {"scene": scene, "scene_box": box}
            if self.augment:
                whole, _ = vary(whole, size, flips=self.flips)
            else:
                whole = {name: F.center_crop(value, [size, size]) for name, value in whole.items()}
            view |= whole
        return view | values

    # ---- from files to the cache

    def whole(self, photo: Photo) -> Sample:
        """The picture uint8 at its own size, its box (the guessed one if there is none), mask and keypoints as tv_tensors."""
        image = tv_tensors.Image(read_picture(photo.path, upright=self.upright))
        height, width = image.shape[-2:]
        if problem := size_problem(photo, height, width) or box_problem(photo, height, width, strict=self.strict):
            raise ValueError(problem)
        box = photo.box
        if box is None:
            side = min(height, width) / 2
            box = ((width - side) / 2, (height - side) / 2, side, side)
        boxes = tv_tensors.BoundingBoxes([box], format="XYWH", canvas_size=(height, width), dtype=torch.float32)
        boxes = F.convert_bounding_box_format(F.clamp_bounding_boxes(boxes), new_format="XYXY")
        sample = {"image": image, "box": boxes}
        if photo.masks:
            mask = self.read_mask(photo)
            if problem := mask_problem(photo.masks[0], mask.shape[-2:], height, width):
                raise ValueError(problem)
            sample["mask"] = tv_tensors.Mask(mask)
        if photo.keypoints is not None:
            points = torch.tensor(photo.keypoints, dtype=torch.float32)
            sample["keypoints"] = tv_tensors.KeyPoints(points, canvas_size=(height, width))
        return sample

    def crop(self, photo: Photo, sample: Sample, size: int) -> Sample:
        """The object's view of a whole picture, `size` pixels a side."""
        top, left, side = self.window(photo, *sample["image"].shape[-2:])
        return {name: F.resized_crop(value, top, left, side, side, [size, size]) for name, value in sample.items()}

    def _row(self, photo: Photo, stored: int) -> Row:
        sample = self.whole(photo)
        view = self.crop(photo, sample, stored)
        pictures = {name: view[name].numpy() for name in ("image", "mask") if name in view}
        values = {name: np.asarray(value) for name, value in photo.values.items()} | {"box": view["box"][0].numpy()}
        values = {name: v.astype(np.float32) if v.dtype == np.float64 else v for name, v in values.items()}
        if "keypoints" in view:
            values["keypoints"] = view["keypoints"].numpy()
        if self.scene:
            short = [int(self.size * MARGIN)]
            pictures["scene"] = F.resize(sample["image"], short).numpy()
            values["scene_box"] = F.resize(sample["box"], short)[0].numpy()
        return pictures, values

    def _rows(self, stored: int) -> Iterator[Row]:
        """All rows in order; decoding lets go of Python's lock, so threads are enough."""

        def row(photo: Photo) -> Row | None:
            try:
                return self._row(photo, stored)
            except (OSError, ValueError) as error:
                if self.partial:
                    tqdm.write(f"left out: {error}")
                    return None
                raise

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool, tqdm(
            total=len(self.photos), desc=f"reading {self.name} once", unit="picture", disable=len(self.photos) < 100
        ) as bar:  # fmt: skip
            for first in range(0, len(self.photos), 256):
                for done in pool.map(row, self.photos[first : first + 256]):
                    bar.update()
                    if done is not None:
                        yield done

    def known(self) -> tuple[str, ...]:
        """What is known of each picture."""
        first = self.photos[0]
        places = {"box": first.box, "keypoints": first.keypoints, "mask": first.masks or None}
        return (*(name for name, place in places.items() if place is not None), *first.values)

    # ---- what can be wrong

    def _check_files(self) -> None:
        missing = [path for photo in self.photos for path in (photo.path, *photo.masks) if not path.is_file()]
        if missing and not self.partial:
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise FileNotFoundError(f"{missing[0]}{others}: no such file. {self.about}")
        if missing:
            gone = set(missing)
            self.photos = [photo for photo in self.photos if not gone & {photo.path, *photo.masks}]
        if not self.photos:
            left = self.left_out()
            others = f" ({len(left)} files are of kinds that are not read, such as {left[0].name})" if left else ""
            raise FileNotFoundError(f"no pictures in {self.root}{others}. {self.about}")
        self.check_count(len(self.photos))

    def check_count(self, found: int) -> None:
        """Raise ValueError if the split has another number of pictures than published."""
        expected = self.counts.get(self.split)
        if expected is not None and found != expected and not self.partial:
            raise ValueError(
                f"{self.root}: {found} pictures in split {self.split!r} of {self.name}, published are {expected}; "
                f"partial=True takes what is there. {self.about}"
            )

    def problems(self, photos: Sequence[Photo] | None = None) -> list[str]:
        """What is wrong with pictures (this split's unless told), boxes, masks: of each the first thing. All are decoded."""

        def measure(path: Path) -> tuple[int, int]:
            """Height and width."""
            try:
                with Image.open(path) as image:
                    width, height = image.size
                    image.draft("RGB", (64, 64))  # a JPEG file, to its end but only roughly
                    image.load()
                    check_mode(image)
                    # Of a TIFF file Pillow tells the upright size, and has turned it when it is loaded.
                    turned = self.upright and image.getexif().get(EXIF_ORIENTATION, 1) > 4
            except Exception as error:  # Pillow's readers raise whatever their parsers stumble over
                raise ValueError(f"{path} cannot be read: {error}") from error
            return (width, height) if turned else (height, width)

        def look(photo: Photo) -> str | None:
            try:
                height, width = measure(photo.path)
                found = size_problem(photo, height, width) or box_problem(photo, height, width, strict=self.strict)
                masks = (mask_problem(path, measure(path), height, width) for path in photo.masks)
                return found or next(filter(None, masks), None)
            except ValueError as error:
                return str(error)

        photos = self.photos if photos is None else photos
        with ThreadPoolExecutor(8) as pool:
            found = tqdm(pool.map(look, photos), "looking", len(photos), unit="picture", disable=len(photos) < 1000)
            return [problem for problem in found if problem]

    def left_out(self) -> list[Path]:
        """Files among the pictures and masks whose kind is not read; published data sets name their pictures."""
        return []

    def sheet(self, n: int = 12, cell: int = 160) -> Tensor:
        """(3, H, W) uint8: n whole pictures spread over the set with their boxes drawn, under each the object's view."""
        n = min(n, len(self.photos))
        chosen = [self.photos[i * len(self.photos) // n] for i in range(n)]
        wholes, views = [], []
        for photo in chosen:
            sample = self.whole(photo)
            views.append(self.crop(photo, sample, cell)["image"])
            longer = max(sample["image"].shape[-2:])
            size = [max(1, cell * side // longer) for side in sample["image"].shape[-2:]]
            sample = {name: F.resize(sample[name], size) for name in ("image", "box")}
            drawn = draw_bounding_boxes(sample["image"], sample["box"], colors="#ff3b30", width=2)
            height, width = drawn.shape[-2:]
            left, top = (cell - width) // 2, (cell - height) // 2
            wholes.append(F.pad(drawn, [left, top, cell - width - left, cell - height - top], fill=255))
        rows = [torch.stack(part[i : i + 6]) for i in range(0, len(chosen), 6) for part in (wholes, views)]
        blank = torch.full((3, cell, cell), 255, dtype=torch.uint8)
        columns = min(6, len(chosen))
        full = [torch.cat([row, blank.expand(columns - len(row), -1, -1, -1)]) for row in rows]
        return make_grid(torch.cat(full), nrow=columns, pad_value=255)


def object_window(box: tuple[float, float, float, float], height: int, width: int) -> tuple[int, int, int]:
    """Top, left and side of the square of 1.5 x the longer side of a box (x, y, width, height) around its centre.

    It is moved, and shrunk to the short side of the picture, where it would leave the picture: the public code cuts it off
    there and takes a square of what remains.
    """
    x, y, box_width, box_height = box
    side = max(1, min(round(CROP * max(box_width, box_height)), height, width))
    top, left = round(y + box_height / 2 - side / 2), round(x + box_width / 2 - side / 2)
    return min(max(top, 0), height - side), min(max(left, 0), width - side), side


def size_problem(photo: Photo, height: int, width: int) -> str | None:
    """What is wrong with the size of a picture, if anything."""
    if min(height, width) >= SMALLEST:
        return None
    return f"{photo.path} is {width} x {height} pixels, expected at least {SMALLEST} on each side"


def mask_problem(path: Path, size: tuple[int, int], height: int, width: int) -> str | None:
    """What is wrong with the size (height, width) of a mask of a picture of that height and width, if anything."""
    if tuple(size) == (height, width):
        return None
    return f"mask {path} is {size[1]} x {size[0]} pixels, its picture {width} x {height}"


def box_problem(photo: Photo, height: int, width: int, *, strict: bool) -> str | None:
    """What is wrong with the box of a picture of that size, if anything.

    It must have two pixels a side at least (with fewer, its numbers may be shares of the picture), and not reach out of the
    picture by more than a pixel; more than half of it if not `strict`: published annotations do reach out here and there.
    """
    if photo.box is None:
        return None
    box = tv_tensors.BoundingBoxes([photo.box], format="XYWH", canvas_size=(height, width), dtype=torch.float32)
    kept = F.clamp_bounding_boxes(box)
    area, inside = (float(b[0, 2] * b[0, 3]) for b in (box, kept))
    said = f"box of {photo.path}: x, y, width, height = {', '.join(f'{value:g}' for value in photo.box)}"
    if not (photo.box[2] > 0 and photo.box[3] > 0):
        return f"{said} is empty"
    if min(photo.box[2:]) < 2:
        return f"{said} is less than 2 pixels high or wide; are these shares of the picture?"
    if not inside >= area / 2 or (strict and not float((box - kept).abs().max()) <= 1):  # NaN fails too
        return f"{said} reaches out of the picture of {width} x {height} pixels"
    return None


def vary(view: Sample, size: int, *, flips: bool = True) -> tuple[Sample, bool]:
    """A random window of `size` pixels of tv_tensors that belong together, flipped or not; and whether it was flipped."""
    height, width = F.get_size(next(iter(view.values())))
    top, left = (int(torch.randint(extent - size + 1, ())) for extent in (height, width))
    view = {name: F.crop(value, top, left, size, size) for name, value in view.items()}
    flipped = flips and bool(torch.rand(()) < 0.5)
    return ({name: F.horizontal_flip(value) for name, value in view.items()} if flipped else view), flipped


def _stack(name: str, values: list[Tensor], size: int) -> Tensor:
    """One entry of a batch from those of its items."""
    first = values[0]
    plain = [value.as_subclass(Tensor) for value in values]
    if isinstance(first, tv_tensors.BoundingBoxes):
        return tv_tensors.BoundingBoxes(torch.cat(plain), format="XYXY", canvas_size=(size, size))
    stacked = torch.stack(plain)
    if isinstance(first, tv_tensors.Image):
        return stacked.float() / 127.5 - 1
    if isinstance(first, tv_tensors.Mask):
        return tv_tensors.Mask(stacked.float() / 255)
    if isinstance(first, tv_tensors.KeyPoints):
        return tv_tensors.KeyPoints(stacked, canvas_size=(size, size))
    return stacked


# ---- one's own pictures ---------------------------------------------------------------------------------------------------


class PhotoFolder(Photographs):
    """A folder of one's own pictures: `images/` (or the pictures lie in the folder itself), if there are any with `boxes.csv`
    and `masks/`.

    boxes.csv has the columns file, x, y, width, height: the file as it is named below images/, the rest in pixels of the
    upright picture from its top left corner. masks/ has a picture of the same name (the extension may differ) for each, the
    object in white; they are for scoring. Pictures in subfolders get a label: the subfolder's number in alphabetical order.
    """

    name = "folder"
    about = "Put your pictures into images/; boxes.csv (file, x, y, width, height) and masks/ beside it are optional."
    upright = True
    strict = True

    @property
    def images(self) -> Path:
        """Where the pictures lie."""
        return self.root / "images" if (self.root / "images").is_dir() else self.root

    def left_out(self) -> list[Path]:
        places = {*files_below(self.images), *files_below(self.root / "masks")} - {self.root / "boxes.csv"}
        return sorted(path for path in places if path.suffix.lower() not in EXTENSIONS)

    def list_photos(self) -> list[Photo]:
        images = self.images
        files = [path for path in pictures_below(images) if path.relative_to(self.root).parts[0] != "masks"]
        boxes = read_boxes(self.root / "boxes.csv") if (self.root / "boxes.csv").exists() else None
        names = {path.relative_to(images).as_posix(): path for path in files}
        if boxes is not None:
            written = {_one_form(name): name for name in names}  # a Mac writes é as two characters, a spreadsheet as one
            boxes = {written.get(_one_form(name), name): box for name, box in boxes.items()}
            if unknown := sorted(boxes.keys() - names.keys()):
                what = f"is not in {images}"
                if (images / unknown[0]).is_file():
                    plain = Path(unknown[0]).suffix.lower() in EXTENSIONS
                    what = "must be written as in images/" if plain else "is of a kind that is not read"
                raise FileNotFoundError(f"{self.root / 'boxes.csv'} names {unknown[0]!r}, which {what}")
            if bare := sorted(names.keys() - boxes.keys()):
                raise ValueError(f"{self.root / 'boxes.csv'} has no box for {bare[0]!r} ({len(bare)} pictures without)")
        masks = {path.relative_to(self.root / "masks").with_suffix(""): path for path in pictures_below(self.root / "masks")}
        classes = sorted({path.relative_to(images).parts[0] for path in files if path.parent != images})
        labelled = classes and not any(path.parent == images for path in files)
        photos = []
        for name, path in names.items():
            label = {"label": classes.index(path.relative_to(images).parts[0])} if labelled else {}
            known = ()
            if masks:
                stem = Path(name).with_suffix("")
                known = (masks.get(stem, self.root / "masks" / f"{stem}.png"),)
            photos.append(Photo(path, None if boxes is None else boxes[name], label, masks=known))
        return photos


def _one_form(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def read_boxes(path: Path) -> dict[str, tuple[float, float, float, float]]:
    """A file of boxes as a dict from file names. Raises ValueError that names it, and the line, for what cannot be read."""
    try:
        return _read_boxes(path)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _read_boxes(path: Path) -> dict[str, tuple[float, float, float, float]]:
    columns = ("file", "x", "y", "width", "height")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if missing := [column for column in columns if column not in (reader.fieldnames or ())]:
            raise ValueError(f"{path}: no column {', '.join(missing)}; the first line must read {','.join(columns)}")
        boxes = {}
        for line in reader:
            where = f"{path}, line {reader.line_num}"
            if any(line.get(None, ())):  # what is more than the first line's columns
                more = f"{len(reader.fieldnames) + len(line[None])} fields, there are {len(reader.fieldnames)} columns"
                raise ValueError(f"{where}: {more}; a name with a comma stands in quotes, numbers have points")
            try:
                box = tuple(float(line[column]) for column in columns[1:])
            except (TypeError, ValueError):
                raise ValueError(f"{where}: expected four numbers, got {[line[column] for column in columns[1:]]}") from None
            if line["file"] in boxes:
                raise ValueError(f"{where}: a second box for {line['file']!r}; there can be one a picture")
            boxes[line["file"]] = box
    return boxes


def files_below(folder: Path) -> list[Path]:
    """Paths of the files in a folder and its subfolders, linked ones too, sorted; what is hidden is left out.

    No paths if there is no such folder. Raises OSError for one that may not be read: what lies there would be missed.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    found, above = [], {os.fspath(folder): ()}
    # Which asks the disk nothing more about each file.
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        own, outer = os.path.realpath(place), above.pop(place)
        if own in outer:  # a link to a folder that it lies in
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        above |= {os.path.join(place, name): (*outer, own) for name in folders}
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(found)


def pictures_below(folder: Path) -> list[Path]:
    """Those that are pictures, by their names' endings."""
    return [path for path in files_below(folder) if path.suffix.lower() in EXTENSIONS]


# ---- published ------------------------------------------------------------------------------------------------------------


class CUB(Photographs):
    """CUB-200-2011: 11,788 birds of 200 species with boxes, 15 keypoints and, if `segmentations/` is there too, masks.

    FineGAN and MixNMatch train on all of them, without labels. Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, 2011.
    """

    name = "cub"
    about = (
        "CUB-200-2011: `python -m tutorial_lib data get cub`, or CUB_200_2011.tgz and segmentations.tgz from "
        "https://data.caltech.edu/records/65de6-vp158, unpacked so that the folder has CUB_200_2011/images.txt."
    )
    n_classes = 200
    splits = ("all", "train", "test")
    counts: ClassVar = {"all": 11_788, "train": 5994, "test": 5794}
    keypoints = (
        "back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg", "left wing", "nape", "right eye",
        "right leg", "right wing", "tail", "throat",
    )  # fmt: skip
    swapped = (0, 1, 2, 3, 4, 5, 10, 11, 12, 9, 6, 7, 8, 13, 14)

    def list_photos(self) -> list[Photo]:
        base = _inside(self.root, "CUB_200_2011")
        names = dict(_table(base / "images.txt", str, about=self.about))
        labels = dict(_table(base / "image_class_labels.txt", int, about=self.about))
        train = dict(_table(base / "train_test_split.txt", int, about=self.about))
        boxes = {i: box for i, *box in _table(base / "bounding_boxes.txt", float, float, float, float, about=self.about)}
        parts: dict[int, dict[int, tuple[float, float, float]]] = {i: {} for i in names}
        for i, part, *place in _table(base / "parts" / "part_locs.txt", int, float, float, float, about=self.about):
            parts.setdefault(i, {})[part] = tuple(place)
        masks = next((m for m in (base / "segmentations", base.parent / "segmentations") if m.is_dir()), None)
        photos = []
        for i, name in names.items():
            if self.split != "all" and train.get(i) != (self.split == "train"):
                continue
            if i not in labels or i not in boxes or len(parts[i]) != len(self.keypoints):
                raise ValueError(f"{base}: label, box or keypoints of picture {i} ({name}) are missing. {self.about}")
            places = [parts[i][k + 1] for k in range(len(self.keypoints))]
            values = {"label": labels[i] - 1, "visible": tuple(bool(seen) for *_, seen in places)}
            mask = () if masks is None else ((masks / name).with_suffix(".png"),)
            photos.append(Photo(base / "images" / name, tuple(boxes[i]), values, tuple((x, y) for x, y, _ in places), mask))
        return photos


class StanfordDogs(Photographs):
    """Stanford Dogs: 20,580 dogs of 120 breeds with boxes; of several dogs in a picture the largest counts.

    FineGAN and MixNMatch train on the 12,000 of the training split. Khosla et al., FGVC workshop, CVPR 2011.
    """

    name = "dogs"
    about = (
        "Stanford Dogs: images.tar, annotation.tar and lists.tar from http://vision.stanford.edu/aditya86/ImageNetDogs/, "
        "unpacked side by side so that the folder has Images/, Annotation/ and train_list.mat."
    )
    n_classes = 120
    splits = ("train", "test", "all")
    counts: ClassVar = {"train": 12_000, "test": 8580, "all": 20_580}
    lists: ClassVar = {"train": "train_list.mat", "test": "test_list.mat", "all": "file_list.mat"}

    def list_photos(self) -> list[Photo]:
        rows = zip(*_matlab(self.root / self.lists[self.split], "file_list", "labels", about=self.about), strict=True)
        return [self._photo(str(name), int(label)) for name, label in rows]

    def _photo(self, name: str, label: int) -> Photo:
        path = self.root / "Annotation" / Path(name).with_suffix("")
        try:
            found = ElementTree.parse(path).findall("object/bndbox")
            corners = [[float(box.findtext(edge)) for edge in ("xmin", "ymin", "xmax", "ymax")] for box in found]
            x1, y1, x2, y2 = max(corners, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: no such file. {self.about}") from None
        except (ElementTree.ParseError, TypeError, ValueError) as error:
            raise ValueError(f"{path} has no box that can be read: {error}. {self.about}") from error
        return Photo(self.root / "Images" / name, (x1, y1, x2 - x1, y2 - y1), {"label": label - 1})


class StanfordCars(Photographs):
    """Stanford Cars: 16,185 cars of 196 models with boxes, read by torchvision.

    FineGAN and MixNMatch train on the 8,144 of the training split. Krause et al., 3dRR-13, 2013.
    """

    name = "cars"
    about = (
        "Stanford Cars: its site (https://ai.stanford.edu/~jkrause/cars/car_dataset.html) no longer offers the files; ask its "
        "authors, or take a copy you may use, so that the folder has stanford_cars/devkit/cars_train_annos.mat and "
        "cars_meta.mat, stanford_cars/cars_train/, cars_test/ and cars_test_annos_withlabels.mat."
    )
    n_classes = 196
    splits = ("train", "test")
    counts: ClassVar = {"train": 8144, "test": 8041}

    def list_photos(self) -> list[Photo]:
        base = _inside(self.root, "stanford_cars")
        train = self.split == "train"
        annotations = base / ("devkit/cars_train_annos.mat" if train else "cars_test_annos_withlabels.mat")
        (listed,) = _matlab(annotations, "annotations", about=self.about)
        boxes = {str(row["fname"]): [float(row[f"bbox_{edge}"]) for edge in ("x1", "y1", "x2", "y2")] for row in listed}
        _require(base / "devkit" / "cars_meta.mat", self.about)
        _require(base / ("cars_train" if train else "cars_test"), self.about)
        photos = []
        with _clear_errors(self.about):
            cars = datasets.StanfordCars(base.parent, self.split)
        for path, label in cars._samples:
            x1, y1, x2, y2 = boxes[Path(path).name]
            photos.append(Photo(Path(path), (x1, y1, x2 - x1, y2 - y1), {"label": int(label)}))
        return photos


class Flowers102(Photographs):
    """Oxford Flowers 102, read by torchvision; masks if `flowers-102/segmim/` is there; no boxes.

    Nilsback and Zisserman, ICVGIP 2008.
    """

    name = "flowers"
    about = (
        "Oxford Flowers 102: `python -m tutorial_lib data get flowers`, or from "
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/ so that the folder has flowers-102/jpg/, imagelabels.mat and "
        "setid.mat, and segmim/ for the masks."
    )
    n_classes = 102
    splits = ("all", "train", "val", "test")
    counts: ClassVar = {"all": 8189, "train": 1020, "val": 1020, "test": 6149}

    def list_photos(self) -> list[Photo]:
        base = _inside(self.root, "flowers-102")
        for name in ("jpg", "imagelabels.mat", "setid.mat"):
            _require(base / name, self.about)
        splits = self.splits[1:] if self.split == "all" else (self.split,)
        with _clear_errors(self.about):
            parts = [datasets.Flowers102(base.parent, split) for split in splits]
        masks = base / "segmim"
        return sorted(
            (
                Photo(path, values={"label": int(label)}, masks=(masks / f"segmim_{path.stem[-5:]}.jpg",) * masks.is_dir())
                for part in parts
                for path, label in zip(part._image_files, part._labels, strict=True)
            ),
            key=lambda photo: photo.path.name,
        )

    def read_mask(self, photo: Photo) -> Tensor:
        """What is not the pure blue that the published segmentations lay over the background."""
        red, green, blue = read_picture(photo.masks[0]).int()
        background = (blue > 180) & (red < 75) & (green < 75)
        return (~background)[None].byte() * 255


class CLEVR6(Photographs):
    """CLEVR scenes with at most six objects; masks if `masks/` is there; no boxes.

    The pictures and scenes are read by torchvision. masks/SPLIT/ has for the picture NAME.png either NAME.png, the objects in
    white, or NAME_1.png, NAME_2.png, … , one an object (NAME_0.png, the background, is left out), as converters of DeepMind's
    CLEVR with masks write them. The crop is the published one: rows 29 … 220 and columns 64 … 255 of 240 x 320 pixels, or the
    same share of a larger picture. Johnson et al., CVPR 2017; Greff et al., ICML 2019 (masks and crop).
    """

    name = "clevr6"
    about = (
        "CLEVR: `python -m tutorial_lib data get clevr6` (18 GB), or CLEVR_v1.0.zip from "
        "https://cs.stanford.edu/people/jcjohns/clevr/, so that the folder has clevr/CLEVR_v1.0/images/ and scenes/; masks "
        "come with CLEVR (with masks) of https://github.com/google-deepmind/multi_object_datasets, converted to the same "
        "folders and masks/."
    )
    splits = ("train", "val")
    counts: ClassVar = {"train": 70_000, "val": 15_000}  # before those with more objects are left out
    most_objects = 6

    def list_photos(self) -> list[Photo]:
        base = _inside(_inside(self.root, "clevr"), "CLEVR_v1.0")
        _require(base / "images" / self.split, self.about)
        _require(base / "scenes" / f"CLEVR_{self.split}_scenes.json", self.about)
        with _clear_errors(self.about):
            scenes = datasets.CLEVRClassification(base.parent.parent, self.split)
        super().check_count(len(scenes))
        masks: dict[str, list[Path]] = {}
        folder = base / "masks" / self.split
        for path in sorted(folder.glob("*.png")):
            number = re.fullmatch(r"(.*_\d{6})_(\d+)", path.stem)
            if number is None or number[2] != "0":
                masks.setdefault(number[1] if number else path.stem, []).append(path)
        return [
            Photo(path, values={"objects": count}, masks=tuple(masks.get(path.stem, [folder / path.name])) if masks else ())
            for path, count in zip(scenes._image_files, scenes._labels, strict=True)
            if count <= self.most_objects
        ]

    def check_count(self, found: int) -> None:
        """Nothing: all scenes were counted before those with more objects were left out."""

    def window(self, photo: Photo, height: int, width: int) -> tuple[int, int, int]:
        return round(29 / 240 * height), round(64 / 320 * width), round(192 / 240 * height)


class CIFAR10(BatchedDataset):
    """CIFAR-10, read (and its checksums compared) by torchvision: 32 x 32 pixels, flipped at random if `augment`.

    An item is a dict as of `Photographs`: image, label and a box (the middle half, a guess). Krizhevsky, 2009.
    """

    stream_size = 256
    label = "label"
    name = "cifar10"
    about = (
        "CIFAR: `python -m tutorial_lib data get cifar10` (cifar100), or from https://www.cs.toronto.edu/~kriz/cifar.html, "
        "unpacked so that the folder has cifar-10-batches-py/ (cifar-100-python/)."
    )
    splits = ("train", "test")
    n_classes = 10
    attributes: ClassVar[dict[str, int]] = {}
    published: ClassVar[Callable] = datasets.CIFAR10

    def __init__(self, root: str | Path, size: int = 32, split: str = "train", augment: bool = True):
        if split not in self.splits:
            raise ValueError(f"split must be one of {self.splits}, got {split!r}")
        if size < SMALLEST:
            raise ValueError(f"size must be at least {SMALLEST}, got {size}")
        self.root, self.size, self.split, self.augment = Path(root).expanduser(), size, split, augment
        base = _inside(self.root, self.published.base_folder)
        _require(base, self.about)
        with _clear_errors(self.about):
            pictures = self.published(base.parent, train=split == "train")
        self.pictures = torch.from_numpy(pictures.data).permute(0, 3, 1, 2)  # (N, 3, 32, 32) uint8
        self.labels, self.classes = torch.tensor(pictures.targets), tuple(pictures.classes)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The pictures `indices` together."""
        rows = torch.as_tensor(list(indices), dtype=torch.int64)
        if rows.numel() and not (int(rows.min()) >= 0 and int(rows.max()) < len(self)):
            raise IndexError(f"picture {int(rows.min())} … {int(rows.max())} of a set of {len(self)}")
        image, size = self.pictures[rows], self.size
        if self.augment:
            image = torch.where(torch.rand(len(rows), 1, 1, 1) < 0.5, F.horizontal_flip(image), image)
        image = F.resize(image.float() / 127.5 - 1, [size, size], antialias=True)
        box = torch.tensor([[size / 4, size / 4, 3 * size / 4, 3 * size / 4]]).repeat(len(rows), 1)
        box = tv_tensors.BoundingBoxes(box, format="XYXY", canvas_size=(size, size))
        return {"image": image, "box": box, "label": self.labels[rows]}

    def sheet(self, n: int = 60) -> Tensor:
        """(3, H, W) uint8: n pictures."""
        return make_grid(F.resize(self.pictures[:n], [64, 64]), nrow=12, pad_value=255)


class CIFAR100(CIFAR10):
    """CIFAR-100, as CIFAR-10; label is the fine one."""

    name = "cifar100"
    n_classes = 100
    published = datasets.CIFAR100


# ---- reading what is published --------------------------------------------------------------------------------------------


def _inside(root: Path, name: str) -> Path:
    """The folder `name` in root, or root itself if it is that folder."""
    if root.name == name:
        return root
    return real if (real := root.resolve()).name == name else root / name  # it may be called ".", or be a link


def _require(path: Path, about: str) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder. {about}")


def _table(path: Path, *kinds: type, about: str) -> Iterator[tuple]:
    """Lines of an integer and what `kinds` says, apart by blanks."""
    _require(path, about)
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        words = line.split(maxsplit=len(kinds))
        try:
            yield int(words[0]), *(kind(word) for kind, word in zip(kinds, words[1:], strict=True))
        except ValueError:
            raise ValueError(f"{path}, line {number}: cannot be read: {line!r}. {about}") from None


def _matlab(path: Path, *names: str, about: str) -> list[np.ndarray]:
    """The rows of variables in a MATLAB file."""
    from scipy.io import loadmat

    _require(path, about)
    try:
        found = loadmat(path, squeeze_me=True)
    except Exception as error:  # whatever its parser stumbles over
        raise ValueError(f"{path} is no MATLAB file that can be read: {error}. {about}") from error
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"{path} has no {', '.join(missing)}. {about}")
    return [np.atleast_1d(found[name]) for name in names]


@contextmanager
def _clear_errors(about: str) -> Iterator[None]:
    """Turns the errors of torchvision's data sets into ones that say where to get the data."""
    try:
        yield
    except (RuntimeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{error}. {about}") from error
