"""What the Jupyter server does for sliders: it passes on what a kernel sends at once.

A move of a slider is answered by several small messages. Tornado leaves Nagle's algorithm on for its websockets: a small packet
is held back until the one before it is acknowledged, for which the other end may take 40 ms. So every picture came some 50 ms
after its slider had moved, however soon it was drawn. Installing this package puts scripts/jupyter_server_config.json into the
environment, which names the class below to Jupyter; scripts/demo.py names it to Voilà.
"""

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection


class PromptConnection(ZMQChannelsWebsocketConnection):
    """A page's connection to a kernel, without Nagle's algorithm (TCP_NODELAY)."""

    def connect(self):
        """As Jupyter's own."""
        self.websocket_handler.set_nodelay(True)
        return super().connect()
