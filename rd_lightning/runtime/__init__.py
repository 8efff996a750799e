"""The process and the machine: files, ranks, DDP, arithmetic, versions."""
