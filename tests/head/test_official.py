import io
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from rd_lightning import RDHead
from rd_lightning.errors import InputError

from ..conftest import family_rows

NAMES = ["8M", "35M", "150M", "650M"]
DIMS = [5, 8, 12, 20]
REGRESSORS = ["pcr", "linear", "ridge"]


def file_name(k: int, regressor: str = "pcr") -> str:
    return f"rd-scaler-{NAMES[k - 1]}-{NAMES[k]}-{regressor}-incremental-1k.npz"


def arrays(p: int, d: int, regressor: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A scaler of random numbers, none of them zero; bases orthonormal, as PCA gives them."""
    m = max(1, p - 2) if regressor == "pcr" else p

    def rotation(width: int) -> np.ndarray:
        return np.linalg.qr(rng.normal(size=(width, width)))[0]

    found = {
        "regressor__coef_": rng.normal(size=(d, m)) / d**0.5,
        "regressor__intercept_": rng.normal(size=d),
        "pca__mean_": rng.normal(size=d),
        "pca__components_": rotation(d)[: d - p],
    }
    if regressor == "pcr":
        found |= {
            "regressor__input_mean_": rng.normal(size=p),
            "regressor__output_mean_": rng.normal(size=d),
            "regressor__input_components_": rotation(p),
            "regressor__n_significant_pcs_": np.int64(m),
        }
    return found


def step(a: dict[str, np.ndarray], z: np.ndarray, h: np.ndarray) -> np.ndarray:
    """rdScaler.step, line by line, in float64."""
    if "regressor__input_mean_" in a:
        kept = a["regressor__input_components_"][:, : int(a["regressor__n_significant_pcs_"])]
        predicted = (z - a["regressor__input_mean_"]) @ kept @ a["regressor__coef_"].T
        predicted = predicted + a["regressor__intercept_"] + a["regressor__output_mean_"]
    else:
        predicted = z @ a["regressor__coef_"].T + a["regressor__intercept_"]
    residuals = h - predicted
    return np.concatenate([z, (residuals - a["pca__mean_"]) @ a["pca__components_"].T], axis=1)


def write_chain(
    folder: Path, regressors: list[str], seed: int = 0, dims: list[int] = DIMS
) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    chain = []
    for k, regressor in enumerate(regressors, start=1):
        chain.append(arrays(dims[k - 1], dims[k], regressor, rng))
        np.savez(folder / file_name(k, regressor), **chain[-1])
    return chain


def assert_close(z: torch.Tensor, expected: np.ndarray | torch.Tensor) -> None:
    expected = torch.as_tensor(expected).double()
    assert (z.double() - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.filterwarnings("ignore:.*was fitted on raw")
@pytest.mark.parametrize("regressors", [[r] * 3 for r in REGRESSORS] + [REGRESSORS])
def test_it_is_the_chained_step(tmp_path, regressors):
    chain = write_chain(tmp_path, regressors)
    head = RDHead.from_official(tmp_path)
    assert head.names == tuple(NAMES) and head.dims == tuple(DIMS)
    assert head.dtype == torch.float32
    rows = [torch.randn(50, d, generator=torch.Generator().manual_seed(d)) for d in DIMS]
    z = rows[0].double().numpy()
    for k, scaler in enumerate(chain, start=1):
        z = step(scaler, z, rows[k].double().numpy())
        assert_close(head(rows[: k + 1]), z)
        assert torch.equal(head.truncate(NAMES[k])(rows[: k + 1]), head(rows[: k + 1]))


@pytest.mark.filterwarnings("ignore:.*was fitted on raw")
def test_folder_files_and_one_file_give_the_same_blocks(tmp_path):
    write_chain(tmp_path, ["pcr"] * 3)
    (tmp_path / "README.md").write_text("not a scaler")
    files = sorted(tmp_path.glob("*.npz"))
    whole = RDHead.from_official(tmp_path).state_dict()
    for order in (files, files[::-1], [str(f) for f in files]):
        other = RDHead.from_official(order).state_dict()
        assert all(torch.equal(whole[key], other[key]) for key in whole)
    one = RDHead.from_official(tmp_path / file_name(1))
    assert one.names == ("8M", "35M")
    assert torch.equal(one.state_dict()["mapping_1"], whole["mapping_1"])


@pytest.mark.filterwarnings("ignore:.*was fitted on raw")
def test_it_saves_loads_and_truncates_with_what_is_known(tmp_path):
    write_chain(tmp_path, REGRESSORS)
    head = RDHead.from_official(tmp_path)
    head.save_pretrained(tmp_path / "head")
    loaded = RDHead.from_pretrained(tmp_path / "head")
    assert loaded.report == head.report == head.truncate("650M").report
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in head.state_dict().items())
    assert head.truncate("35M").dims == (5, 8)
    assert head.report.regression == "linear+pcr+ridge"
    context = head.report.context
    assert context["files"] == [file_name(k, r) for k, r in enumerate(REGRESSORS, start=1)]
    assert context["num_components"] == {"8M->35M": 3, "35M->150M": 8, "150M->650M": 12}
    assert context["fitted_on"] == {"35M->150M": "unknown", "150M->650M": "unknown"}


def test_numbers_of_other_types_and_shapes_numpy_writes(tmp_path):
    """float32 files, an intercept of 0.0, fewer principal components than columns."""
    scaler = arrays(5, 8, "pcr", np.random.default_rng(0))
    scaler |= {
        "regressor__intercept_": np.float64(0),
        "regressor__input_components_": scaler["regressor__input_components_"][:, :4],
    }
    scaler = {k: np.asarray(v, np.float32) for k, v in scaler.items()}
    np.savez_compressed(tmp_path / file_name(1), **scaler)
    rows = [torch.randn(9, d, generator=torch.Generator().manual_seed(d)) for d in DIMS[:2]]
    double = {k: v.astype(np.float64) for k, v in scaler.items()}
    expected = step(double, rows[0].double().numpy(), rows[1].double().numpy())
    assert_close(RDHead.from_official(tmp_path)(rows), expected)


# What a stage was fitted on


def means_chain(folder: Path, kinds: list[str], shift: float = 0.0) -> None:
    """pcr scalers whose means are those of a fit on raw or on reverse-distilled inputs."""
    rng = np.random.default_rng(1)
    means = [3 + rng.normal(size=d) for d in DIMS]
    z = means[0]
    for k, kind in enumerate(kinds, start=1):
        scaler = arrays(DIMS[k - 1], DIMS[k], "pcr", rng)
        inputs = {"rd": z, "raw": means[k - 1], "neither": rng.normal(size=len(z))}[kind]
        noise = shift * rng.normal(size=len(z))
        scaler |= {
            "regressor__input_mean_": inputs + noise,
            "regressor__output_mean_": means[k],
            "regressor__intercept_": np.zeros(DIMS[k]),
            "pca__mean_": np.zeros(DIMS[k]),
        }
        np.savez(folder / file_name(k), **scaler)
        z = step(scaler, z[None], means[k][None])[0]


@pytest.mark.parametrize("shift", [0.0, 0.05])
def test_fitted_on_rd_inputs_is_seen_and_silent(tmp_path, shift):
    means_chain(tmp_path, ["rd", "rd", "rd"], shift)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head = RDHead.from_official(tmp_path)
    assert head.report.context["fitted_on"] == {"35M->150M": "rd", "150M->650M": "rd"}


@pytest.mark.parametrize("shift", [0.0, 0.05])
@pytest.mark.parametrize("kinds", [["rd", "raw", "raw"], ["rd", "raw", "rd"], ["rd", "rd", "raw"]])
def test_fitted_on_raw_inputs_warns_and_names_the_stage(tmp_path, kinds, shift):
    means_chain(tmp_path, kinds, shift)
    with pytest.warns(UserWarning, match="was fitted on raw") as caught:
        head = RDHead.from_official(tmp_path)
    stages = ["35M->150M", "150M->650M"]
    assert head.report.context["fitted_on"] == dict(zip(stages, kinds[1:], strict=True))
    raw = [s for s, kind in zip(stages, kinds[1:], strict=True) if kind == "raw"]
    assert len(caught) == len(raw)
    for stage, warning in zip(raw, caught, strict=True):
        assert f"{stage} was fitted on raw {stage.split('->')[0]}" in str(warning.message)


def test_means_that_fit_neither_are_unknown(tmp_path):
    means_chain(tmp_path, ["rd", "neither"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head = RDHead.from_official(tmp_path)
    assert head.report.context["fitted_on"] == {"35M->150M": "unknown"}


# What is refused


def test_pickled_objects_are_refused_and_never_run(tmp_path):
    target = tmp_path / "written"

    class Payload:
        def __reduce__(self):
            return (Path.touch, (target,))

    payload = np.array([Payload()], dtype=object)
    good = arrays(5, 8, "pcr", np.random.default_rng(0))
    path = tmp_path / file_name(1)
    for key in good:
        np.savez(path, **{**good, key: payload})
        with pytest.raises(InputError, match=f"{file_name(1)}: {key} is a pickled Python object"):
            RDHead.from_official(tmp_path)
    np.savez(path, **good, regressor__sigma_sq_=payload)  # not needed, so not even looked at
    RDHead.from_official(tmp_path)
    with path.open("wb") as handle:
        np.save(handle, payload)
    with pytest.raises(InputError, match=r"not an \.npz file"):
        RDHead.from_official(tmp_path)
    payload.dump(path)
    with pytest.raises(InputError, match=r"not an \.npz file"):
        RDHead.from_official(tmp_path)
    assert not target.exists()
    np.load(path, allow_pickle=True)  # the trap is real
    assert target.exists()


def test_damaged_files_are_refused(tmp_path):
    write_chain(tmp_path, ["pcr"])
    path = tmp_path / file_name(1)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    damaged = [whole[:n] for n in range(0, len(whole), 97)] + [b"not npz" * 99, bytes(flipped)]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"{file_name(1)}: not an \.npz file, or one cut"):
            RDHead.from_official(path)
    with path.open("wb") as handle:
        np.save(handle, np.zeros(3))
    with pytest.raises(InputError, match=r"not an \.npz file"):
        RDHead.from_official(path)


@pytest.mark.parametrize("shape", [(10**13,), (10**30,), (9,)])
def test_headers_that_lie_are_refused(tmp_path, shape):
    """An intact archive whose array claims more numbers than it has."""
    write_chain(tmp_path, ["linear"])
    path = tmp_path / file_name(1, "linear")
    lie = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        lie, {"descr": "<f8", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "pca__mean_.npy": lie.getvalue()}.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="cut short or damaged") as error:
        RDHead.from_official(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("regressor", REGRESSORS)
def test_missing_arrays_are_named(tmp_path, regressor):
    scaler = arrays(5, 8, regressor, np.random.default_rng(0))
    for key in scaler:
        np.savez(
            tmp_path / file_name(1, regressor), **{k: v for k, v in scaler.items() if k != key}
        )
        with pytest.raises(InputError, match=f"npz: no array {key}"):
            RDHead.from_official(tmp_path)


@pytest.mark.parametrize("regressor", ["pcr", "linear"])
def test_shapes_and_values_that_do_not_fit(tmp_path, regressor):
    scaler = arrays(5, 8, regressor, np.random.default_rng(0))
    path = tmp_path / file_name(1, regressor)
    for key, array in scaler.items():
        wrong = [np.full_like(array, np.nan, float), np.full(np.shape(array), "x"), np.zeros(7)]
        for value in [*wrong, np.zeros((2, 3, 4)), np.zeros((1, 1, 1))]:
            np.savez(path, **{**scaler, key: value})
            with pytest.raises(InputError, match=f"npz: {key} is ") as error:
                RDHead.from_official(tmp_path)
            assert "\n" not in str(error.value)
    if regressor == "pcr":
        for number in (0, 6, -1, 2.5):
            np.savez(path, **{**scaler, "regressor__n_significant_pcs_": np.asarray(number)})
            with pytest.raises(InputError, match="not a whole number from 1 to 5"):
                RDHead.from_official(tmp_path)


def test_widths_that_do_not_chain(tmp_path):
    write_chain(tmp_path, ["linear"])
    other = arrays(9, 12, "linear", np.random.default_rng(0))
    np.savez(tmp_path / file_name(2, "linear"), **other)
    with pytest.raises(InputError, match=f"takes 9 columns, but {file_name(1, 'linear')} gives 8"):
        RDHead.from_official(tmp_path)


def test_files_that_are_not_one_chain(tmp_path):
    with pytest.raises(InputError, match=r"no \.npz files; give a folder"):
        RDHead.from_official(tmp_path)
    with pytest.raises(InputError, match=r"no \.npz files"):
        RDHead.from_official([])
    with pytest.raises(InputError, match="no such file"):
        RDHead.from_official(tmp_path / file_name(1))
    write_chain(tmp_path, ["linear"] * 3)

    first, second, third = (tmp_path / file_name(k, "linear") for k in (1, 2, 3))
    with pytest.raises(InputError, match="8M->35M, 150M->650M are not one chain; add the scaler"):
        RDHead.from_official([first, third])

    again = tmp_path / "rd-scaler-8M-35M-linear-fbpca-5k.npz"
    again.write_bytes(first.read_bytes())
    with pytest.raises(InputError, match="a second scaler 8M->35M, beside rd-scaler-8M-35M-lin"):
        RDHead.from_official(tmp_path)
    for name, kind in (("8M-150M", "from one"), ("15M-35M", "to one"), ("35M-8M", "circle")):
        odd = again.rename(tmp_path / f"rd-scaler-{name}-linear-fbpca-1k.npz")
        message = "not one chain" if kind == "circle" else "a second scaler"
        with pytest.raises(InputError, match=message):
            RDHead.from_official([first, odd])
        again = odd
    again.unlink()

    for name in ("naive-scaler-8M-35M-None-incremental-1k", "rd-scaler-8M-35M-lasso-fbpca-1k", "x"):
        odd = first.rename(tmp_path / f"{name}.npz")
        with pytest.raises(InputError, match=f"{name}.npz: not named rd-scaler-"):
            RDHead.from_official(tmp_path)
        first = odd
    assert second.exists()


# Against the package itself


@pytest.fixture
def package(monkeypatch):
    """Its scalers for our widths, downloads replaced by files at hand."""
    rd = pytest.importorskip("reverse_distillation.scaler.rd", exc_type=ImportError)
    for name, d in zip(NAMES, DIMS, strict=True):
        monkeypatch.setitem(rd.ESM2_CONFIGS, name, {"embed_dim": d})
    rd.logger.disable("reverse_distillation")
    return rd


@pytest.mark.parametrize("pca", ["incremental", "fbpca"])
@pytest.mark.parametrize("regressor", REGRESSORS)
@pytest.mark.parametrize("inputs", ["raw", "rd"])
def test_equals_the_official_step(package, monkeypatch, tmp_path, regressor, pca, inputs):
    rows = [b.float() for b in family_rows(400, DIMS, 0, mean=2)]
    z = rows[0]
    for k in range(1, len(DIMS)):
        scaler = package.rdScaler(NAMES[k - 1], NAMES[k], regressor, pca)
        fit_on = rows[k - 1] if inputs == "raw" else z
        scaler.fit(fit_on.numpy(), rows[k].numpy(), show_r2=False)
        z = scaler.step(z, rows[k])
        name = f"rd-scaler-{NAMES[k - 1]}-{NAMES[k]}-{regressor}-{pca}-1k.npz"
        np.savez(tmp_path / name, **scaler.get_state_dict())

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        head = RDHead.from_official(tmp_path)
    kind = inputs if regressor == "pcr" else "unknown"
    assert head.report.context["fitted_on"] == {"35M->150M": kind, "150M->650M": kind}
    assert sum("fitted on raw" in str(w.message) for w in caught) == 2 * (kind == "raw")

    def at_hand(repo_id: str, filename: str) -> str:
        return str(tmp_path / Path(filename).name)

    for module in ("rd", "modules"):
        monkeypatch.setattr(f"reverse_distillation.scaler.{module}.hf_hub_download", at_hand)
    unseen = [b.float() for b in family_rows(300, DIMS, 7, mean=2)]
    z = slow = unseen[0]
    for k in range(1, len(DIMS)):
        model_id = f"rd.esm2/{NAMES[k]}:{regressor}-{pca}-1k"
        optimized = package.rdScalerGPUOptimized.from_pretrained(model_id)
        z = optimized.step(z, unseen[k])
        slow = package.rdScaler.from_pretrained(model_id).step(slow, unseen[k])
        assert_close(head(unseen[: k + 1]), z)
        assert_close(head(unseen[: k + 1]), slow)
