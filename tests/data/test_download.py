"""Downloads, from a server of our own: resumed, checked, unpacked; and what goes wrong."""

import hashlib
import io
import socket
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from torchvision import datasets

from tutorial_lib.data import download as module
from tutorial_lib.data.download import ARCHIVES, TERMS, Archive, download, get

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def server():
    """Has CONTENT at every path. `asked`: the Range headers; `honest`: whether it heeds them; `gives`: how much it sends.

    Under /chunked it does not say how long that is, under /slow it does not hang up, and what is under /strange is no HTTP.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            server.asked.append(wanted)
            if self.path.endswith("gone"):
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.honest else 0
            if start >= len(server.content):
                self.send_error(416)
                return
            rest = server.content[start:]
            if self.path.endswith("strange"):
                self.wfile.write(b"220 ready\r\n")
                return
            chunked = self.path.endswith("chunked")
            self.send_response(206 if start else 200)
            self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(rest)))))
            self.end_headers()
            if chunked:
                self.wfile.write(b"%x\r\n" % len(rest))
            self.wfile.write(rest[: server.gives])
            if chunked and server.gives is None:
                self.wfile.write(b"\r\n0\r\n\r\n")
            if self.path.endswith("slow") and server.gives is not None:
                server.over.wait(60)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.asked, server.honest, server.gives = CONTENT, [], True, None
    server.over = threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def test_file_arrives(server, tmp_path):
    download(f"{server.url}/file", tmp_path / "file", md5(CONTENT))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("file", "file broke off after 1000 of 10240 bytes"),
        ("chunked", "chunked broke off after 1000 bytes"),
        ("slow", "slow: TimeoutError, timed out"),
    ],
)
def test_broken_download_goes_on_where_it_stopped(server, tmp_path, monkeypatch, path, message):
    monkeypatch.setattr(module, "TIMEOUT", 1)
    server.gives = 1000
    with pytest.raises(OSError, match=f"^{server.url}/{message}; the same command goes on from there$"):
        download(f"{server.url}/{path}", tmp_path / "file", md5(CONTENT))
    server.gives = None
    download(f"{server.url}/{path}", tmp_path / "file", md5(CONTENT))
    assert server.asked == [None, "bytes=1000-"]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_server_that_cannot_go_on_from_the_middle_sends_all_again(server, tmp_path):
    server.honest = False
    (tmp_path / "file.part").write_bytes(b"something")
    download(f"{server.url}/file", tmp_path / "file", md5(CONTENT))
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_all_there_but_not_moved_yet(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    download(f"{server.url}/file", tmp_path / "file", md5(CONTENT))
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_another_file_than_published_is_refused_and_removed(server, tmp_path):
    with pytest.raises(ValueError, match="is not the published file: its MD5 is"):
        download(f"{server.url}/file", tmp_path / "file", md5(b"else"))
    assert list(tmp_path.iterdir()) == []


def test_address_that_is_gone_is_named(server, tmp_path):
    with pytest.raises(OSError, match="/gone: .*404"):
        download(f"{server.url}/gone", tmp_path / "file", md5(CONTENT))


def test_reply_that_is_no_http_is_named(server, tmp_path):
    with pytest.raises(OSError, match="/strange: BadStatusLine, 220 ready; the same command"):
        download(f"{server.url}/strange", tmp_path / "file", md5(CONTENT))


def test_host_that_is_not_there_is_named(tmp_path):
    with socket.socket() as free:  # bound, but nobody listens
        free.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="cannot be reached"):
            download(f"http://127.0.0.1:{free.getsockname()[1]}/file", tmp_path / "file", md5(CONTENT))


def test_full_disk_is_said_before_it_happens(server, tmp_path, monkeypatch):
    usage = module.shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="no disk space for file.part"):
        download(f"{server.url}/file", tmp_path / "file", md5(CONTENT))


def test_a_download_that_goes_on_needs_room_for_what_is_in_all_of_it(server, tmp_path, monkeypatch):
    (tmp_path / "file.part").write_bytes(CONTENT[:-10])
    usage = module.shutil.disk_usage(tmp_path)._replace(free=len(CONTENT))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="no disk space for file.part"):
        download(f"{server.url}/file", tmp_path / "file", md5(CONTENT))


def test_of_an_archive_that_cannot_be_unpacked_nothing_is_left(tmp_path, monkeypatch):
    def fill(file, folder, **_):
        folder.mkdir()
        (folder / "half").touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(ARCHIVES, "flowers", (Archive("http://nowhere/102flowers.tgz", md5(b""), "flowers-102/jpg"),))
    (tmp_path / "flowers-102").mkdir()
    (tmp_path / "flowers-102" / "102flowers.tgz").touch()
    monkeypatch.setattr(module.shutil, "unpack_archive", fill)
    with pytest.raises(OSError, match="No space left"):
        get("flowers", tmp_path)
    assert [path.name for path in (tmp_path / "flowers-102").iterdir()] == ["102flowers.tgz"]


def test_archives_are_unpacked_into_the_published_layout_and_not_loaded_twice(server, tmp_path, monkeypatch):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in ("jpg/image_00001.jpg", "readme.txt"):
            about = tarfile.TarInfo(name)
            about.size = 4
            tar.addfile(about, io.BytesIO(b"here"))
    server.content = packed.getvalue()
    archives = (Archive(f"{server.url}/102flowers.tgz", md5(server.content), "flowers-102/jpg"),)
    monkeypatch.setitem(ARCHIVES, "flowers", archives)
    for _ in range(2):
        get("flowers", tmp_path)
    assert len(server.asked) == 1
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")] == ["flowers-102/jpg/image_00001.jpg"]


def test_python_3_11_3_and_older_unpack_without_a_filter(tmp_path, monkeypatch):
    file, unpack = tmp_path / "set.tgz", module.shutil.unpack_archive
    with tarfile.open(file, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("jpg/1.jpg"), io.BytesIO(b""))
    monkeypatch.delattr(tarfile, "data_filter")
    monkeypatch.setattr(module.shutil, "unpack_archive", lambda filename, folder: unpack(filename, folder))
    module._unpack(file, tmp_path / "jpg")
    assert (tmp_path / "jpg" / "1.jpg").exists()


def test_another_archive_that_lies_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(ARCHIVES, "flowers", (Archive("http://nowhere/102flowers.tgz", md5(b"all"), "flowers-102/jpg"),))
    file = tmp_path / "flowers-102" / "102flowers.tgz"
    file.parent.mkdir()
    file.write_bytes(b"al")
    with pytest.raises(ValueError, match=r"102flowers\.tgz is not the published file: its MD5 is .*; remove it and run"):
        get("flowers", tmp_path)
    assert file.exists()


def test_archive_that_was_loaded_is_not_loaded_again_if_unpacking_was_cut_short(server, tmp_path, monkeypatch):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("jpg/image_00001.jpg"), io.BytesIO(b""))
    server.content = packed.getvalue()
    archives = (Archive(f"{server.url}/102flowers.tgz", md5(server.content), "flowers-102/jpg"),)
    monkeypatch.setitem(ARCHIVES, "flowers", archives)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "unpack_archive", interrupt)
        with pytest.raises(KeyboardInterrupt):
            get("flowers", tmp_path)
    get("flowers", tmp_path)
    assert len(server.asked) == 1
    assert [path.name for path in (tmp_path / "flowers-102").iterdir()] == ["jpg"]


def test_checksums_are_those_that_torchvision_knows():
    known = dict(datasets.Flowers102._file_dict.values())
    for data in (datasets.CIFAR10, datasets.CIFAR100):
        known[data.filename] = data.tgz_md5
    known["CLEVR_v1.0.zip"] = datasets.CLEVRClassification._MD5
    ours = {archive.url.rsplit("/", 1)[1]: archive.md5 for archives in ARCHIVES.values() for archive in archives}
    assert known.items() <= ours.items()
    assert TERMS.keys() == ARCHIVES.keys()
