"""Programs that measure; `python -m benchmarks.compare` and the others as files, from the root of the repository."""
