"""The other sides of ``benchmarks.embedding``: each file is one command, run in its own process."""
