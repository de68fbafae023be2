"""Faces by the names of their files: attributes, splits of people, published crops."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from photo_layouts import write_picture, write_rafd

from tutorial_lib.data.attribute_faces import BU3DFE, FaceScrub, MultiPIE, RaFD


@pytest.fixture(autouse=True)
def small_copies(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_LIB_CACHE", str(tmp_path / "cache"))
    for kind in (RaFD, BU3DFE):
        monkeypatch.setattr(kind, "counts", {})


def write_multipie(root: Path) -> Path:
    """Twelve people in all four sessions, one flash, as the database comes: session, person, recording, camera."""
    for person in range(1, 13):
        for session, recordings in ((1, 2), (2, 3), (3, 3), (4, 3)):
            for recording in range(1, recordings + 1):
                name = f"{person:03d}_{session:02d}_{recording:02d}_051_07.png"
                folder = root / f"session{session:02d}" / "multiview" / f"{person:03d}" / f"{recording:02d}" / "05_1"
                write_picture(folder / name, 32, 24)
    write_picture(root / "session01" / "multiview" / "001" / "01" / "08_1" / "001_01_01_081_07.png", 32, 24)  # not frontal
    return root


def write_bu(root: Path, people: list[str]) -> Path:
    for person in people:
        for code in ("NE00", "AN01", "SU04"):
            write_picture(root / person / f"{person}_{code}WH_F2D.bmp", 24, 24)
            write_picture(root / person / f"{person}_{code}WH_F3D.bmp", 24, 24)
    return root


def test_multipie_reads_expression_from_session_and_recording(tmp_path):
    faces = MultiPIE(write_multipie(tmp_path), size=16)
    batch = faces.batch(range(len(faces)))
    names = [photo.path.stem[4:9] for photo in faces.photos]
    read = {name: faces.EXPRESSIONS[int(e)] for name, e in zip(names, batch["expression"], strict=True)}
    assert read == {
        "01_01": "neutral", "02_01": "neutral", "02_02": "surprise", "02_03": "squint", "03_01": "neutral",
        "04_01": "neutral", "04_02": "neutral", "04_03": "scream",
    }  # fmt: skip
    assert batch["illumination"].unique().tolist() == [7]
    assert batch["image"].shape == (16, 3, 16, 16) and "scene" not in batch


def test_multipie_without_a_flash_is_one_light_whether_first_or_last(tmp_path):
    for flash in (0, 1, 18, 19):
        write_picture(tmp_path / f"011_01_01_051_{flash:02d}.png", 24, 40)
    faces = MultiPIE(tmp_path, size=24, split="all")
    assert {photo.path.stem[-2:]: photo.values["illumination"] for photo in faces.photos} == {
        "00": 0,
        "01": 1,
        "18": 18,
        "19": 0,
    }


def test_multipie_holds_the_first_ten_people_out(tmp_path):
    write_multipie(tmp_path)
    train, held_out = MultiPIE(tmp_path), MultiPIE(tmp_path, split="held_out")
    assert {photo.path.stem[:3] for photo in train.photos} == {"011", "012"}
    assert {photo.path.stem[:3] for photo in held_out.photos} == {f"{i:03d}" for i in range(1, 11)}
    # Those of the training split come first, as in PaperFaces.
    assert {photo.values["identity"] for photo in train.photos} == {0, 1}
    assert {photo.values["identity"] for photo in held_out.photos} == set(range(2, 12))


def test_multipie_takes_the_top_square(tmp_path):
    array = write_picture(tmp_path / "011_01_01_051_07.png", 24, 40)
    image = MultiPIE(tmp_path, size=24, split="all")[0]["image"]
    torch.testing.assert_close(image, torch.from_numpy(array[:24].copy()).permute(2, 0, 1) / 127.5 - 1)


def test_rafd(tmp_path):
    train, held_out = RaFD(write_rafd(tmp_path), size=16), RaFD(tmp_path, size=16, split="held_out")
    assert {photo.path.stem[8:10] for photo in held_out.photos} == {"01", "02", "03", "04", "05", "07", "08", "09"}
    assert {photo.path.stem[8:10] for photo in train.photos} == {"10", "64"}
    assert {photo.values["expression"] for photo in train.photos} == {RaFD.EXPRESSIONS.index("happy")}
    looks = {photo.path.stem.rsplit("_", 1)[1]: photo.values["gaze"] for photo in train.photos}
    assert looks == {"left": 0, "frontal": 1, "right": 2}


def test_rafd_turns_the_gaze_with_the_picture(tmp_path):
    for gaze in RaFD.GAZES:  # light where the gaze goes
        array = np.zeros((102, 68, 3), np.uint8)
        array[:, {"left": slice(0, 34), "frontal": slice(0, 0), "right": slice(34, 68)}[gaze]] = 255
        Image.fromarray(array).save(tmp_path / f"Rafd090_20_Caucasian_male_sad_{gaze}.jpg")
    faces = RaFD(tmp_path, size=16, split="all")
    batch = faces.batch([0, 1, 2] * 10)
    lighter = (batch["image"][..., 8:].mean((1, 2, 3)) - batch["image"][..., :8].mean((1, 2, 3))).sign().long()
    assert torch.equal(lighter, batch["gaze"] - 1)
    looks_left = faces.photos.index(next(photo for photo in faces.photos if photo.values["gaze"] == 0))
    assert set(faces.batch([looks_left] * 20)["gaze"].tolist()) == {0, 2}


def test_rafd_crop_is_the_published_one(tmp_path):
    write_picture(tmp_path / "Rafd090_20_Caucasian_male_sad_left.jpg", 681, 1024, (20, 64, 640, 640))
    faces = RaFD(tmp_path, size=32, split="all", augment=False)
    assert faces.window(faces.photos[0], 1024, 681) == (64, 20, 640)
    assert faces[0]["image"].min() > 0.95  # all of it, and nothing else


def test_word_that_rafd_does_not_know_is_named(tmp_path):
    write_picture(tmp_path / "Rafd090_20_Caucasian_male_bored_left.jpg", 68, 102)
    with pytest.raises(ValueError, match="Rafd090_20_Caucasian_male_bored_left.jpg: 'bored' is none of angry, contemptuous"):
        RaFD(tmp_path)


def test_bu3dfe(tmp_path):
    people = [f"F{i:04d}" for i in range(1, 57)] + [f"M{i:04d}" for i in range(1, 45)]
    for person in people:  # names are enough for the split
        (tmp_path / person).mkdir()
        for code in ("NE00", "AN01", "SU04"):
            (tmp_path / person / f"{person}_{code}WH_F2D.bmp").touch()
    train, held_out = BU3DFE(tmp_path, split="train"), BU3DFE(tmp_path, split="held_out")
    random = np.random.RandomState(1234).permutation(list(range(100)))[:10]  # as the released script draws them
    assert {photo.path.parent.name for photo in held_out.photos} == {people[i] for i in random}
    assert len(train.photos) == 270 and {photo.values["identity"] for photo in train.photos} == set(range(90))
    known = {photo.path.stem[6:10]: (photo.values["expression"], photo.values["strength"]) for photo in train.photos}
    assert known == {"NE00": (4, 0), "AN01": (0, 0.25), "SU04": (6, 1)}


def test_bu3dfe_cuts_the_border_off_and_takes_flat_pictures_only(tmp_path):
    write_bu(tmp_path, ["F0001"])
    path = tmp_path / "F0001" / "F0001_AN01WH_F2D.bmp"
    faces = BU3DFE(tmp_path, size=20, split="all")
    array = np.asarray(Image.open(path))[2:-2, 2:-2]
    assert len(faces) == 3 and faces.photos[0].path == path
    item = faces[0]
    torch.testing.assert_close(item["image"], torch.from_numpy(array.copy()).permute(2, 0, 1) / 127.5 - 1)
    assert item["strength"].dtype == torch.float32 and item["expression"].dtype == torch.int64


def test_facescrub_takes_faces_by_the_folders_of_people(tmp_path):
    for sex, person in (("actors", "Aaron_Eckhart"), ("actresses", "Zooey_Deschanel"), ("actors", "Adam_Brody")):
        for i in range(2):
            write_picture(tmp_path / sex / "faces" / person / f"{person}_{i}.jpeg", 24, 24)
            write_picture(tmp_path / sex / "images" / person / f"{person}_{i}.jpeg", 60, 40)
    faces = FaceScrub(tmp_path, size=16)
    assert faces.people == ("Aaron_Eckhart", "Adam_Brody", "Zooey_Deschanel")
    assert faces.batch(range(6))["identity"].tolist() == [0, 0, 1, 1, 2, 2]


def test_facescrub_whose_faces_lie_beside_the_whole_pictures(tmp_path):
    for person in ("Aaron Eckhart", "Adam Brody"):
        for name in ("1.jpg", "face/1.jpg", "face/2.jpg"):
            write_picture(tmp_path / person / name, 40, 40)
    (tmp_path / "Adam Brody" / "face" / "3.gif").touch()
    (tmp_path / "actors.txt").touch()
    faces = FaceScrub(tmp_path, size=16)
    assert faces.people == ("Aaron Eckhart", "Adam Brody")
    assert [photo.values["identity"] for photo in faces.photos] == [0, 0, 1, 1]
    assert all(photo.path.parent.name == "face" for photo in faces.photos)
    assert [path.name for path in faces.left_out()] == ["3.gif"]


@pytest.mark.parametrize("kind", [MultiPIE, RaFD, BU3DFE, FaceScrub])
def test_folder_without_such_files_says_whom_to_ask(tmp_path, kind):
    write_picture(tmp_path / "holiday.jpg", 24, 24)
    with pytest.raises(FileNotFoundError, match="no pictures in .*( ask at http)"):
        kind(tmp_path)


def test_published_numbers_are_expected(tmp_path, monkeypatch):
    monkeypatch.setattr(RaFD, "counts", {"train": 1416})
    with pytest.raises(ValueError, match="6 pictures in split 'train' of rafd, published are 1416"):
        RaFD(write_rafd(tmp_path))


def test_wrong_split_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"split must be one of \('train', 'held_out', 'all'\), got 'test'"):
        RaFD(tmp_path, split="test")
