"""The memory-mapped cache: what goes in comes out, once, whoever asks; and nothing half made is ever taken for one."""

import errno
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tutorial_lib.data import cache as module
from tutorial_lib.data.cache import cached

KEY = {"name": "set", "size": 8}


def rows(n: int = 3, seed: int = 0):
    random = np.random.default_rng(seed)
    for i in range(n):
        scene = random.integers(0, 256, (3, 4 + i, 5), dtype=np.uint8)  # of another shape in each row
        yield {"image": random.integers(0, 256, (3, 8, 8), dtype=np.uint8), "scene": scene}, {"label": np.array(i)}


def forbidden():
    pytest.fail("the cache was built again")


def test_what_goes_in_comes_out(tmp_path):
    cache = cached(KEY, "a", rows, length=3, folder=tmp_path)
    assert len(cache) == 3 and cache.pictures == ("image", "scene")
    for i, (pictures, _) in enumerate(rows()):
        for name, picture in pictures.items():
            np.testing.assert_array_equal(cache.picture(name, i), picture)
    assert cache.values["label"].tolist() == [0, 1, 2]


def test_pictures_are_mapped_not_loaded(tmp_path):
    assert isinstance(cached(KEY, "a", rows, length=3, folder=tmp_path)._bytes, np.memmap)


def test_second_time_nothing_is_built(tmp_path):
    cached(KEY, "a", rows, length=3, folder=tmp_path)
    assert len(cached(KEY, "a", forbidden, length=3, folder=tmp_path)) == 3


@pytest.mark.parametrize("key", [{"name": "set", "size": 9}, {"name": "other", "size": 8}])
def test_another_key_is_another_cache(tmp_path, key):
    cached(KEY, "a", rows, length=3, folder=tmp_path)
    assert len(cached(key, "a", lambda: rows(2), length=2, folder=tmp_path)) == 2
    assert len(cached(KEY, "a", forbidden, length=3, folder=tmp_path)) == 3


def test_changed_source_throws_the_cache_away(tmp_path):
    cached(KEY, "a", rows, length=3, folder=tmp_path)
    assert len(cached(KEY, "b", lambda: rows(2), length=2, folder=tmp_path)) == 2
    assert len(list(tmp_path.glob("set-*"))) == 1


@pytest.mark.parametrize(
    ("name", "damaged"),
    [
        *((name, lambda content: content[:-10]) for name in ("pictures.bin", "index.npz", "cache.json")),
        ("index.npz", lambda content: b""),
        ("cache.json", lambda content: b"[]"),
    ],
)
def test_damaged_cache_is_built_again(tmp_path, name, damaged):
    path = cached(KEY, "a", rows, length=3, folder=tmp_path).folder / name
    path.write_bytes(damaged(path.read_bytes()))
    again = cached(KEY, "a", rows, length=3, folder=tmp_path)
    np.testing.assert_array_equal(again.picture("image", 2), list(rows())[2][0]["image"])


def test_interrupted_building_leaves_nothing_that_looks_like_a_cache(tmp_path):
    def broken():
        yield from rows(2)
        raise ValueError("picture 2 is damaged")

    with pytest.raises(ValueError, match="picture 2 is damaged"):
        cached(KEY, "a", broken, length=3, folder=tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    assert len(cached(KEY, "a", rows, length=3, folder=tmp_path)) == 3


def test_what_a_killed_process_left_is_swept_away(tmp_path):
    place = cached(KEY, "a", rows, length=3, folder=tmp_path).folder
    left = place.rename(tmp_path / f".{place.name}.999999.building")
    cached(KEY, "a", rows, length=3, folder=tmp_path)
    assert not left.exists()


def test_pickled_cache_carries_the_place_and_not_the_pictures(tmp_path):
    cache = cached(KEY, "a", lambda: rows(300), length=300, folder=tmp_path)
    carried = pickle.dumps(cache)
    assert len(carried) < 1000
    np.testing.assert_array_equal(pickle.loads(carried).picture("image", 250), cache.picture("image", 250))


def test_full_disk_is_said_before_it_happens(tmp_path, monkeypatch):
    usage = module.shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="no disk space for the cache: needs about .* MiB, free are 1 MiB; TUTORIAL_LIB_CACHE"):
        cached(KEY, "a", rows, length=100_000, folder=tmp_path)


def test_a_quota_is_named_when_it_is_met(tmp_path):
    def beyond():
        yield from rows(2)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with pytest.raises(OSError, match="cache could not be written: Disk quota exceeded; TUTORIAL_LIB_CACHE names") as caught:
        cached(KEY, "a", beyond, length=3, folder=tmp_path)
    assert caught.value.filename == str(tmp_path) and caught.value.errno == errno.EDQUOT
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_no_rows_at_all_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no picture can be used"):
        cached(KEY, "a", lambda: iter(()), length=0, folder=tmp_path)


def test_caches_lie_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_LIB_CACHE", str(tmp_path / "here"))
    assert cached(KEY, "a", rows, length=3).folder.parent == tmp_path / "here"


# Each says when it starts, and when it builds; the first to build goes on when the other has started.
ONE_OF_TWO = """
import sys, time
from pathlib import Path
import numpy as np
from tutorial_lib.data.cache import cached

folder, me, other = Path(sys.argv[1]), *sys.argv[2:]

def rows():
    (folder / f"{me}.builds").touch()
    while not (folder / f"{other}.started").exists():
        time.sleep(0.01)
    for i in range(50):
        yield {"image": np.full((3, 16, 16), i, np.uint8)}, {"label": np.array(i)}

(folder / f"{me}.started").touch()
cache = cached({"name": "two"}, "a", rows, length=50, folder=folder / "cache")
print(sum(int(cache.picture("image", i).mean()) for i in range(len(cache))))
"""


def test_of_two_processes_at_once_one_builds_and_both_read_the_same(tmp_path):
    pairs = [("a", "b"), ("b", "a")]
    processes = [
        subprocess.Popen([sys.executable, "-c", ONE_OF_TWO, str(tmp_path), *pair], stdout=subprocess.PIPE, text=True)
        for pair in pairs
    ]
    assert [process.communicate(timeout=300)[0].strip() for process in processes] == [str(sum(range(50)))] * 2
    assert len(list(tmp_path.glob("*.builds"))) == 1
    assert len(list((tmp_path / "cache").glob("two-*"))) == 1


def test_card_of_a_cache_says_what_it_was_made_of(tmp_path):
    folder = cached(KEY, "a", rows, length=3, folder=tmp_path).folder
    about = json.loads((Path(folder) / "cache.json").read_text())
    assert about["key"] == KEY and about["fingerprint"] == "a"
