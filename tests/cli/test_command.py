"""What a user's own text looks like in a message, and what stays of the process."""

import os
import signal
import sys

import pytest

from rd_lightning.cli import command
from rd_lightning.cli.command import run_command
from rd_lightning.errors import InputError

NAMES = ["a[x].fasta", "[bold]x", "C:B:x", ":smile:.fasta", "[/]", "a\\[b]"]


@pytest.mark.parametrize("name", NAMES)
def test_messages_have_a_users_text_as_it_stands(name, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["rd-fit"])

    def job(config):
        raise InputError(f"{name}: no such file")

    job.__module__ = __name__
    with pytest.raises(SystemExit) as stopped:
        run_command("fit", job, ["out=x"])
    assert stopped.value.code == 1
    assert capsys.readouterr().err == f"error: {name}: no such file\n"


def test_the_job_sees_the_configurations_words(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["rd-fit", "fasta=x", "device=cuda:1", "out=x"])
    seen = {}

    def job(config):
        seen.update(fasta=config.data.fasta, devices=list(config.trainer.devices))

    job.__module__ = __name__
    run_command("fit", job)
    assert seen == {"fasta": "x", "devices": [1]}
    # Lightning starts the processes of DDP with these.
    assert sys.argv[1:] == ["data.fasta=x", "trainer=gpu", "trainer.devices=[1]", "out=x"]


def test_two_values_for_one_setting_are_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rd-fit"])
    with pytest.raises(SystemExit) as stopped:
        run_command("fit", lambda config: None, ["fasta=x", "data.fasta=y"])
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: fasta=x and data.fasta=y are two values for one setting")
    assert said.count("\n") == 1


def test_an_interrupt_before_the_job_is_one_line(monkeypatch, capfd):
    """While the settings are read: no library gets to see it as an exception."""

    def interrupted(*_):
        os.kill(os.getpid(), signal.SIGINT)

    def ended(status):
        raise SystemExit(status)

    monkeypatch.setattr(command, "misspelt_override", interrupted)
    monkeypatch.setattr(os, "_exit", ended)
    monkeypatch.setattr(sys, "argv", ["rd-fit"])
    with pytest.raises(SystemExit) as stopped:
        run_command("fit", lambda config: None, ["out=x"])
    assert stopped.value.code == 130
    assert capfd.readouterr().err == "interrupted\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
