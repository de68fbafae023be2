"""Tiny copies of published data sets, in their layouts. Pictures are black; the object is white and fills its box."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

Box = tuple[int, int, int, int]  # x, y, width, height


def write_picture(path: Path, width: int, height: int, box: Box | None = None, *, dots: dict | None = None) -> np.ndarray:
    """A black picture with its box in white, or noise without one; `dots`: {(x, y): grey} of 3 x 3 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if box is None:
        array = np.random.default_rng(width * height).integers(0, 256, (height, width, 3)).astype(np.uint8)
    else:
        array = np.zeros((height, width, 3), np.uint8)
        x, y, w, h = box
        array[y : y + h, x : x + w] = 255
    for (x, y), grey in (dots or {}).items():
        array[y - 1 : y + 2, x - 1 : x + 2] = grey
    options = {"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}
    Image.fromarray(array).save(path, **options)
    return array


def write_mask(path: Path, width: int, height: int, box: Box, value: int = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((height, width), np.uint8)
    x, y, w, h = box
    array[y : y + h, x : x + w] = value
    Image.fromarray(array).save(path)


def write_folder(root: Path, boxes: list[Box] | None, *, size: tuple[int, int] = (120, 80), masks: bool = False) -> Path:
    """One's own pictures a.png, b.png, … of `size` (width, height), with boxes.csv if there are boxes."""
    names = [f"{chr(ord('a') + i)}.png" for i in range(len(boxes or range(4)))]
    for i, name in enumerate(names):
        write_picture(root / "images" / name, *size, boxes[i] if boxes else None)
        if masks:
            write_mask(root / "masks" / name, *size, boxes[i])
    if boxes:
        lines = [f"{name},{','.join(map(str, box))}" for name, box in zip(names, boxes, strict=True)]
        (root / "boxes.csv").write_text("\n".join(["file,x,y,width,height", *lines]) + "\n")
    return root


CUB_PICTURES = (  # class, train?, box; of 100 x 80 pixels
    ("001.Black_footed_Albatross", 1, (30, 20, 40, 30)),
    ("001.Black_footed_Albatross", 0, (10, 10, 20, 40)),
    ("002.Laysan_Albatross", 1, (50, 40, 30, 20)),
)


def write_cub(root: Path, *, masks: bool = True) -> Path:
    """Keypoint k of each picture lies at x = left + k + 2 in the middle row of its box; the throat cannot be seen."""
    base = root / "CUB_200_2011"
    tables: dict[str, list[str]] = {name: [] for name in ("images", "image_class_labels", "train_test_split", "bounding_boxes")}
    parts = []
    for i, (name, train, box) in enumerate(CUB_PICTURES, 1):
        file = f"{name}/{name.split('.')[1]}_{i:04d}.jpg"
        write_picture(base / "images" / file, 100, 80, box)
        tables["images"].append(f"{i} {file}")
        tables["image_class_labels"].append(f"{i} {int(name[:3])}")
        tables["train_test_split"].append(f"{i} {train}")
        tables["bounding_boxes"].append(f"{i} {' '.join(f'{value}.0' for value in box)}")
        x, y, _, h = box
        parts += [f"{i} {k} {x + k + 1}.0 {y + h // 2}.0 1" for k in range(1, 15)] + [f"{i} 15 0.0 0.0 0"]
        if masks:
            write_mask((root / "segmentations" / file).with_suffix(".png"), 100, 80, box, value=204)
    for name, lines in tables.items():
        (base / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (base / "parts").mkdir()
    (base / "parts" / "part_locs.txt").write_text("\n".join(parts) + "\n")
    return root


def cells(words: list[str]) -> np.ndarray:
    """A column of strings as MATLAB stores them."""
    array = np.empty((len(words), 1), dtype=object)
    array[:, 0] = words
    return array


def write_dogs(root: Path) -> Path:
    dogs = {  # picture: boxes xmin ymin xmax ymax, breed
        "n02085620-Chihuahua/n02085620_7": ([(5, 5, 15, 15), (20, 10, 80, 60)], 1),
        "n02085620-Chihuahua/n02085620_8": ([(10, 20, 40, 50)], 1),
        "n02085782-Japanese_spaniel/n02085782_2": ([(30, 30, 60, 70)], 2),
    }
    for name, (boxes, _) in dogs.items():
        x1, y1, x2, y2 = boxes[-1]
        write_picture(root / "Images" / f"{name}.jpg", 100, 80, (x1, y1, x2 - x1, y2 - y1))
        found = "".join(
            "<object><bndbox>"
            + "".join(f"<{edge}>{value}</{edge}>" for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
            + "</bndbox></object>"
            for box in boxes
        )
        path = root / "Annotation" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<annotation><size><width>100</width></size>{found}</annotation>")
    names, labels = [f"{name}.jpg" for name in dogs], [[label] for _, label in dogs.values()]
    for split, rows in (("train", slice(0, 2)), ("test", slice(2, 3)), ("file", slice(None))):
        content = {"file_list": cells(names[rows]), "annotation_list": cells(names[rows]), "labels": np.array(labels[rows])}
        savemat(root / f"{split}_list.mat", content)
    return root


def write_cars(root: Path) -> Path:
    base = root / "stanford_cars"
    kinds = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname"]
    (base / "devkit").mkdir(parents=True)
    for split, file in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        annotations = np.array(
            [((20, 10, 80, 50, 14, "00001.jpg")), ((10, 30, 40, 60, 2, "00002.jpg"))], dtype=[(kind, object) for kind in kinds]
        )
        savemat(base / file, {"annotations": annotations})
        for name, box in (("00001.jpg", (20, 10, 60, 40)), ("00002.jpg", (10, 30, 30, 30))):
            write_picture(base / f"cars_{split}" / name, 100, 80, box)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": cells(["AM General Hummer", "Acura RL"]).T})
    return root


def write_flowers(root: Path, *, masks: bool = True) -> Path:
    base = root / "flowers-102"
    for i in range(1, 7):
        write_picture(base / "jpg" / f"image_{i:05d}.jpg", 100, 80, (30, 20, 40, 40))
        if masks:  # the flower as it is, on blue
            array = np.zeros((80, 100, 3), np.uint8)
            array[..., 2] = 254
            array[20:60, 30:70] = (200, 40, 120)
            (base / "segmim").mkdir(exist_ok=True)
            Image.fromarray(array).save(base / "segmim" / f"segmim_{i:05d}.jpg", quality=90)
    savemat(base / "imagelabels.mat", {"labels": np.array([[77, 77, 1, 2, 2, 102]])})
    savemat(base / "setid.mat", {"trnid": np.array([[2, 4]]), "valid": np.array([[1, 6]]), "tstid": np.array([[3, 5]])})
    return root


def write_clevr(root: Path, *, masks: str | None = None) -> Path:
    """Scenes of 2, 6 and 7 objects; masks: None, "whole", or "each" (one a file, background first)."""
    base = root / "clevr" / "CLEVR_v1.0"
    scenes = []
    for i, count in enumerate((2, 6, 7)):
        name = f"CLEVR_val_{i:06d}.png"
        write_picture(base / "images" / "val" / name, 320, 240)
        scenes.append({"image_filename": name, "objects": [{}] * count})
        folder, stem = base / "masks" / "val", name.removesuffix(".png")
        if masks == "whole":
            write_mask(folder / name, 320, 240, (100, 60, 50, 40))
        if masks == "each":
            write_mask(folder / f"{stem}_0.png", 320, 240, (0, 0, 320, 20))
            write_mask(folder / f"{stem}_1.png", 320, 240, (100, 60, 50, 20))
            write_mask(folder / f"{stem}_2.png", 320, 240, (100, 80, 50, 20))
    (base / "scenes").mkdir()
    (base / "scenes" / "CLEVR_val_scenes.json").write_text(json.dumps({"scenes": scenes}))
    return root


def write_cifar(root: Path, kind: type) -> dict[str, object]:
    """CIFAR-10 or -100 with four pictures a file; returns the class attributes with the checksums of these files."""
    base = root / kind.base_folder
    base.mkdir(parents=True)
    random = np.random.default_rng(0)

    def write(name: str, content: dict) -> list[str]:
        data = pickle.dumps(content)
        (base / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(name: str) -> list[str]:
        labels = {"labels" if "10-b" in kind.base_folder else "fine_labels": [3, 1, 4, 1]}
        return write(name, {"data": random.integers(0, 256, (4, 3072)).astype(np.uint8), **labels})

    meta = write(kind.meta["filename"], {kind.meta["key"]: [f"class {i}" for i in range(10)]})
    return {
        "train_list": [batch(name) for name, _ in kind.train_list],
        "test_list": [batch(name) for name, _ in kind.test_list],
        "meta": {**kind.meta, "md5": meta[1]},
    }


def write_rafd(root: Path) -> Path:
    """Ten people of whom eight are held out, all happy, looking three ways; and a picture from the side, not used."""
    for person in ("01", "02", "03", "04", "05", "07", "08", "09", "10", "64"):
        for gaze in ("left", "frontal", "right"):
            write_picture(root / f"Rafd090_{person}_Caucasian_female_happy_{gaze}.jpg", 68, 102)
    write_picture(root / "Rafd045_01_Caucasian_female_happy_left.jpg", 68, 102)
    return root
