"""The hub: archives on disk, as neptune-exporter lays them out, with receipts that prove a run whole."""
