"""What an index keeps: arrays on disk, segments, the manifest, texts."""
