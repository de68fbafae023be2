"""Pictures from outside the library, and films back out: files, uploads, PIL, numpy and torch in; GIFs out.

    as_pictures("bird.jpg", size=64)                    # (1, 3, 64, 64) in [-1, 1]
    as_pictures([upload, Image.new("RGB", (90, 60))], size=64)
    save_gif(frames, "hop.gif")                         # frames (T, 3, H, W) in [-1, 1]

What cannot be a picture is refused with an error that names it.
"""

import os
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from torchvision.utils import make_grid

Backdrop = Literal["white", "black"]
Source = str | Path | bytes | bytearray | memoryview | Image.Image | np.ndarray | Tensor

SMALLEST = 16  # pixels a side
TOLERANCE = 1e-3  # how far rounding may carry a float picture out of [-1, 1]
FPS = (1, 50)  # viewers slow a GIF down whose frames last less than 20 ms


def as_pictures(source: Source | list[Source] | tuple[Source, ...], size: int, name: str = "source") -> Tensor:
    """Pictures (B, 3, size, size), float32 in [-1, 1], of whatever a user hands over.

    source: the path of an image file; the bytes of one (an upload); a PIL image; an array (H, W), (H, W, 3) or (H, W, 4) of
    uint8; a tensor (3, H, W) or (B, 3, H, W), uint8 or float in [-1, 1]; or a list of those. What is transparent is laid over
    white, files are turned upright (EXIF), their middle square is taken and resized with antialiasing; of several frames in a
    file the first counts. A float tensor of the right size keeps its values. name: what errors call the source.

    Raises FileNotFoundError for a missing file; TypeError for another type; ValueError for a file that cannot be read, a side
    below 16 pixels, another dtype or number of channels, floats outside [-1, 1], NaN, and no picture at all.
    """
    if size < SMALLEST:
        raise ValueError(f"size must be at least {SMALLEST}, got {size}")
    return _pictures(source, name, size)


def read_picture(path: str | Path, *, upright: bool = True, backdrop: Backdrop = "white") -> Tensor:
    """The picture (3, H, W) uint8 in a file, at its own size; what is transparent is laid over `backdrop`.

    upright: turn it as its EXIF entry says, which is how viewers show it. Published boxes often count the pixels as stored.
    Raises FileNotFoundError for a missing file and ValueError, with the path, for one that cannot be read.
    """
    return _from_bytes(Path(path).read_bytes(), str(path), upright=upright, backdrop=backdrop)[0]


def small_png(image: Image.Image) -> bytes:
    """PNG bytes of a picture in at most 256 colours of its own: a third of the size.

    They are spread over all colours that there are. The usual palettes (median cut) follow the number of pixels, and lose the
    colours of what is small: a bird's among grey maps. k-means then moves them to where the pixels are, until fewer than one
    pixel in a hundred changes its colour: the rest would take five times as long, for errors that are a tenth smaller.
    """
    image, file = image.convert("RGB"), BytesIO()
    if image.getcolors(256):
        image = image.quantize(256)  # exactly
    else:
        image = image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=max(1, image.width * image.height // 100))
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def save_sheet(pictures: Tensor, path: str | Path, *, columns: int) -> Path:
    """Write pictures (N, 3, H, W) in [-1, 1] as one `small_png`, `columns` in a row; returns its path.

    Missing folders are made.
    """
    path = Path(path)
    sheet = make_grid((pictures.detach().float().cpu().clamp(-1, 1) + 1) / 2, nrow=columns, padding=1, pad_value=1)
    image = Image.fromarray((sheet * 255).round().byte().permute(1, 2, 0).numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(small_png(image))
    return path


def read_sheet(path: str | Path, *, rows: int, columns: int) -> Tensor:
    """The pictures (rows, columns, 3, H, W) in [-1, 1] of a sheet that `save_sheet` wrote.

    Raises FileNotFoundError for a missing file and ValueError for one that does not divide into so many rows and columns.
    """
    sheet = read_picture(path)[:, 1:, 1:]  # each cell has its border below and to the right
    if rows < 1 or columns < 1 or sheet.shape[1] % rows or sheet.shape[2] % columns:
        raise ValueError(f"{path} does not divide into {rows} rows and {columns} columns of one size")
    cells = sheet.unflatten(2, (columns, -1)).unflatten(1, (rows, -1)).permute(1, 3, 0, 2, 4)
    return cells[..., :-1, :-1] / 127.5 - 1


def save_gif(frames: Tensor, path: str | Path, *, fps: float = 12) -> Path:
    """Write pictures (T, 3, H, W) in [-1, 1] as a GIF that loops, `fps` frames a second; returns its path.

    All frames share one palette and none is dithered, so that what stands still does not flicker. The file is written whole or
    not at all. Raises ValueError for frames of another shape or range, fps outside [1, 50] and a path that is no .gif.
    """
    path = Path(path)
    if path.suffix.lower() != ".gif":
        raise ValueError(f"path must end in .gif, got {path}")
    if not FPS[0] <= fps <= FPS[1]:
        raise ValueError(f"fps must lie in {FPS}, got {fps}")
    if frames.ndim != 4 or frames.shape[1] != 3 or not frames.numel():
        raise ValueError(f"frames must be (T, 3, H, W) with at least one frame, got {tuple(frames.shape)}")
    frames = ((_in_range(frames, "frames").float() + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu()  # (T, H, W, 3)

    # Below each other, so that one palette is chosen from all of them.
    sheet = Image.fromarray(frames.flatten(0, 1).numpy()).quantize(256, kmeans=1)
    n, height, width, _ = frames.shape
    first, *others = (sheet.crop((0, i * height, width, (i + 1) * height)) for i in range(n))
    ends = [round(100 * i / fps) for i in range(n + 1)]  # a GIF counts hundredths of a second
    durations = [10 * (end - start) for start, end in pairwise(ends)]
    file, palette = BytesIO(), bytes(sheet.getpalette())
    first.save(file, "GIF", save_all=True, append_images=others, palette=palette, duration=durations, loop=0, optimize=False)

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(file.getvalue())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _pictures(source: object, name: str, size: int) -> Tensor:
    """`as_pictures` of what an error calls `name`."""
    match source:
        case list() | tuple():
            if not source:
                raise ValueError(f"{name} is empty, expected at least one picture")
            return torch.cat([_pictures(one, f"{name}[{i}]", size) for i, one in enumerate(source)])
        case str() | Path():
            name = str(source)
            pictures = _from_bytes(Path(source).read_bytes(), name)
        case bytes() | bytearray() | memoryview():
            pictures = _from_bytes(source, name)
        case Image.Image():
            pictures = _from_pil(source, name)
        case np.ndarray():
            pictures = _from_array(source, name)
        case Tensor():
            pictures = _from_tensor(source, name)
        case _:
            expected = "a path, bytes, a PIL image, a numpy array, a tensor or a list of those"
            raise TypeError(f"{name} must be {expected}, got {type(source).__name__}")
    height, width = pictures.shape[-2:]
    if min(height, width) < SMALLEST:
        raise ValueError(f"{name} is {width} x {height} pixels, expected at least {SMALLEST} on each side")
    pictures = F.center_crop(pictures, [min(height, width)] * 2)
    pictures = pictures.float() / 127.5 - 1 if pictures.dtype == torch.uint8 else pictures.float()
    return F.resize(pictures, [size, size], antialias=True)


def _from_bytes(
    data: bytes | bytearray | memoryview, name: str, *, upright: bool = True, backdrop: Backdrop = "white"
) -> Tensor:
    """(1, 3, H, W) uint8."""
    try:
        image = Image.open(BytesIO(data))
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is not an image file: {len(data)} bytes that start with {bytes(data[:8])}") from error
    except Exception as error:  # Pillow's readers raise whatever their parsers stumble over
        raise ValueError(f"{name} is an image file that cannot be read: {error}") from error
    return _from_pil(image, name, upright=upright, backdrop=backdrop)


def as_given(pictures: object, size: int) -> bool:
    """Whether `as_pictures` gives these back as they are: floats of that size."""
    return isinstance(pictures, Tensor) and pictures.is_floating_point() and tuple(pictures.shape[-2:]) == (size, size)


def check_mode(image: Image.Image) -> None:
    """Raise ValueError for a picture whose pixels cannot be told."""
    if image.mode in ("I", "F"):
        raise ValueError("pixels of 32 bits, whose range is unknown; expected 8 or 16")


def _from_pil(image: Image.Image, name: str, *, upright: bool = True, backdrop: Backdrop = "white") -> Tensor:
    """(1, 3, H, W) uint8."""
    try:
        image.load()
        if upright:
            image = ImageOps.exif_transpose(image)
        check_mode(image)
        if image.mode.startswith("I;16"):  # `convert` would cut it off at 255
            image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
        array = np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    except Exception as error:
        raise ValueError(f"{name} is an image that cannot be read: {error}") from error
    return _from_array(array, name, backdrop)


def _from_array(array: np.ndarray, name: str, backdrop: Backdrop = "white") -> Tensor:
    """(1, 3, H, W) uint8."""
    if array.dtype != np.uint8:
        raise ValueError(f"{name} must be an array of uint8, got {array.dtype}")
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(f"{name} must be an array (H, W), (H, W, 3) or (H, W, 4), got {array.shape}")
    if array.ndim == 2:
        array = array[..., None].repeat(3, -1)
    if array.shape[2] == 4:
        behind = Image.new("RGBA", array.shape[1::-1], backdrop)
        array = np.array(Image.alpha_composite(behind, Image.fromarray(array)).convert("RGB"))
    return torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)[None]


def _from_tensor(tensor: Tensor, name: str) -> Tensor:
    """(B, 3, H, W), uint8 or float in [-1, 1]."""
    if tensor.ndim not in (3, 4) or tensor.shape[-3] != 3:
        raise ValueError(f"{name} must be a tensor (3, H, W) or (B, 3, H, W), got {tuple(tensor.shape)}")
    if not tensor.numel():
        raise ValueError(f"{name} is empty, expected at least one picture, got {tuple(tensor.shape)}")
    if tensor.dtype != torch.uint8 and not tensor.is_floating_point():
        raise ValueError(f"{name} must be a tensor of uint8 or floats, got {tensor.dtype}")
    pictures = tensor.as_subclass(Tensor).reshape(-1, *tensor.shape[-3:])
    return pictures if pictures.dtype == torch.uint8 else _in_range(pictures, name)


def _in_range(pictures: Tensor, name: str) -> Tensor:
    """Float pictures, checked and rid of what rounding left outside [-1, 1]."""
    if pictures.isnan().any():
        raise ValueError(f"{name} has NaN, expected values in [-1, 1]")
    low, high = (float(value) for value in pictures.aminmax())
    if low < -1 - TOLERANCE or high > 1 + TOLERANCE:
        raise ValueError(f"{name} has values {low:.4g} … {high:.4g}, expected [-1, 1]")
    return pictures.clamp(-1, 1)
