import colorsys
import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torchvision import tv_tensors

from tutorial_lib.data.pictures import as_pictures, read_sheet, save_gif, save_sheet, small_png


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def expected(array: np.ndarray) -> torch.Tensor:
    """What an array (H, W, 3) of uint8 is as a picture."""
    return torch.from_numpy(array.astype(np.float32).transpose(2, 0, 1) / 127.5 - 1)[None]


def assert_shows(source, array: np.ndarray) -> None:
    torch.testing.assert_close(as_pictures(source, array.shape[0]), expected(array), atol=1e-6, rtol=0)


# ---- every kind of source


@pytest.mark.parametrize("kind", [str, Path])
def test_path_is_read(tmp_path, kind):
    array = noise(20, 20, 3)
    Image.fromarray(array).save(tmp_path / "bird.png")
    assert_shows(kind(tmp_path / "bird.png"), array)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_upload_is_read(kind):
    array = noise(20, 20, 3)
    assert_shows(kind(encoded(Image.fromarray(array))), array)


@pytest.mark.parametrize(
    "convert",
    [
        Image.fromarray,
        np.asarray,
        lambda array: array[:, ::-1].copy()[:, ::-1],  # negative strides
        lambda array: torch.from_numpy(array).permute(2, 0, 1),
        lambda array: torch.from_numpy(array).permute(2, 0, 1)[None],
        lambda array: expected(array)[0],
        lambda array: expected(array).double(),
    ],
    ids=["PIL", "numpy", "mirrored view", "uint8", "uint8 batch", "float", "double batch"],
)
def test_picture_in_memory_is_read(convert):
    array = noise(20, 20, 3)
    assert_shows(convert(array), array)


def test_list_is_stacked_in_order():
    arrays = noise(4, 20, 20, 3)
    batch = torch.cat([expected(array) for array in arrays[2:]])
    pictures = as_pictures([arrays[0], encoded(Image.fromarray(arrays[1])), batch], 20)
    torch.testing.assert_close(pictures, torch.cat([expected(array) for array in arrays]), atol=1e-6, rtol=0)


def test_tensor_of_the_right_size_keeps_its_values():
    pictures = torch.rand(3, 3, 24, 24) * 2 - 1
    assert torch.equal(as_pictures(pictures, 24), pictures)


def test_result_is_a_plain_tensor():
    assert type(as_pictures(tv_tensors.Image(torch.zeros(3, 24, 24)), 24)) is torch.Tensor


def test_rounding_beyond_the_range_is_cut_off():
    assert as_pictures(torch.full((3, 24, 24), 1.0005), 24).max() == 1


# ---- colours and depths


def test_transparency_is_laid_over_white():
    array = np.zeros((20, 20, 4), np.uint8)
    array[..., 0], array[..., 3] = 200, 102  # two fifths of (200, 0, 0) over white
    picture = as_pictures(array, 20)[0, :, 0, 0]
    torch.testing.assert_close((picture + 1) * 127.5, torch.tensor([233.0, 153.0, 153.0]), atol=0.6, rtol=0)


def test_transparent_colour_of_a_palette_is_white():
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.paste(0, (0, 0, 10, 20))
    picture = as_pictures(encoded(image, transparency=0), 20)[0]
    assert (picture[:, :, :10] == 1).all()
    torch.testing.assert_close((picture[:, 5, 15] + 1) * 127.5, torch.tensor([10.0, 20.0, 30.0]))


@pytest.mark.parametrize("source", [lambda a: a, Image.fromarray, lambda a: encoded(Image.fromarray(a))])
def test_grey_becomes_rgb(source):
    array = noise(20, 20)
    assert_shows(source(array), array[..., None].repeat(3, -1))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_brightness(kind):
    ramp = np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20)
    picture = as_pictures(encoded(Image.fromarray(ramp), kind), 20)[0]
    expected = torch.from_numpy(ramp / 65535 * 2 - 1).float().expand(3, -1, -1)
    torch.testing.assert_close(picture, expected, atol=1 / 255, rtol=0)


@pytest.mark.parametrize("mode", ["1", "CMYK", "YCbCr", "LA", "PA", "HSV"])
def test_other_modes_are_as_pillow_shows_them(mode):
    image = Image.fromarray(noise(20, 20, 3)).convert("LA" if mode == "PA" else mode).convert(mode)
    assert_shows(image, np.array(image.convert("RGB")))


# ---- geometry


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [(3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1)), (8, np.rot90), (2, lambda a: a[:, ::-1])],
)
def test_photograph_is_turned_upright(orientation, upright):
    array, exif = noise(20, 20, 3), Image.Exif()
    exif[0x0112] = orientation
    assert_shows(encoded(Image.fromarray(array), exif=exif), upright(array))


@pytest.mark.parametrize("wide", [True, False])
def test_middle_square_is_taken(wide):
    array = noise(20, 60, 3)
    middle = array[:, 20:40]
    assert_shows(array if wide else array.transpose(1, 0, 2), middle if wide else middle.transpose(1, 0, 2))


def test_picture_is_made_smaller_as_pillow_does_it():
    array = noise(96, 96, 3)
    small = np.array(Image.fromarray(array).resize((32, 32), Image.Resampling.BILINEAR))
    torch.testing.assert_close(as_pictures(array, 32), expected(small), atol=2 / 127.5, rtol=0)


def test_finest_checkerboard_becomes_grey():
    board = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)
    assert as_pictures(board, 32)[..., 2:-2, 2:-2].abs().max() < 0.02


def test_small_picture_is_made_larger():
    pictures = as_pictures(np.full((16, 16), 255, np.uint8), 64)
    assert pictures.shape == (1, 3, 64, 64)
    assert (pictures == 1).all()


# ---- what is no picture


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_truncated_file_is_named(tmp_path, kind):
    data = encoded(Image.fromarray(noise(64, 64, 3)), kind)
    (tmp_path / "half.img").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="half.img is an image"):
        as_pictures(tmp_path / "half.img", 32)


def test_image_that_pillow_has_not_read_yet_is_checked(tmp_path):
    data = encoded(Image.fromarray(noise(64, 64, 3)))
    with pytest.raises(ValueError, match="source is an image that cannot be read: .*truncated"):
        as_pictures(Image.open(BytesIO(data[: len(data) // 2])), 32)


def test_damaged_file_is_named(tmp_path):
    data = bytearray(encoded(Image.fromarray(noise(64, 64, 3))))
    data[200:300] = bytes(100)
    (tmp_path / "scratched.png").write_bytes(data)
    with pytest.raises(ValueError, match="scratched.png is an image that cannot be read"):
        as_pictures(tmp_path / "scratched.png", 32)


def test_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "notes.jpg").write_text("a robin, a wren")
    with pytest.raises(ValueError, match="notes.jpg is not an image file: 15 bytes that start with b'a robin,'"):
        as_pictures(tmp_path / "notes.jpg", 32)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.png"):
        as_pictures(tmp_path / "nowhere.png", 32)


def test_file_that_would_fill_the_memory_is_refused(monkeypatch):
    data = encoded(Image.fromarray(noise(64, 64, 3)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="source is an image file that cannot be read: .*4096 pixels"):
        as_pictures(data, 32)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((15, 40), np.uint8), "source is 40 x 15 pixels, expected at least 16"),
        (torch.zeros(3, 40, 15), "source is 15 x 40 pixels, expected at least 16"),
        (Image.new("RGB", (1, 1)), "source is 1 x 1 pixels"),
        (np.zeros((0, 0), np.uint8), "source is 0 x 0 pixels"),
        (np.zeros((20, 20, 3)), "source .*uint8, got float64"),
        (np.zeros((20, 20, 2), np.uint8), "source .*got \\(20, 20, 2\\)"),
        (np.zeros((2, 20, 20, 3), np.uint8), "source .*got \\(2, 20, 20, 3\\)"),
        (torch.zeros(1, 20, 20), "source .*got \\(1, 20, 20\\)"),
        (torch.zeros(2, 4, 20, 20), "source .*got \\(2, 4, 20, 20\\)"),
        (torch.zeros(20, 20), "source .*got \\(20, 20\\)"),
        (torch.zeros(0, 3, 20, 20), "source is empty.*got \\(0, 3, 20, 20\\)"),
        (torch.zeros(3, 20, 20, dtype=torch.int64), "source .*got torch.int64"),
        (torch.full((3, 20, 20), 1.01), "source has values 1.01 … 1.01, expected \\[-1, 1\\]"),
        (torch.full((3, 20, 20), -200.0), "source has values -200 … -200"),
        (torch.full((3, 20, 20), torch.inf), "source has values inf"),
        (torch.full((3, 20, 20), torch.nan), "source has NaN"),
        (Image.new("F", (20, 20)), "source .*32 bits"),
        (Image.new("I", (20, 20)), "source .*32 bits"),
        ([], "source is empty"),
        ([np.zeros((20, 20), np.uint8), torch.full((3, 20, 20), 7.0)], "source\\[1\\] has values 7 … 7"),
    ],
)
def test_what_is_no_picture_is_named(source, message):
    with pytest.raises(ValueError, match=message):
        as_pictures(source, 32)


@pytest.mark.parametrize(
    ("source", "message"), [(3, "source .*got int"), (None, "got NoneType"), ([{}], "source\\[0\\].*dict")]
)
def test_another_type_is_named(source, message):
    with pytest.raises(TypeError, match=message):
        as_pictures(source, 32)


def test_size_that_is_too_small_is_named():
    with pytest.raises(ValueError, match="size must be at least 16, got 8"):
        as_pictures(np.zeros((20, 20), np.uint8), 8)


# ---- films


def film(n: int = 6) -> torch.Tensor:
    """A red square that walks over blue: (n, 3, 24, 32)."""
    frames = torch.tensor([-1.0, -1.0, 1.0])[:, None, None].expand(n, 3, 24, 32).clone()
    for i, frame in enumerate(frames):
        frame[:, 4:12, 3 * i : 3 * i + 8] = torch.tensor([1.0, -1.0, -1.0])[:, None, None]
    return frames


def read(path: Path) -> tuple[torch.Tensor, list[int]]:
    """The frames of a GIF as pictures, and their durations in milliseconds."""
    with Image.open(path) as image:
        frames = [(np.array(frame.convert("RGB")), frame.info["duration"]) for frame in ImageSequence.Iterator(image)]
    return torch.cat([expected(array) for array, _ in frames]), [duration for _, duration in frames]


def test_film_reads_back(tmp_path):
    path = save_gif(film(), tmp_path / "walk.gif")
    assert path == tmp_path / "walk.gif"
    torch.testing.assert_close(read(path)[0], film())


def test_film_of_many_colours_reads_back_closely(tmp_path):
    line = torch.linspace(-1, 1, 64)
    ramp = torch.stack([line[:, None] + 0 * line, line + 0 * line[:, None], 0 * line[:, None] * line])
    frames = torch.stack([ramp.roll(i, -1) for i in range(5)])
    assert (read(save_gif(frames, tmp_path / "ramp.gif"))[0] - frames).abs().mean() < 0.05


def test_what_stands_still_does_not_flicker(tmp_path):
    frames = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    frames[:, :, :16] = frames[0, :, :16]
    still = read(save_gif(frames, tmp_path / "half.gif"))[0][:, :, :16]
    assert torch.equal(still, still[:1].expand_as(still))


def test_film_loops_for_ever(tmp_path):
    with Image.open(save_gif(film(), tmp_path / "walk.gif")) as image:
        assert image.info["loop"] == 0


@pytest.mark.parametrize(("fps", "n"), [(12, 9), (7, 7), (30, 8), (50, 5)])
def test_film_lasts_as_long_as_its_frames(tmp_path, fps, n):
    durations = read(save_gif(film(n), tmp_path / "walk.gif", fps=fps))[1]
    assert sum(durations) == pytest.approx(1000 * n / fps, abs=5)
    assert all(duration == pytest.approx(1000 / fps, abs=10) for duration in durations)


def test_one_frame_is_a_film(tmp_path):
    torch.testing.assert_close(read(save_gif(film(1), tmp_path / "still.gif"))[0], film(1))


def test_film_makes_its_folder(tmp_path):
    assert save_gif(film(), tmp_path / "new" / "walk.gif").exists()


def test_interrupted_film_leaves_the_old_one(tmp_path, monkeypatch):
    path = save_gif(film(2), tmp_path / "walk.gif")
    before = path.read_bytes()

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        save_gif(film(5), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (film()[0], {}, "frames .*got \\(3, 24, 32\\)"),
        (film()[:0], {}, "frames .*got \\(0, 3, 24, 32\\)"),
        (film()[:, :1], {}, "frames .*got \\(6, 1, 24, 32\\)"),
        (film() * 255, {}, "frames has values -255 … 255"),
        (film() * torch.nan, {}, "frames has NaN"),
        (film(), {"fps": 0}, "fps .*0"),
        (film(), {"fps": 60}, "fps .*60"),
    ],
)
def test_wrong_film_is_named_and_not_written(tmp_path, frames, options, message):
    with pytest.raises(ValueError, match=message):
        save_gif(frames, tmp_path / "walk.gif", **options)
    assert not list(tmp_path.iterdir())


def test_film_of_another_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must end in .gif, got .*walk.mp4"):
        save_gif(film(), tmp_path / "walk.mp4")


def test_small_png_keeps_the_colours_that_few_pixels_have():
    """A small spot of saturated colours among smooth tinted greys."""
    grey = np.add.outer(np.arange(200), np.arange(200))[..., None] / 2 + np.random.default_rng(0).normal(0, 3, (200, 200, 3))
    array = (grey * [0.9, 0.95, 1.0]).clip(0, 255).astype(np.uint8)
    hues = [colorsys.hsv_to_rgb(i / 16, 0.9, 0.9) for i in range(16)]
    array[100, 100:116] = (255 * np.array(hues)).astype(np.uint8)

    def error(data: bytes) -> int:
        return np.abs(np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(int) - array)[100, 100:116].max()

    small, usual, full = small_png(Image.fromarray(array)), BytesIO(), BytesIO()
    Image.fromarray(array).quantize(256).save(usual, "PNG")
    Image.fromarray(array).save(full, "PNG", optimize=True)
    assert error(small) <= 30 < 60 <= error(usual.getvalue())
    assert len(small) < 0.75 * len(full.getvalue())


def test_small_png_of_few_colours_is_exact():
    array = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8).reshape(16, 16, 3)
    assert (np.asarray(Image.open(BytesIO(small_png(Image.fromarray(array)))).convert("RGB")) == array).all()


def test_a_sheet_is_written_row_by_row(tmp_path):
    greys = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]).view(5, 1, 1, 1).expand(5, 3, 8, 8)
    path = save_sheet(greys, tmp_path / "new" / "sheet.png", columns=3)
    sheet = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert sheet.shape == (2 * 9 + 1, 3 * 9 + 1, 3)
    centres = sheet[5::9, 5::9, 0][:2, :3]
    assert np.abs(centres - [[0, 64, 128], [191, 255, 255]]).max() <= 2  # the last place is empty


def test_a_sheet_is_read_back_cell_by_cell(tmp_path):
    pictures = torch.arange(6).div(2.5).sub(1).view(6, 1, 1, 1).repeat(1, 3, 8, 8)
    pictures[:, 0, 0, 5] = 1  # so that a turned or shifted cell would be seen
    read = read_sheet(save_sheet(pictures, tmp_path / "sheet.png", columns=3), rows=2, columns=3)
    assert read.shape == (2, 3, 3, 8, 8)
    torch.testing.assert_close(read.flatten(0, 1), pictures, atol=0.01, rtol=0)


@pytest.mark.parametrize(("rows", "columns"), [(4, 3), (2, 4), (0, 3)])
def test_a_sheet_of_other_rows_or_columns_is_named(tmp_path, rows, columns):
    path = save_sheet(torch.zeros(6, 3, 8, 8), tmp_path / "sheet.png", columns=3)
    with pytest.raises(ValueError, match=rf"sheet\.png does not divide into {rows} rows and {columns} columns"):
        read_sheet(path, rows=rows, columns=columns)
