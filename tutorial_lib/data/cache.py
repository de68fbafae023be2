"""Pictures decoded and resized once, then read from one memory-mapped file.

    cache = cached({"name": "cub", "size": 128}, fingerprint, rows, length=11_788)
    cache.picture("image", 7)    # (3, 128, 128) uint8
    cache.values["label"]        # (11788,)

A cache is a folder: `pictures.bin` holds the pictures one after the other, each of any shape; `index.npz` where they lie and
the numbers that belong to them; `cache.json` what they were made of. Folders lie in `TUTORIAL_LIB_CACHE` if that is set, else
in `~/.cache/tutorial_lib`. Every one can be deleted at any time.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock

Row = tuple[
    dict[str, np.ndarray], dict[str, np.ndarray]
]  # pictures (uint8, any shape) and values (the same shape in every row)


def home() -> Path:
    """The folder that caches lie in."""
    system = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TUTORIAL_LIB_CACHE") or system / "tutorial_lib")


class PictureCache:
    """A finished cache, open for reading. `values`: arrays with one row a picture."""

    def __init__(self, folder: Path):
        self.folder = folder
        with (folder / "index.npz").open("rb") as file, np.load(file, allow_pickle=False) as index:
            arrays = {name: index[name] for name in index.files}
        self.values = {name[6:]: array for name, array in arrays.items() if name.startswith("value.")}
        self._places = {name[6:]: array for name, array in arrays.items() if name.startswith("place.")}
        self._bytes = np.memmap(folder / "pictures.bin", dtype=np.uint8, mode="r")

    def __len__(self) -> int:
        return len(next(iter(self._places.values())))

    def __reduce__(self):  # a process that gets the data set opens the file itself: a pickled memory map would be a copy
        return PictureCache, (self.folder,)

    @property
    def pictures(self) -> tuple[str, ...]:
        """Names of the kinds of picture in each row."""
        return tuple(self._places)

    def picture(self, name: str, row: int) -> np.ndarray:
        """A copy of one picture, uint8."""
        start, *shape = self._places[name][row]
        return np.array(self._bytes[start : start + np.prod(shape)]).reshape(shape)


def cached(
    key: Mapping[str, Any], fingerprint: str, rows: Callable[[], Iterable[Row]], *, length: int, folder: Path | None = None
) -> PictureCache:
    """The cache of `key`, built from `rows()` if there is none yet or if it was built from another source.

    key: what the pictures are (JSON; `name` begins the folder's name). fingerprint: of the source; a cache with another one is
    thrown away. length: how many rows to expect, to know whether the disk has room. folder: instead of `home()`.
    Of several processes that come at once one builds and the others wait for it; whoever dies while it builds leaves nothing
    that could be taken for a cache. Raises OSError (ENOSPC, EDQUOT) if the disk has no room, or the user, and whatever `rows`
    raises.
    """
    parent = home() if folder is None else folder
    place = parent / f"{key['name']}-{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]}"
    if (ready := _open(place, fingerprint)) is not None:
        return ready
    parent.mkdir(parents=True, exist_ok=True)
    with FileLock(parent / f".{place.name}.lock"):
        if (ready := _open(place, fingerprint)) is not None:
            return ready
        for old in (place, *parent.glob(f".{place.name}.*.building")):
            shutil.rmtree(old, ignore_errors=True)
        building = parent / f".{place.name}.{os.getpid()}.building"
        building.mkdir()
        try:
            size = _write(building, rows(), length)
            about = {"key": dict(key), "fingerprint": fingerprint, "bytes": size}
            (building / "cache.json").write_text(json.dumps(about, indent=2) + "\n")
            building.rename(place)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or error.filename is not None:
                raise
            message = f"the cache could not be written: {error.strerror}; TUTORIAL_LIB_CACHE names another place"
            raise OSError(error.errno, message, str(parent)) from error
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return PictureCache(place)


def _open(place: Path, fingerprint: str) -> PictureCache | None:
    """The cache at `place`, or None if there is none, or a damaged one, or one of another source."""
    try:
        about = json.loads((place / "cache.json").read_text())
        if about["fingerprint"] != fingerprint or (place / "pictures.bin").stat().st_size != about["bytes"]:
            return None
        return PictureCache(place)
    except (OSError, ValueError, KeyError, TypeError, EOFError, StopIteration, BadZipFile):
        return None


def _write(folder: Path, rows: Iterable[Row], length: int) -> int:
    """Write all rows; returns the size of pictures.bin."""
    places: dict[str, list[tuple[int, ...]]] = {}
    values: dict[str, list[np.ndarray]] = {}
    with (folder / "pictures.bin").open("wb") as file:
        for pictures, numbers in rows:
            if not places:
                _check_room(folder.parent, length * sum(picture.nbytes for picture in pictures.values()))
            for name, picture in pictures.items():
                places.setdefault(name, []).append((file.tell(), *picture.shape))
                file.write(np.ascontiguousarray(picture).data)
            for name, number in numbers.items():
                values.setdefault(name, []).append(number)
        size = file.tell()
    if not places:
        raise ValueError("no picture can be used: there is nothing to cache")
    index = {f"place.{name}": np.array(place, dtype=np.int64) for name, place in places.items()}
    np.savez(folder / "index.npz", **index, **{f"value.{name}": np.stack(number) for name, number in values.items()})
    return size


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        amounts = f"needs about {needed / 2**20:.0f} MiB, free are {free / 2**20:.0f} MiB"
        raise OSError(
            errno.ENOSPC, f"no disk space for the cache: {amounts}; TUTORIAL_LIB_CACHE names another place", str(folder)
        )
