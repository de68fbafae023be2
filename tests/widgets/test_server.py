import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection

from tutorial_lib.widgets import server

ROOT = Path(__file__).resolve().parents[2]


def loaded() -> type:
    """The connection's class of a server with the extension."""
    settings = {"kernel_websocket_connection_class": ZMQChannelsWebsocketConnection}
    server._load_jupyter_server_extension(SimpleNamespace(web_app=SimpleNamespace(settings=settings)))
    return settings["kernel_websocket_connection_class"]


@pytest.mark.parametrize("kind", [server.PromptConnection, loaded()])
def test_a_connection_sends_small_packets_at_once_and_then_is_jupyters_own(kind, monkeypatch):
    calls = []

    class Handler:
        def set_nodelay(self, value):
            calls.append(("nodelay", value))

    monkeypatch.setattr(ZMQChannelsWebsocketConnection, "connect", lambda self: calls.append("connected"))
    monkeypatch.setattr(kind, "websocket_handler", Handler())
    kind.__new__(kind).connect()
    assert calls == [("nodelay", True), "connected"]


def test_installing_the_package_switches_the_extension_on():
    shared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    ((source, target),) = shared.items()
    assert target.startswith("etc/jupyter/jupyter_server_config.d/")
    named = json.loads((ROOT / source).read_text())["ServerApp"]["jpserver_extensions"]
    assert named == {server.__name__: True}
    listed = subprocess.run(
        [sys.executable, "-m", "jupyter", "server", "extension", "list"], capture_output=True, text=True, check=True
    )
    said = re.sub(r"\x1b\[\d+m", "", listed.stdout + listed.stderr)
    assert f"{server.__name__} enabled" in said and f"{server.__name__}  OK" in said
