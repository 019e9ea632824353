"""Runs: the training loop, the run folder, checkpoints and resuming, progress and the report."""
