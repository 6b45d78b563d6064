"""Export a network that returns its class scores and a map. Start reading at `exporter.py`."""
