import json
import tomllib
from pathlib import Path

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from traitlets.utils.importstring import import_item

from tutorial_lib.widgets.server import PromptConnection

ROOT = Path(__file__).resolve().parents[2]


def test_a_connection_sends_small_packets_at_once_and_then_is_jupyters_own(monkeypatch):
    calls = []

    class Handler:
        def set_nodelay(self, value):
            calls.append(("nodelay", value))

    monkeypatch.setattr(ZMQChannelsWebsocketConnection, "connect", lambda self: calls.append("connected"))
    monkeypatch.setattr(PromptConnection, "websocket_handler", Handler())
    PromptConnection.__new__(PromptConnection).connect()
    assert calls == [("nodelay", True), "connected"]


def test_installing_the_package_tells_jupyter_of_it():
    shared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    ((source, target),) = shared.items()
    assert target.startswith("etc/jupyter/jupyter_server_config.d/")
    named = json.loads((ROOT / source).read_text())["ServerApp"]["kernel_websocket_connection_class"]
    assert import_item(named) is PromptConnection
