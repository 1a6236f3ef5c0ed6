"""What long computations share: processes, arithmetic, silence, logs, progress, curves, resuming, the best state."""
