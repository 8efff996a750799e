"""``python -m rd_lightning``: which commands there are, and which versions they run with."""

from __future__ import annotations

COMMANDS = ("fit", "merge", "embed", "evaluate", "search")


def overview() -> str:
    """A line for each command, then the versions that numbers depend on."""
    from .cli.help import summary
    from .runtime.provenance import versions

    found = versions()
    ours = found.pop("rd-lightning")
    lines = [
        f"rd-lightning {ours}: reverse distillation of protein language models",
        "",
        *(f"  rd-{command:<12}{summary(command)}" for command in COMMANDS),
        "",
        "Each lists its settings: rd-fit --help",
        ", ".join(f"{name} {version}" for name, version in found.items()),
    ]
    return "\n".join(lines)


def main() -> None:
    """Print it."""
    print(overview())


if __name__ == "__main__":
    main()
