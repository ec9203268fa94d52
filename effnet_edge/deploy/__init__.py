"""From a bundle to what existing servers load: model repositories, written whole or not at all."""

SERVERS = ("triton", "ovms", "deepstream")
"""What `effnet-edge deploy --for` takes; the last is refused, with the reason."""
