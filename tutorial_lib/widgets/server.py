"""What the Jupyter server does for sliders: it passes on what a kernel sends at once.

A move of a slider is answered by several small messages. Tornado leaves Nagle's algorithm on for its websockets: a small packet
is held back until the one before it is acknowledged, for which the other end may take 40 ms. So every picture came some 50 ms
after its slider had moved, however soon it was drawn. This module is an extension of the Jupyter server, which installing the
package switches on (scripts/jupyter_server_config.json); scripts/demo.py gives Voilà the same.
"""

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection

LARGEST_MESSAGE = 200 * 2**20  # bytes; at Tornado's own limit of 10 MiB the upload of a large photograph ends the connection


class Prompt:
    """For a page's connection to a kernel: no Nagle's algorithm (TCP_NODELAY)."""

    def connect(self):
        """As the connection itself."""
        self.websocket_handler.set_nodelay(True)
        return super().connect()


class PromptConnection(Prompt, ZMQChannelsWebsocketConnection):
    """Jupyter's own connection, prompt."""


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "tutorial_lib.widgets.server"}]


def _load_jupyter_server_extension(server_app) -> None:
    settings, name = server_app.web_app.settings, "kernel_websocket_connection_class"
    settings[name] = type("PromptConnection", (Prompt, settings[name]), {})
    settings.setdefault("websocket_max_message_size", LARGEST_MESSAGE)
