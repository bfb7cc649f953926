"""Checkpoints on disk: store, background saves, resume, resharding."""
