"""Downloads of the data sets whose makers offer them to everybody: with a progress bar, resumed where they broke off, checked.

    get("cub", Path("data/cub"))

(Downloaders at hand, pooch and torchvision's among them, begin anew after an interruption; these files have up to 18 GB.)
"""

import errno
import hashlib
import shutil
import tarfile
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, IncompleteRead
from pathlib import Path

from tqdm import tqdm

CHUNK = 2**20
TIMEOUT = 30  # seconds without a byte


@dataclass(frozen=True)
class Archive:
    """A file to download. `makes`, below the root, is there once it is unpacked; a file that is no archive is put there."""

    url: str
    md5: str
    makes: str


_FLOWERS = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
_CALTECH = "https://data.caltech.edu/records"
ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "cub": (
        Archive(f"{_CALTECH}/65de6-vp158/files/CUB_200_2011.tgz", "97eceeb196236b17998738112f37df78", "CUB_200_2011"),
        Archive(f"{_CALTECH}/w9d68-gec53/files/segmentations.tgz", "4d47ba1228eae64f2fa547c47bc65255", "segmentations"),
    ),
    "flowers": (
        Archive(f"{_FLOWERS}/102flowers.tgz", "52808999861908f626f3c1f4e79d11fa", "flowers-102/jpg"),
        Archive(f"{_FLOWERS}/102segmentations.tgz", "51375996b6c4f367a4b9f4492d7ecef5", "flowers-102/segmim"),
        Archive(f"{_FLOWERS}/imagelabels.mat", "e0620be6f572b9609742df49c70aed4d", "flowers-102/imagelabels.mat"),
        Archive(f"{_FLOWERS}/setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c", "flowers-102/setid.mat"),
    ),
    "clevr6": (
        Archive("https://dl.fbaipublicfiles.com/clevr/CLEVR_v1.0.zip", "b11922020e72d0cd9154779b2d3d07d2", "clevr/CLEVR_v1.0"),
    ),
    "cifar10": (
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", "cifar-10-batches-py"
        ),
    ),
    "cifar100": (
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", "cifar-100-python"
        ),
    ),
}
TERMS = {
    "cub": "for research and education, not for commercial use; the pictures belong to their photographers",
    "flowers": "for research; the pictures belong to their photographers",
    "clevr6": "CC BY 4.0",
    "cifar10": "for research; no licence is stated",
    "cifar100": "for research; no licence is stated",
}


def get(name: str, root: Path) -> None:
    """Download and unpack a data set of `ARCHIVES` into `root`; what is there already is left as it is.

    Raises OSError if the network or the disk fails (what was loaded stays, and the next call goes on from there) and ValueError
    if a file arrived that is not the published one, or lies there.
    """
    for archive in ARCHIVES[name]:
        target = root / archive.makes
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        file = target.parent / archive.url.rsplit("/", 1)[1]
        if not file.exists():
            download(archive.url, file, archive.md5)
        elif (found := _md5(file)) != archive.md5:  # put there by hand; ours is still there if unpacking was cut short
            raise ValueError(f"{file} is not the published file: its MD5 is {found}; remove it and run the same command again")
        if file != target:
            _unpack(file, target)


def download(url: str, file: Path, md5: str) -> None:
    """Load `url` into `file`, through FILE.part, which a later call goes on with. Raises as `get` does."""
    part = file.with_name(f"{file.name}.part")
    try:
        _load(url, part)
    except (TimeoutError, ConnectionError, HTTPException) as error:  # none of them names the address
        reason = f"{type(error).__name__}, {str(error).strip()}"
        raise OSError(f"{url}: {reason}; the same command goes on from there") from error
    if (found := _md5(part)) != md5:
        part.unlink()
        raise ValueError(f"{url} is not the published file: its MD5 is {found}, published is {md5}; it was removed, try again")
    part.replace(file)


def _md5(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def _load(url: str, part: Path) -> None:
    done = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "tutorial_lib"} | ({"Range": f"bytes={done}-"} if done else {})
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:  # nothing is left to load
            return
        raise OSError(f"{url}: {error}") from error
    except urllib.error.URLError as error:
        raise OSError(f"{url} cannot be reached: {error.reason}") from error
    with answer:
        if answer.status != 206:  # the whole file again: the server cannot go on from the middle
            done = 0
        left = int(answer.headers.get("Content-Length") or 0)
        free = shutil.disk_usage(part.parent).free
        needed = left + (done + left)  # the rest of the archive, and what is in all of it
        if free < needed:
            amounts = f"needs about {needed / 2**20:.0f} MiB, free are {free / 2**20:.0f} MiB"
            raise OSError(errno.ENOSPC, f"no disk space for {part.name}: {amounts}", str(part.parent))
        whole = False
        show = {"unit": "B", "unit_scale": True, "desc": part.name.removesuffix(".part")}
        with (
            suppress(IncompleteRead),
            part.open("ab" if done else "wb") as file,
            tqdm(total=done + left, initial=done, **show) as bar,
        ):
            while chunk := answer.read1(CHUNK):  # what has come: `read` would lose it if the rest does not
                file.write(chunk)
                bar.update(len(chunk))
            whole = True  # a reply in chunks, which does not say how long it is, has said its end
    loaded = part.stat().st_size - done
    if loaded < left or not whole:
        of = f" of {left}" if left else ""
        raise OSError(f"{url} broke off after {loaded}{of} bytes; the same command goes on from there")


def _unpack(file: Path, target: Path) -> None:
    """Unpack an archive beside `target`, whole or not at all, and remove it."""
    folder = file.with_name(f".{file.name}.unpacking")
    shutil.rmtree(folder, ignore_errors=True)
    # Python learned to filter in 3.11.4; the archive is the one whose checksum was compared.
    safe = {} if file.suffix == ".zip" or not hasattr(tarfile, "data_filter") else {"filter": "data"}
    try:
        shutil.unpack_archive(file, folder, **safe)
    except BaseException:  # of what was unpacked nothing is left, on a full disk least of all
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if not (folder / target.name).exists():
        raise ValueError(f"{file} has no {target.name}")
    (folder / target.name).rename(target)
    shutil.rmtree(folder)
    file.unlink()
