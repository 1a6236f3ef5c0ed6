"""What every long computation needs: processes, arithmetic, quiet libraries, logs, progress, curves, resuming."""
