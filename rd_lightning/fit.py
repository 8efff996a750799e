"""rd-fit: a FASTA file in, a reverse-distilled head out."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from .command import is_main_process, output_folder, run_command
from .errors import InputError


def main() -> None:
    run_command("fit", fit)


def fit(config: DictConfig) -> None:
    """Plan, say what will be done, stream, solve, write."""
    # Here, not above: torch and Lightning take seconds, --help and a typo should not.
    from .build import make_data, make_module, make_trainer
    from .outputs import HEAD, write_fit
    from .tables import print_preflight, print_stages

    console = Console()
    folder = output_folder()
    if is_main_process() and (folder / HEAD).exists():
        raise InputError(f"{folder} holds a fit already; choose another folder: out=DIR")
    module, data = make_module(config), make_data(config)
    trainer = make_trainer(config.trainer)
    device = trainer.strategy.root_device
    if is_main_process():
        data.scan(device.type)
        where = f"{trainer.world_size} x {device.type}, {trainer.precision}"
        print_preflight(console, module.family, module.members, data, module.moments, where)
    trainer.fit(module, datamodule=data)
    if trainer.is_global_zero:
        assert module.head is not None
        plain = OmegaConf.to_container(config, resolve=True)
        assert isinstance(plain, dict)
        write_fit(module, folder, {str(key): value for key, value in plain.items()})
        print_stages(console, module.head.report)
        context = module.head.report.context
        console.print(
            f"{module.head.report.num_residues:,} residues fitted in {context['seconds']:.1f} s "
            f"({context['residues_per_second']:,.0f} residues/s)"
        )
        console.print(f"head, moments and report: {folder}", soft_wrap=True)


if __name__ == "__main__":
    main()
