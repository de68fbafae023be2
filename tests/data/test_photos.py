"""Photographs: every layout is read, views show what the boxes say, and what is wrong is named."""

from __future__ import annotations

import errno
import os
import pickle
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets, tv_tensors

sys.path.insert(0, str(Path(__file__).parent))

from photo_layouts import (
    CUB_PICTURES,
    write_cars,
    write_cifar,
    write_clevr,
    write_cub,
    write_dogs,
    write_flowers,
    write_folder,
    write_mask,
    write_picture,
)

from tutorial_lib.data import photos
from tutorial_lib.data.photos import (
    CIFAR10,
    CIFAR100,
    CLEVR6,
    CUB,
    Flowers102,
    PhotoFolder,
    StanfordCars,
    StanfordDogs,
    object_window,
)

BOXES = [(40, 20, 30, 40), (5, 2, 20, 12), (80, 30, 40, 50), (20, 10, 90, 60)]


@pytest.fixture(autouse=True)
def small_copies(tmp_path, monkeypatch):
    """Caches of their own, and no published number of pictures."""
    monkeypatch.setenv("TUTORIAL_LIB_CACHE", str(tmp_path / "cache"))
    for kind in (CUB, StanfordDogs, StanfordCars, Flowers102, CLEVR6):
        monkeypatch.setattr(kind, "counts", {})
    unchecked = {name: (file, None) for name, (file, _) in datasets.Flowers102._file_dict.items()}
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", unchecked)


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_folder(tmp_path / "mine", BOXES, masks=True)


def white_box(image: torch.Tensor) -> list[float] | None:
    """x1, y1, x2, y2 of what is white in a picture (3, H, W) in [-1, 1]."""
    rows, columns = torch.where(image.mean(0) > 0)
    return None if not len(rows) else [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


# ---- the two views


def test_batch_has_the_names_shapes_and_types_of_the_contract(folder):
    batch = PhotoFolder(folder, size=32).batch(range(3))
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    pictures = {"image": (3, 3, 32, 32), "scene": (3, 3, 32, 32), "mask": (3, 1, 32, 32)}
    assert shapes == pictures | {"box": (3, 4), "scene_box": (3, 4)}
    for name in ("image", "scene"):
        assert batch[name].dtype == torch.float32 and -1 <= batch[name].min() < batch[name].max() <= 1
    for name in ("box", "scene_box"):
        assert isinstance(batch[name], tv_tensors.BoundingBoxes) and batch[name].canvas_size == (32, 32)
    assert isinstance(batch["mask"], tv_tensors.Mask) and set(batch["mask"].unique().tolist()) <= {0.0, 1.0}
    item = PhotoFolder(folder, size=32, augment=False)[1]
    assert item["image"].shape == (3, 32, 32) and item["box"].shape == (1, 4)


def test_a_few_pictures_are_read_without_a_cache(folder):
    data = PhotoFolder(folder, size=32)
    pictures = data.read([2, 0])
    assert "cache" not in vars(data)
    assert torch.equal(pictures, PhotoFolder(folder, size=32, augment=False).batch([2, 0])["image"])


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize(("picture", "box"), [("image", "box"), ("scene", "scene_box")])
def test_the_object_is_where_the_box_says_in_every_window_and_mirror(folder, augment, picture, box):
    data, seen = PhotoFolder(folder, size=48, augment=augment), 0
    for _ in range(8):
        batch = data.batch(range(4))
        for image, (x1, y1, x2, y2) in zip(batch[picture], batch[box].tolist(), strict=True):
            if min(x2 - x1, y2 - y1) < 2:
                continue
            assert white_box(image) == pytest.approx([x1, y1, x2, y2], abs=1.01)
            seen += 1
    assert seen > 16


def test_the_mask_follows_the_picture(folder):
    batch = PhotoFolder(folder, size=48).batch([0, 1, 2, 3] * 5)
    white = (batch["image"].mean(1, keepdim=True) > 0).float()
    assert (white - batch["mask"]).abs().mean() < 0.05
    assert batch["mask"].mean() > 0.2


@pytest.mark.parametrize(
    ("box", "window"),
    [
        ((40, 30, 20, 10), (20, 35, 30)),  # 1.5 x 20 around (50, 35)
        ((0, 0, 20, 20), (0, 0, 30)),  # moved into the picture at the top left
        ((90, 70, 10, 10), (65, 85, 15)),  # and at the bottom right
        ((5, 5, 90, 60), (0, 10, 80)),  # no larger than the short side
        ((50, 50, 0.2, 0.1), (50, 50, 1)),
    ],
)
def test_window_of_the_object(box, window):
    assert object_window(box, height=80, width=100) == window


def test_object_view_at_its_own_size_is_cut_out_of_the_picture(tmp_path):
    array = write_picture(tmp_path / "images" / "a.png", 100, 80)
    (tmp_path / "boxes.csv").write_text("file,x,y,width,height\na.png,40,30,20,10\n")
    image = PhotoFolder(tmp_path, size=30, augment=False)[0]["image"]
    expected = torch.from_numpy(array[20:50, 35:65].copy()).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(image, expected, atol=1e-6, rtol=0)


def test_views_leave_a_margin_of_76_64_for_windows(folder):
    data = PhotoFolder(folder, size=64)
    data.batch([0])
    assert data.cache.picture("image", 0).shape == (3, 76, 76)
    assert data.cache.picture("scene", 0).shape == (3, 76, 114)  # 120 x 80 with its short side at 76


def test_windows_and_mirrors_are_drawn_anew_and_follow_torchs_seed(folder):
    data = PhotoFolder(folder, size=32)
    torch.manual_seed(0)
    first, second = data.batch([0] * 8), data.batch([0] * 8)
    torch.manual_seed(0)
    again = data.batch([0] * 8)
    assert not torch.equal(first["image"], second["image"])
    assert torch.equal(first["image"], again["image"]) and torch.equal(first["scene_box"], again["scene_box"])
    still = PhotoFolder(folder, size=32, augment=False)
    assert torch.equal(still.batch([0])["image"], still.batch([0])["image"])


def test_without_boxes_the_middle_square_is_the_picture_and_its_middle_half_the_object(tmp_path):
    array = write_picture(tmp_path / "a.png", 60, 40)  # pictures may lie in the folder itself
    item = PhotoFolder(tmp_path, size=40, augment=False)[0]
    expected = torch.from_numpy(array[:, 10:50].copy()).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(item["image"], expected, atol=1e-6, rtol=0)
    assert item["box"].tolist() == [[10, 10, 30, 30]]
    assert "mask" not in item and "label" not in item


def test_background_view_can_be_left_out(folder):
    assert "scene" not in PhotoFolder(folder, size=32, scene=False).batch([0])


def test_photographs_of_a_phone_are_turned_upright_before_their_boxes_count(tmp_path):
    upright = np.zeros((90, 60, 3), np.uint8)
    upright[20:40, 10:30] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "a.png", exif=exif)
    (tmp_path / "boxes.csv").write_text("file,x,y,width,height\na.png,10,20,20,20\n")
    data = PhotoFolder(tmp_path, size=30, augment=False)
    assert white_box(data[0]["image"]) == data[0]["box"][0].tolist() == [5, 5, 25, 25]
    assert data.problems() == []


@pytest.mark.parametrize("kind", ["tif", "jpg"])
def test_sizes_are_those_of_the_upright_picture_whatever_its_reader_tells(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    (tmp_path / "images").mkdir()
    Image.new("RGB", (90, 60)).save(tmp_path / "images" / f"a.{kind}", exif=exif)
    write_mask(tmp_path / "masks" / "a.png", 60, 90, (10, 60, 20, 20))
    (tmp_path / "boxes.csv").write_text(f"file,x,y,width,height\na.{kind},10,60,20,20\n")
    data = PhotoFolder(tmp_path, size=30, augment=False)
    assert data.problems() == []
    assert data.whole(data.photos[0])["image"].shape == (3, 90, 60)


# ---- one's own folder


def test_subfolders_are_labels(tmp_path):
    for name in ("dog/b", "cat/a", "cat/c"):
        write_picture(tmp_path / "images" / f"{name}.jpg", 40, 40)
    data = PhotoFolder(tmp_path, size=16)
    assert [photo.path.stem for photo in data.photos] == ["a", "c", "b"]
    assert data.batch(range(3))["label"].tolist() == [0, 0, 1]


def test_hidden_folders_are_left_out(tmp_path):
    for name in ("dog/b", "cat/a", ".thumbs/a", "cat/.thumbs/a"):
        write_picture(tmp_path / ".mine" / "images" / f"{name}.png", 40, 40)
    data = PhotoFolder(tmp_path / ".mine", size=16)
    assert [(photo.path.stem, photo.values["label"]) for photo in data.photos] == [("a", 0), ("b", 1)]


def test_linked_folders_are_read_and_a_loop_of_links_ends(tmp_path):
    for name in ("mine/images/cat/a", "elsewhere/b", "elsewhere/c"):
        write_picture(tmp_path / f"{name}.png", 40, 40)
    (tmp_path / "mine/images/dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/again").symlink_to(tmp_path / "mine/images/dog")
    (tmp_path / "mine/images/ass").symlink_to(tmp_path / "mine/images/cat")
    data = PhotoFolder(tmp_path / "mine", size=16)
    assert [(photo.path.stem, photo.values["label"]) for photo in data.photos] == [("a", 0), ("a", 1), ("b", 2), ("c", 2)]


def test_boxes_are_found_whatever_form_a_name_is_written_in(tmp_path):
    write_picture(tmp_path / "e\u0301.png", 40, 40)
    (tmp_path / "boxes.csv").write_text("file,x,y,width,height\n\u00e9.png,10,20,20,10\n")
    assert PhotoFolder(tmp_path, size=16).photos[0].box == (10, 20, 20, 10)


def test_a_mask_belongs_to_the_picture_of_its_whole_name(tmp_path):
    for name in ("bird", "bird.crop"):
        write_picture(tmp_path / "images" / f"{name}.jpg", 40, 40)
    write_mask(tmp_path / "masks" / "bird.png", 40, 40, (10, 20, 20, 10))
    with pytest.raises(FileNotFoundError, match=r"masks/bird\.crop\.png: no such file"):
        PhotoFolder(tmp_path, size=16)


def test_pixels_that_training_refuses_are_found_wherever_they_lie(tmp_path):
    for i in range(30):
        write_picture(tmp_path / "images" / f"{i:02d}.png", 40, 40)
    Image.new("I", (40, 40)).save(tmp_path / "images" / "17b.tif")
    (problem,) = PhotoFolder(tmp_path, size=16).problems()
    assert "17b.tif cannot be read: pixels of 32 bits, whose range is unknown" in problem


def test_masks_may_be_of_another_kind_and_of_values_0_and_1(tmp_path):
    write_picture(tmp_path / "images" / "a.jpg", 40, 40)
    write_mask(tmp_path / "masks" / "a.png", 40, 40, (10, 20, 20, 10), value=1)
    mask = PhotoFolder(tmp_path, size=40, augment=False)[0]["mask"][0]
    expected = torch.zeros(40, 40)
    expected[20:30, 10:30] = 1
    assert torch.equal(mask.as_subclass(torch.Tensor), expected)


def test_what_is_transparent_in_a_mask_is_not_the_object(tmp_path):
    write_picture(tmp_path / "images" / "a.jpg", 40, 40)
    white = np.full((40, 40, 4), 255, np.uint8)
    white[..., 3] = 0
    white[20:30, 10:30, 3] = 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(white).save(tmp_path / "masks" / "a.png")
    mask = PhotoFolder(tmp_path, size=40, augment=False)[0]["mask"][0]
    assert torch.equal(mask.as_subclass(torch.Tensor), torch.from_numpy(white[..., 3] / 255).float())


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    """Its pictures would be missing, and the next classes' labels would be others. (Root may read everything: a stand-in.)"""
    for name in "abc":
        write_picture(tmp_path / "images" / name / "1.png", 40, 40)
    look = os.scandir

    def scandir(place):
        if Path(place).name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", str(place))
        return look(place)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError, match="Permission denied: .*b"):
        PhotoFolder(tmp_path, size=32)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,x,y,w,h\na.png,1,2,3,4\n", "no column width, height; the first line must read file,x,y,width,height"),
        ("", "no column file, x, y, width, height"),
        ("file,x,y,width,height\na.png,1,2,3\n", "line 2: expected four numbers, got ['1', '2', '3', None]"),
        ("file,x,y,width,height\na.png,1,2,three,4\n", "line 2: expected four numbers"),
        ("file,x,y,width,height\na.png,1,2,3,4\na.png,1,2,3,4\n", "line 3: a second box for 'a.png'"),
        ("file,x,y,width,height\na.png,1,2,3,4\n", "boxes.csv has no box for 'b.png' (3 pictures without)"),
        ("file,x,y,width,height\nz.png,1,2,3,4\n", "boxes.csv names 'z.png', which is not in"),
        ("file,x,y,width,height\n./a.png,1,2,3,4\n", "boxes.csv names './a.png', which must be written as in images/"),
        ("file,x,y,width,height\na.png,1,5,2,5,3,0,4,0\n", "boxes.csv, line 2: 9 fields, there are 5 columns; a name with a"),
        ('file,x,y,width,height\n"a.png,1,2,3,4\n' + "b.png,1,2,3,4\n" * 10_000, "boxes.csv: field larger than field limit"),
        ("file,x,y,width,height\na.png,1,2,3,4\n".encode("utf-16"), "boxes.csv: 'utf-8' codec can't decode byte"),
    ],
)
def test_what_is_wrong_with_boxes_csv_is_named(folder, text, message):
    (folder / "boxes.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        PhotoFolder(folder, size=32)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("100,20,40,40", "x, y, width, height = 100, 20, 40, 40 reaches out of the picture of 120 x 80 pixels"),
        ("-5,20,40,40", "reaches out of the picture"),
        ("500,20,40,40", "reaches out of the picture"),
        ("10,20,0,40", "is empty"),
        ("nan,20,10,40", "reaches out of the picture|is empty"),
        ("0.2,0.3,0.5,0.4", "less than 2 pixels high or wide; are these shares of the picture?"),
    ],
)
def test_box_outside_the_picture_is_named_by_the_check_and_by_training(folder, box, message):
    lines = (folder / "boxes.csv").read_text().splitlines()
    (folder / "boxes.csv").write_text("\n".join([*lines[:2], f"b.png,{box}", *lines[3:]]))
    data = PhotoFolder(folder, size=32)
    (problem,) = data.problems()
    assert re.search(message, problem) and "b.png" in problem
    with pytest.raises(ValueError, match=message):
        data.batch([0])


def test_published_boxes_may_reach_out_a_little(tmp_path):
    root = write_cub(tmp_path)
    boxes = root / "CUB_200_2011" / "bounding_boxes.txt"
    boxes.write_text("1 30.0 20.0 40.0 30.0\n2 -3.0 10.0 20.0 40.0\n3 50.0 40.0 60.0 20.0\n")
    assert CUB(root, size=32).problems() == []
    assert (CUB(root, size=32, augment=False).batch([1])["box"][0] >= 0).all()
    boxes.write_text("1 30.0 20.0 40.0 30.0\n2 95.0 10.0 20.0 40.0\n3 50.0 40.0 30.0 20.0\n")
    assert len(CUB(root, size=32).problems()) == 1


def test_picture_that_cannot_be_read_is_named_and_left_out_only_if_asked(folder):
    path = folder / "images" / "b.png"
    path.write_bytes(path.read_bytes()[:60])
    data = PhotoFolder(folder, size=32)
    with pytest.raises(ValueError, match="b.png is an image that cannot be read"):
        data.batch([0])
    assert len(PhotoFolder(folder, size=32, partial=True)) == 3
    path.write_text("not a picture")
    (problem,) = data.problems()
    assert "b.png cannot be read" in problem


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_file_that_ends_too_early_is_found(tmp_path, kind):
    path = tmp_path / f"half.{kind}"
    write_picture(path, 120, 80)
    data = PhotoFolder(tmp_path, size=32)
    assert data.problems() == []
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    (problem,) = data.problems()
    assert problem.startswith(f"{path} cannot be read")
    with pytest.raises(ValueError, match=f"half.{kind} is an image that cannot be read"):
        data.batch([0])


def test_files_of_unknown_kinds_are_told_apart_from_what_belongs_to_the_folder(folder):
    assert PhotoFolder(folder, size=32).left_out() == []
    for name in ("images/c.heic", "images/sub/notes.txt", "images/.DS_Store", "README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("no picture")
    assert PhotoFolder(folder, size=32).left_out() == [folder / "images" / "c.heic", folder / "images" / "sub" / "notes.txt"]


def test_folder_of_nothing_but_unknown_kinds_says_so(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.heic").write_text("no picture")
    with pytest.raises(FileNotFoundError, match=r"no pictures in .*1 files are of kinds that are not read, such as a.heic"):
        PhotoFolder(tmp_path, size=32)


def test_box_of_a_file_of_an_unknown_kind_says_so(folder):
    (folder / "images" / "d.heic").write_text("no picture")
    with (folder / "boxes.csv").open("a") as file:
        file.write("d.heic,1,1,5,5\n")
    with pytest.raises(FileNotFoundError, match="names 'd.heic', which is of a kind that is not read"):
        PhotoFolder(folder, size=32)


def test_left_out_where_pictures_and_boxes_lie_together(tmp_path):
    write_picture(tmp_path / "a.png", 120, 80)
    write_mask(tmp_path / "masks" / "a.png", 120, 80, (1, 1, 5, 5))
    (tmp_path / "boxes.csv").write_text("file,x,y,width,height\na.png,1,1,5,5\n")
    left = [tmp_path / "b.heic", tmp_path / "masks" / "b.gif"]
    for path in left:
        path.write_text("no picture")
    assert PhotoFolder(tmp_path, size=32).left_out() == left


def test_picture_that_is_too_small_is_named(tmp_path):
    write_picture(tmp_path / "tiny.png", 12, 40)
    data = PhotoFolder(tmp_path, size=32)
    with pytest.raises(ValueError, match="tiny.png is 12 x 40 pixels, expected at least 16"):
        data.batch([0])
    assert data.problems() == [f"{tmp_path / 'tiny.png'} is 12 x 40 pixels, expected at least 16 on each side"]


def test_missing_and_wrong_masks_are_named(folder):
    write_mask(folder / "masks" / "b.png", 60, 80, (1, 1, 5, 5))
    data = PhotoFolder(folder, size=32)
    with pytest.raises(ValueError, match="masks/b.png is 60 x 80 pixels, its picture 120 x 80"):
        data.batch([0])
    assert data.problems() == [f"mask {folder / 'masks' / 'b.png'} is 60 x 80 pixels, its picture 120 x 80"]
    (folder / "masks" / "b.png").write_text("not a picture")
    (problem,) = data.problems()
    assert "masks/b.png cannot be read" in problem
    (folder / "masks" / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match="masks/b.png: no such file"):
        PhotoFolder(folder, size=32)


def test_empty_and_missing_folders_say_what_should_be_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no pictures in .* Put your pictures into images/"):
        PhotoFolder(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere. CUB-200-2011: .*data get cub"):
        CUB(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, r"split must be one of \('all',\), got 'test'"),
        ({"size": 8}, "size must be at least 16, got 8"),
    ],
)
def test_wrong_arguments_are_named(folder, options, message):
    with pytest.raises(ValueError, match=message):
        PhotoFolder(folder, **options)


def test_index_outside_the_set_is_named(folder):
    with pytest.raises(IndexError, match="picture 4 … 4 of a set of 4"):
        PhotoFolder(folder, size=32).batch([4])


# ---- published layouts


def test_cub(tmp_path):
    root = write_cub(tmp_path)
    birds = CUB(root, size=32, augment=False)
    batch = birds.batch(range(3))
    assert batch["label"].tolist() == [0, 0, 1]
    assert [len(CUB(root, split=split)) for split in ("all", "train", "test")] == [3, 2, 1]
    assert CUB(root, split="test").photos[0].box == CUB_PICTURES[1][2]
    assert len(CUB(root / "CUB_200_2011")) == 3  # the folder itself will do
    assert batch["mask"].shape == (3, 1, 32, 32) and "mask" not in birds.known()[:1]
    for image, mask in zip(batch["image"], batch["mask"], strict=True):
        assert ((image.mean(0) > 0).float() - mask[0]).abs().mean() < 0.05
    # Keypoint k (from 0) lies at x = left + k + 2 in the middle row of the box.
    x, y, _, h = CUB_PICTURES[0][2]
    top, left, side = object_window(CUB_PICTURES[0][2], 80, 100)
    expected = [[(x + k + 2 - left) * 32 / side, (y + h // 2 - top) * 32 / side] for k in range(14)]
    torch.testing.assert_close(batch["keypoints"][0, :14].as_subclass(torch.Tensor), torch.tensor(expected))
    assert batch["visible"][0].tolist() == [True] * 14 + [False]


def test_data_set_is_found_from_inside_its_folder(tmp_path, monkeypatch):
    write_cub(tmp_path)
    monkeypatch.chdir(tmp_path / "CUB_200_2011")
    birds = CUB(".", split="all", size=16)
    assert len(birds) == 3 and birds.known() == CUB(tmp_path, split="all", size=16).known()
    write_flowers(tmp_path / "plants")
    (tmp_path / "flowers").symlink_to(tmp_path / "plants" / "flowers-102")
    assert len(Flowers102(tmp_path / "flowers", size=16)) == len(Flowers102(tmp_path / "plants", size=16))


def test_cub_without_segmentations_has_no_masks(tmp_path):
    assert "mask" not in CUB(write_cub(tmp_path, masks=False), size=32).batch([0])


def test_a_birds_left_eye_is_its_right_eye_in_the_mirror(tmp_path):
    mirror = {name: name.replace("left", "RIGHT").replace("right", "left").lower() for name in CUB.keypoints}
    assert [CUB.keypoints[k] for k in CUB.swapped] == [mirror[name] for name in CUB.keypoints]
    batch = CUB(write_cub(tmp_path), size=32).batch([0] * 30)
    beak, left, right = (batch["keypoints"][:, CUB.keypoints.index(name), 0] for name in ("beak", "left eye", "right eye"))
    assert (left < right).all()  # as written; in a mirror that keeps the names the order would be reversed
    assert 0 < (beak < left).sum() < 30  # and there were mirrors


@pytest.mark.parametrize(
    "name",
    ["images.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt", "parts/part_locs.txt"],
)
def test_missing_file_of_cub_is_named_with_where_to_get_it(tmp_path, name):
    (write_cub(tmp_path) / "CUB_200_2011" / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name}: no such file or folder. CUB-200-2011: .*data get cub.*data.caltech"):
        CUB(tmp_path)


def test_missing_pictures_of_cub_are_named_and_counted(tmp_path):
    for path in list((write_cub(tmp_path) / "CUB_200_2011").rglob("*Black*.jpg")):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"Black_footed_Albatross_0001.jpg and 1 more: no such file. CUB-200-2011:"):
        CUB(tmp_path)
    assert len(CUB(tmp_path, size=32, partial=True)) == 1


def test_lines_of_cub_that_cannot_be_read_or_are_missing_are_named(tmp_path):
    boxes = write_cub(tmp_path) / "CUB_200_2011" / "bounding_boxes.txt"
    boxes.write_text("1 30.0 20.0 40.0 30.0\n2 10.0 10.0\n")
    with pytest.raises(ValueError, match="bounding_boxes.txt, line 2: cannot be read: '2 10.0 10.0'"):
        CUB(tmp_path)
    boxes.write_text("1 30.0 20.0 40.0 30.0\n")
    with pytest.raises(ValueError, match="label, box or keypoints of picture 2"):
        CUB(tmp_path)


def test_wrong_number_of_pictures_is_named(tmp_path, monkeypatch):
    root = write_cub(tmp_path)
    monkeypatch.setattr(CUB, "counts", {"all": 11_788, "train": 5994, "test": 5794})
    with pytest.raises(ValueError, match="3 pictures in split 'all' of cub, published are 11788; partial=True takes what is"):
        CUB(root)
    assert len(CUB(root, size=32, partial=True)) == 3


def test_dogs_take_the_largest_dog_of_a_picture(tmp_path):
    dogs = StanfordDogs(write_dogs(tmp_path), size=32)
    assert [photo.box for photo in dogs.photos] == [(20, 10, 60, 50), (10, 20, 30, 30)]
    assert [StanfordDogs(tmp_path, split=split).batch([0])["label"].item() for split in ("train", "test")] == [0, 1]
    assert len(StanfordDogs(tmp_path, split="all")) == 3
    item = StanfordDogs(tmp_path, size=75, augment=False)[0]
    assert white_box(item["image"]) == pytest.approx(item["box"][0].tolist(), abs=1.01)


def test_what_is_wrong_with_dogs_is_named(tmp_path):
    write_dogs(tmp_path)
    annotation = tmp_path / "Annotation" / "n02085620-Chihuahua" / "n02085620_8"
    annotation.write_text("<annotation></annotation>")
    with pytest.raises(ValueError, match="n02085620_8 has no box that can be read: .*vision.stanford.edu"):
        StanfordDogs(tmp_path)
    annotation.unlink()
    with pytest.raises(FileNotFoundError, match="n02085620_8: no such file"):
        StanfordDogs(tmp_path)
    savemat(tmp_path / "train_list.mat", {"labels": [1]})
    with pytest.raises(ValueError, match="train_list.mat has no file_list. Stanford Dogs: "):
        StanfordDogs(tmp_path)
    (tmp_path / "train_list.mat").write_text("not MATLAB's")
    with pytest.raises(ValueError, match="train_list.mat is no MATLAB file that can be read"):
        StanfordDogs(tmp_path)


def test_cars(tmp_path):
    cars = StanfordCars(write_cars(tmp_path), size=32, augment=False)
    assert [photo.box for photo in cars.photos] == [(20, 10, 60, 40), (10, 30, 30, 30)]
    batch = cars.batch([0, 1])
    assert batch["label"].tolist() == [13, 1]
    for image, box in zip(batch["image"], batch["box"], strict=True):
        assert white_box(image) == pytest.approx(box.tolist(), abs=1.01)
    assert len(StanfordCars(tmp_path / "stanford_cars", split="test")) == 2
    (tmp_path / "stanford_cars" / "devkit" / "cars_meta.mat").unlink()
    with pytest.raises(FileNotFoundError, match="cars_meta.mat: no such file or folder. Stanford Cars: "):
        StanfordCars(tmp_path)
    savemat(tmp_path / "stanford_cars" / "devkit" / "cars_train_annos.mat", {"something": [1]})
    with pytest.raises(ValueError, match="cars_train_annos.mat has no annotations. Stanford Cars: "):
        StanfordCars(tmp_path)


def test_flowers(tmp_path):
    flowers = Flowers102(write_flowers(tmp_path), size=80, augment=False)
    assert len(flowers) == 6 and flowers.batch(range(6))["label"].tolist() == [76, 76, 0, 1, 1, 101]
    assert [photo.path.stem for photo in Flowers102(tmp_path, split="train").photos] == ["image_00002", "image_00004"]
    mask = flowers[0]["mask"][0]  # the middle square begins at x = 10
    assert mask[22:58, 22:58].mean() > 0.99 and mask.mean() == pytest.approx(0.25, abs=0.02)


def test_flowers_with_other_labels_than_published_are_refused(tmp_path, monkeypatch):
    write_flowers(tmp_path)
    wrong = {name: (file, "0" * 32) for name, (file, _) in datasets.Flowers102._file_dict.items()}
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", wrong)
    with pytest.raises(ValueError, match="corrupted.*Oxford Flowers 102: "):
        Flowers102(tmp_path)


def test_clevr6_has_the_scenes_of_at_most_six_objects_and_the_published_crop(tmp_path):
    scenes = CLEVR6(write_clevr(tmp_path), size=192, split="val", augment=False)
    batch = scenes.batch(range(2))
    assert len(scenes) == 2 and batch["objects"].tolist() == [2, 6]
    array = np.asarray(Image.open(scenes.photos[1].path))[29:221, 64:256]
    torch.testing.assert_close(batch["image"][1], torch.from_numpy(array.copy()).permute(2, 0, 1) / 127.5 - 1)


@pytest.mark.parametrize("masks", ["whole", "each"])
def test_clevr6_masks_are_the_union_of_the_objects(tmp_path, masks):
    mask = CLEVR6(write_clevr(tmp_path, masks=masks), size=192, split="val", augment=False)[0]["mask"][0]
    expected = torch.zeros(192, 192)
    expected[60 - 29 : 100 - 29, 100 - 64 : 150 - 64] = 1
    assert torch.equal(mask.as_subclass(torch.Tensor), expected)


def test_clevr6_masks_of_two_sizes_are_named(tmp_path):
    root = write_clevr(tmp_path, masks="each")
    write_mask(next(root.rglob("CLEVR_val_000000_2.png")), 32, 24, (1, 1, 5, 5))
    data = CLEVR6(root, size=32, split="val")
    with pytest.raises(ValueError, match="000000_1.png and .*000000_2.png are of two sizes"):
        data.batch([0])
    (problem,) = data.problems()
    assert "000000_2.png is 32 x 24 pixels, its picture 320 x 240" in problem


def test_clevr6_counts_all_scenes(tmp_path, monkeypatch):
    monkeypatch.setattr(CLEVR6, "counts", {"val": 15_000})
    with pytest.raises(ValueError, match="3 pictures in split 'val' of clevr6, published are 15000"):
        CLEVR6(write_clevr(tmp_path), split="val")


@pytest.mark.parametrize(("kind", "published"), [(CIFAR10, datasets.CIFAR10), (CIFAR100, datasets.CIFAR100)])
def test_cifar(tmp_path, monkeypatch, kind, published):
    for name, value in write_cifar(tmp_path, published).items():
        monkeypatch.setattr(published, name, value)
    test = kind(tmp_path, split="test", augment=False)
    array, label = published(tmp_path, train=False)[2]
    item = test[2]
    torch.testing.assert_close(item["image"], torch.from_numpy(np.array(array)).permute(2, 0, 1) / 127.5 - 1)
    assert item["label"] == label == 4 and len(test) == 4 and item["box"].tolist() == [[8, 8, 24, 24]]
    mirrored = kind(tmp_path, split="test").batch([2] * 20)["image"]
    kinds = {tuple(picture.flatten()[:6].tolist()) for picture in mirrored}
    assert kinds == {tuple(picture.flatten()[:6].tolist()) for picture in (item["image"], item["image"].flip(-1))}
    assert kind(tmp_path, size=64, split="test").batch([0])["image"].shape == (1, 3, 64, 64)


def test_cifar_that_is_damaged_missing_or_has_no_such_split_is_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="cifar-10-batches-py: no such file or folder. CIFAR: "):
        CIFAR10(tmp_path)
    write_cifar(tmp_path, datasets.CIFAR10)  # its checksums are not the published ones
    with pytest.raises(ValueError, match="corrupted.*CIFAR: "):
        CIFAR10(tmp_path)
    with pytest.raises(ValueError, match="split must be one of"):
        CIFAR10(tmp_path, split="val")


# ---- read once


def test_pictures_are_decoded_once(folder, monkeypatch):
    first = PhotoFolder(folder, size=32, augment=False).batch(range(4))
    monkeypatch.setattr(photos, "read_picture", lambda *_, **__: pytest.fail("decoded again"))
    again = PhotoFolder(folder, size=32, augment=False).batch(range(4))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_cache_is_one_however_the_folder_is_spelled(folder, monkeypatch):
    PhotoFolder(folder, size=32, augment=False).batch([0])
    monkeypatch.setattr(photos, "read_picture", lambda *_, **__: pytest.fail("decoded again"))
    monkeypatch.chdir(folder.parent)
    for spelled in (folder.name, f"../{folder.parent.name}/{folder.name}"):
        PhotoFolder(spelled, size=32, augment=False).batch([0])


@pytest.mark.parametrize("change", ["picture", "box", "new"])
def test_cache_is_thrown_away_when_the_source_changes(folder, change):
    first = PhotoFolder(folder, size=32, augment=False).batch([0])
    if change == "picture":
        path = folder / "images" / "a.png"
        about = path.stat()
        write_picture(path, 120, 80)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 10**9))
    lines = (folder / "boxes.csv").read_text().splitlines()
    if change == "box":
        (folder / "boxes.csv").write_text("\n".join([lines[0], "a.png,1,1,20,20", *lines[2:]]))
    if change == "new":
        write_picture(folder / "images" / "0.png", 120, 80, (10, 10, 60, 60))
        write_mask(folder / "masks" / "0.png", 120, 80, (10, 10, 60, 60))
        (folder / "boxes.csv").write_text("\n".join([*lines, "0.png,10,10,60,60"]))
    again = PhotoFolder(folder, size=32, augment=False).batch([0])
    assert not (torch.equal(first["image"], again["image"]) and torch.equal(first["box"], again["box"]))
    assert len(list((folder.parent / "cache").glob("folder-*"))) == 1


def test_a_run_knows_its_pictures_in_a_copy_of_their_folder_and_others_of_the_same_number(folder):
    def described(root):
        return PhotoFolder(root, size=32).described

    copied = shutil.copytree(folder, folder.parent / "copied", copy_function=shutil.copyfile)  # at other times
    assert described(copied) == described(folder)
    shutil.rmtree(copied / "masks")
    assert described(copied) == described(folder)
    write_picture(copied / "images" / "a.png", 121, 80)
    assert described(copied) != described(folder)


def test_each_size_has_its_cache(folder):
    shapes = [PhotoFolder(folder, size=size).batch([0])["image"].shape[-1] for size in (16, 32, 16)]
    assert shapes == [16, 32, 16]
    assert len(list((folder.parent / "cache").glob("folder-*"))) == 2


def test_data_set_can_be_sent_to_a_worker(folder):
    data = PhotoFolder(folder, size=32, augment=False)
    expected = data.batch([2])["image"]
    assert torch.equal(pickle.loads(pickle.dumps(data)).batch([2])["image"], expected)


def test_sheet_shows_whole_pictures_with_red_boxes_above_the_objects_views(folder):
    sheet = PhotoFolder(folder, size=32).sheet(n=4, cell=60)
    assert sheet.dtype == torch.uint8 and sheet.shape == (3, 2 * 62 + 2, 4 * 62 + 2)
    red = (sheet[0] > 200) & (sheet[1] < 100) & (sheet[2] < 100)
    rows, _ = torch.where(red)
    assert len(rows) > 100 and rows.max() < 62


def test_sheet_shows_the_narrowest_strip(tmp_path):
    write_picture(tmp_path / "images" / "a.png", 4000, 20)
    assert PhotoFolder(tmp_path, size=16).sheet(cell=160).shape == (3, 2 * 162 + 2, 162 + 2)


def test_sheet_of_fewer_pictures_shows_each_once(tmp_path):
    data = PhotoFolder(write_folder(tmp_path, BOXES[:3]), size=32)
    sheet = data.sheet(n=12, cell=60)
    assert torch.equal(sheet, data.sheet(n=3, cell=60))
    first, second, third = (sheet[:, 2:62, 2 + 62 * i : 62 + 62 * i] for i in range(3))
    assert not (torch.equal(first, second) or torch.equal(second, third))
