"""Faces with known attributes, by the names of their files: MultiPIE, RaFD, BU-3DFE and FaceScrub.

    train, held_out = RaFD("~/data/rafd", size=128), RaFD("~/data/rafd", size=128, split="held_out")
    batch = train.batch(range(16))   # image, identity, expression, gaze

Splits are those of Oldfield, Panagakis and Nicolaou (methods/uniform_posterior), of identities: people of `held_out` are not in
`train`. Identities are numbered with those of the training split first, as in PaperFaces. None of the four can be downloaded
freely: their licences are between you and those who made them.
"""

import re
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from tutorial_lib.data.photos import EXTENSIONS, Photo, Photographs, Sample, files_below, pictures_below


class AttributeFaces(Photographs):
    """Pictures whose names match `pattern`, anywhere below the folder; others are left alone.

    `attributes` counts the identities of the whole data set's training split. Items are as of `Photographs`, without the
    background's view unless asked for, and with the attributes, each int64 (strength float in [0, 1]); no labels but these. A
    split's identities: all but the held-out ones, or these.
    """

    pattern: ClassVar[re.Pattern]
    label = "expression"
    splits = ("train", "held_out", "all")
    margin = 1.0
    flips = False

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        cls.n_classes = cls.attributes.get(cls.label)

    def __init__(
        self,
        root: str | Path,
        size: int = 64,
        split: str | None = None,
        augment: bool = True,
        scene: bool = False,
        partial: bool = False,
    ):
        super().__init__(root, size, split, augment, scene, partial)

    def parse(self, name: re.Match, path: Path) -> tuple[str, dict[str, int | float]] | None:
        """Person and attributes of a picture, or None if it is not one of those that are used."""
        raise NotImplementedError

    def held_out(self, people: list[str]) -> list[str]:
        """Which of the people (sorted) are held out."""
        raise NotImplementedError

    def list_photos(self) -> list[Photo]:
        matched = ((path, self.pattern.fullmatch(path.stem)) for path in pictures_below(self.root))
        parsed = [(path, known) for path, name in matched if name and (known := self.parse(name, path))]
        people = sorted({person for _, (person, _) in parsed})
        held_out = set(self.held_out(people))
        self.people = tuple(sorted(people, key=lambda person: (person in held_out, person)))
        number = {person: i for i, person in enumerate(self.people)}
        wanted = {"all": set(people), "held_out": held_out, "train": set(people) - held_out}[self.split]
        return [
            Photo(path, values={"identity": number[person], **attributes})
            for path, (person, attributes) in parsed
            if person in wanted
        ]


class MultiPIE(AttributeFaces):
    """CMU Multi-PIE, frontal camera 05_1: identity, expression (in the order of `EXPRESSIONS`) and illumination: 1 … 18,
    the flash, or 0 for none (of the twenty pictures of a recording the first, 00, and the last, 19).

    Files are named SSS_NN_RR_CCC_II: subject, session, recording, camera, flash; session and recording tell the expression. The
    first ten people are held out. The paper takes 686 pictures of each expression and does not say which; here are all, so that
    neutral ones outnumber the others. The crop is the square at the top. That is the released script's for pictures cut around
    the face, which its crop of 220 pixels takes for granted. Gross et al., FG 2008.
    """

    name = "multipie"
    about = (
        "CMU Multi-PIE is licensed by Carnegie Mellon University: ask at https://www.cs.cmu.edu/afs/cs/project/PIE/MultiPie/. "
        "The folder may have any subfolders (such as session01/multiview/001/01/05_1/) with files as 001_01_01_051_07.png; "
        "to train as the paper does, cut them around the faces first, about 220 pixels wide."
    )
    attributes: ClassVar = {"identity": 327, "expression": 4, "illumination": 19}
    pattern = re.compile(r"(?P<person>\d{3})_(?P<session>\d\d)_(?P<recording>\d\d)_051_(?P<flash>\d\d)")
    EXPRESSIONS = ("neutral", "scream", "squint", "surprise")
    # Of each session the recordings; smile and disgust are not used.
    recordings: ClassVar = {
        ("01", "01"): "neutral", ("02", "01"): "neutral", ("02", "02"): "surprise", ("02", "03"): "squint",
        ("03", "01"): "neutral", ("04", "01"): "neutral", ("04", "02"): "neutral", ("04", "03"): "scream",
    }  # fmt: skip

    def parse(self, name: re.Match, path: Path) -> tuple[str, dict[str, int | float]] | None:
        expression = self.recordings.get((name["session"], name["recording"]))
        if expression is None:
            return None
        return name["person"], {"expression": self.EXPRESSIONS.index(expression), "illumination": int(name["flash"]) % 19}

    def held_out(self, people: list[str]) -> list[str]:
        return people[:10]

    def window(self, photo: Photo, height: int, width: int) -> tuple[int, int, int]:
        side = min(height, width)
        return 0, (width - side) // 2, side


class RaFD(AttributeFaces):
    """Radboud Faces Database, frontal pictures: identity, expression and gaze, in the order of `EXPRESSIONS` and `GAZES`.

    Files are named Rafd090_PERSON_GROUP_GENDER_EXPRESSION_GAZE. The numerically first eight of the 67 people are held out, 192
    pictures, as the paper says (the released script has person 64 in place of the eighth). Pictures are flipped at random in
    training, and with them the gaze. The crop is the published one: 640 pixels of 681 x 1024, its centre 128 above the
    picture's. Langner et al., Cognition and Emotion 2010.
    """

    name = "rafd"
    about = (
        "The Radboud Faces Database is given to researchers who ask at https://rafd.socsci.ru.nl. The folder must have its "
        "files, as Rafd090_01_Caucasian_female_angry_frontal.jpg."
    )
    attributes: ClassVar = {"identity": 59, "expression": 8, "gaze": 3}
    pattern = re.compile(r"Rafd090_(?P<person>\d\d)_[^_]+_[^_]+_(?P<expression>[a-z]+)_(?P<gaze>[a-z]+)")
    counts: ClassVar = {"train": 1416, "held_out": 192, "all": 1608}
    EXPRESSIONS = ("angry", "contemptuous", "disgusted", "fearful", "happy", "neutral", "sad", "surprised")
    GAZES = ("left", "frontal", "right")
    flips = True

    def parse(self, name: re.Match, path: Path) -> tuple[str, dict[str, int | float]]:
        return name["person"], {
            "expression": _number(name["expression"], self.EXPRESSIONS, path),
            "gaze": _number(name["gaze"], self.GAZES, path),
        }

    def held_out(self, people: list[str]) -> list[str]:
        return people[:8]

    def window(self, photo: Photo, height: int, width: int) -> tuple[int, int, int]:
        side = min(round(640 / 681 * width), height)
        top = round((height - side) / 2 - 128 / 681 * width)
        return max(top, 0), (width - side) // 2, side

    def mirrored(self, values: Sample) -> Sample:
        return values | {"gaze": 2 - values["gaze"]}


class BU3DFE(AttributeFaces):
    """BU-3DFE, the 2D frontal projections: identity, expression (in the order of `EXPRESSIONS`) and its strength, 0 … 1 in
    quarters.

    Files are named PERSON_XXkkGG_F2D: expression XX, level kk of 4 (00 for neutral, which has strength 0), group GG. Ten of the
    100 people are held out, drawn at random as the released script draws them; the paper counts 24 pictures a person, without
    the neutral one, which is here too. The yellow border of two pixels is cut off. Yin et al., FG 2006.
    """

    name = "bu3dfe"
    about = (
        "BU-3DFE is licensed by Binghamton University: ask at "
        "https://www.cs.binghamton.edu/~lijun/Research/3DFE/3DFE_Analysis.html. The folder must have a folder a person with "
        "files as F0001/F0001_AN01WH_F2D.bmp."
    )
    attributes: ClassVar = {"identity": 90, "expression": 7}
    pattern = re.compile(r"(?P<person>[FM]\d{4})_(?P<expression>[A-Z]{2})(?P<level>\d\d)[A-Z]{2}_F2D")
    counts: ClassVar = {"train": 2250, "held_out": 250, "all": 2500}
    EXPRESSIONS = ("AN", "DI", "FE", "HA", "NE", "SA", "SU")

    def parse(self, name: re.Match, path: Path) -> tuple[str, dict[str, int | float]]:
        expression = _number(name["expression"], self.EXPRESSIONS, path)
        return name["person"], {"expression": expression, "strength": int(name["level"]) / 4}

    def held_out(self, people: list[str]) -> list[str]:
        return [people[i] for i in np.random.RandomState(1234).permutation(len(people))[:10]]

    def window(self, photo: Photo, height: int, width: int) -> tuple[int, int, int]:
        side = min(height, width) - 4
        return (height - side) // 2, (width - side) // 2, side


class FaceScrub(AttributeFaces):
    """FaceScrub: faces of 530 people, each in a folder of the person's name; identity, and nothing else.

    Below the folder lie the faces that the downloaders of its lists cut out (`actors/faces/NAME/`, `actresses/faces/NAME/`, or
    `NAME/face/`), or folders of names only; whole pictures (`…/images/…`, or beside `face/`) are left alone. Many of its links
    are dead, so the number of pictures is not checked, and the paper (methods/gmvae) has no split. Ng and Winkler, ICIP 2014.
    """

    name = "facescrub"
    about = (
        "FaceScrub is a list of links, given to researchers who ask at http://vintage.winklerbros.net/facescrub.html. The "
        "folder must have a folder a person with the cut-out faces."
    )
    label = "identity"
    attributes: ClassVar = {"identity": 530}
    pattern = re.compile(r".+")
    splits = ("all",)
    flips = True

    def parse(self, name: re.Match, path: Path) -> tuple[str, dict[str, int | float]] | None:
        below = path.relative_to(self.root).parts[:-1]
        if len(below) > 1 and below[-1] == "face":
            return below[-2], {}
        whole = not below or "images" in below or path.parent in self._cut_out
        return None if whole else (below[-1], {})

    @cached_property
    def _cut_out(self) -> set[Path]:
        """Folders of whole pictures, with the faces in one below."""
        return {path.parent.parent for path in files_below(self.root) if path.parent.name == "face"}

    def left_out(self) -> list[Path]:
        others = (path for path in files_below(self.root) if path.suffix.lower() not in EXTENSIONS)
        return [path for path in others if self.parse(self.pattern.fullmatch(path.stem), path)]

    def held_out(self, people: list[str]) -> list[str]:
        return []


def _number(word: str, words: tuple[str, ...], path: Path) -> int:
    if word not in words:
        raise ValueError(f"{path}: {word!r} is none of {', '.join(words)}")
    return words.index(word)
