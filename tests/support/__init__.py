"""What several tests need: distributions built on the spot, an index, a running server."""
