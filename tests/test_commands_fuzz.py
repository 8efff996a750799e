"""Damaged files and random settings through the commands themselves, in this process: done, or one
line and nothing written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rd_lightning import JointMoments, embed, evaluate, fit, fit_chain, merge, search
from rd_lightning.cli.overrides import _settings, config_folder
from rd_lightning.families import sample_fasta
from rd_lightning.fitting.state import FitState

from .conftest import family_rows, run_here
from .mutations import EXAMPLES, damaged, fuzzed

pytestmark = pytest.mark.usefixtures("unchecked")

FASTA = sample_fasta().read_bytes()[:1500]
WILD = "MKTAYIAKQR"
ASSAY = "\n".join(
    [
        "mutant,mutated_sequence,DMS_score,DMS_score_bin",
        *(
            f"{WILD[i]}{i + 1}{new},{WILD[:i]}{new}{WILD[i + 1 :]},{j}.{i},{j}"
            for i in range(len(WILD))
            for j, new in enumerate("CD")
        ),
        "",
    ]
).encode()
few = settings(fuzzed, max_examples=max(10, EXAMPLES // 6), phases=[Phase.generate])
"""A command takes a fifth of a second: failures are not made smaller."""


def run(name: str, main: Callable[[], None], folder: Path, *arguments: str) -> str | None:
    """Its error, which is one line and leaves no output; None if it ended well."""
    status, said = run_here(main, folder, f"rd-{name}", *arguments)
    assert status in (0, 1)
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == status, said
    assert "Traceback" not in said
    return errors[0] if errors else None


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A head, a state and sequences of the bundled family."""
    folder = tmp_path_factory.mktemp("commands")
    moments = JointMoments((32, 64)).update(family_rows(400, (32, 64), 0))
    head = fit_chain(moments, names=("50K", "200K"), context={"family": "mini"})
    head.save_pretrained(folder / "head")
    state = FitState([32, 64])
    state.groups[0].merge_(moments)
    state.save(folder / "state.safetensors")
    (folder / "x.fasta").write_bytes(FASTA)
    return folder


@few
@given(content=damaged(FASTA))
def test_sequences(folder, content):
    (folder / "damaged.fasta").write_bytes(content)
    error = run("fit", fit.main, folder, "preflight=true", "fasta=damaged.fasta", "out=of-fit")
    assert error is None or "damaged.fasta" in error
    # Sequences are looked at before the head of the other command.
    words = ("head=head", "fasta=damaged.fasta", "out=emb.h5", "preflight=true")
    error = run("embed", embed.main, folder, *words)
    assert error is None or "damaged.fasta" in error
    shutil.rmtree(folder / "of-fit", ignore_errors=True)


@few
@given(data=st.data())
def test_heads(folder, data):
    name = data.draw(st.sampled_from(["head.safetensors", "config.json"]))
    shutil.copytree(folder / "head", folder / "damaged", dirs_exist_ok=True)
    whole = (folder / "head" / name).read_bytes()
    (folder / "damaged" / name).write_bytes(data.draw(damaged(whole)))
    (folder / "emb.h5").unlink(missing_ok=True)
    words = ("head=damaged", "fasta=x.fasta", "out=emb.h5", "weights=none", "preflight=true")
    run("embed", embed.main, folder, *words)  # other values of weights cannot be told
    assert not (folder / "emb.h5").exists()


@few
@given(data=st.data())
def test_states(folder, data):
    content = data.draw(damaged((folder / "state.safetensors").read_bytes()))
    (folder / "damaged.safetensors").write_bytes(content)
    shutil.rmtree(folder / "merged", ignore_errors=True)
    error = run("merge", merge.main, folder, "damaged.safetensors", "out=merged")
    assert (error is None) == (folder / "merged").exists()


@few
@given(content=damaged(ASSAY))
def test_assays(folder, content):
    (folder / "damaged.csv").write_bytes(content)
    shutil.rmtree(folder / "evaluated", ignore_errors=True)
    words = ("representations=[one_hot]", "schemes=[random]", "num_folds=2", "num_resamples=2")
    error = run("evaluate", evaluate.main, folder, "assays=damaged.csv", "out=evaluated", *words)
    assert (error is None) == (folder / "evaluated").exists()
    assert error is None or "damaged" in error


SETTINGS = {
    "fit": (fit.main, ["target", "keep", "solver", "data.heldout", "part", "regression.alpha"]),
    "embed": (embed.main, ["head", "level", "width", "pooling", "dtype", "topup", "long", "out"]),
    "evaluate": (evaluate.main, ["fit", "widths", "schemes", "probes", "num_folds", "device"]),
    "search": (search.main, ["index", "query", "k", "width", "prefix", "build", "head", "scale"]),
    "merge": (merge.main, ["states", "keep", "solver", "regression", "out"]),
}
VALUES = st.one_of(
    st.sampled_from(["", "null", "true", "-1", "0", "1e400", "nan", "[]", "[[]]", "{a:1}", "1/2"]),
    st.integers(-9, 10**9).map(str),
    st.text(st.sampled_from("ab1_.-/[]{}(),:=é蛋 "), max_size=6),
)


OTHERS = {"merge": [], "evaluate": ["seed=1"], "search": ["out=x.tsv"]}
"""Words without which a command is refused whatever the setting."""


@pytest.mark.parametrize("name", SETTINGS)
@few
@given(data=st.data())
def test_settings(folder, tmp_path_factory, name, data):
    """Whatever a setting is given: without the files that it needs, nothing is ever written."""
    main, keys = SETTINGS[name]
    empty = tmp_path_factory.mktemp("empty")
    words = [f"{key}={data.draw(VALUES)}" for key in data.draw(st.sets(st.sampled_from(keys)))]
    error = run(name, main, empty, *words, *OTHERS.get(name, ["fasta=none.fasta"]))
    assert error is not None
    assert not list(empty.rglob("*"))


INPUTS = {
    "fit": ["fasta=none.fasta"],
    "embed": ["from=none.h5", "out=e.h5"],
    "evaluate": ["assays=none.csv"],
    "search": ["index=none.h5", "query=none.fasta", "out=x.tsv"],
    "merge": ["states=none.safetensors"],
}
"""Files that are not there."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting(tmp_path, name):
    """Of each command, given what no setting of its kind takes; Lightning's are its own."""
    keys = [k for k in _settings(name, [config_folder()], []) if not k.startswith("trainer.")]
    for key in keys:
        for value in ("null", "3", "{a:1}"):
            others = [word for word in INPUTS[name] if word.split("=")[0] != key]
            if len(others) < len(INPUTS[name]) and value == "null" and name == "fit":
                continue  # the bundled sample
            assert run(name, SETTINGS[name][0], tmp_path, f"{key}={value}", *others) is not None
            assert not list(tmp_path.rglob("*"))
