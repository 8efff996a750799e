"""The scalers of the PyPI package reverse-distillation 0.1.0, read into the head's layout.

Numbers only: the package itself lets numpy unpickle, which runs whatever code a file carries; here
no pickle is ever loaded.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from .official_hub import hub_scalers, names_repository
from .official_npz import Link, in_order, load_arrays, of_kind, scaler_files, whole_number
from .report import FitReport

# Means of other samples of sequences differ a little; the two candidates differ by far more.
_CLEARLY = 0.5


class OfficialChain(NamedTuple):
    """All that a head is made of; each block is (projection, mapping, bias) in float32."""

    names: tuple[str, ...]
    dims: tuple[int, ...]
    blocks: list[tuple[Tensor, Tensor, Tensor]]
    report: FitReport


@dataclass(frozen=True)
class _Scaler:
    """One file as an affine map: the columns it adds are h projection' + z mapping' + bias."""

    source: str
    target: str
    regressor: str
    file: str
    projection: Float[np.ndarray, "q d"]
    mapping: Float[np.ndarray, "q p"]
    bias: Float[np.ndarray, " q"]
    num_components: int
    input_mean: Float[np.ndarray, " p"] | None
    output_mean: Float[np.ndarray, " d"] | None

    @property
    def stage(self) -> str:
        return f"{self.source}->{self.target}"


def read_official(
    files_or_dir: str | os.PathLike | Sequence[str | os.PathLike],
    target: str | None = None,
    kind: str | None = None,
    **hub: Any,
) -> OfficialChain:
    """Official scalers, in any order, as one chain.

    With the regression of h (d columns) on z (p), and C = ``pca__components_`` (q, d), q = d - p,

        pcr:            y = ((z - input_mean) P_m) coef' + intercept + output_mean
        linear, ridge:  y = z coef' + intercept
        step:           [z | (h - y - pca_mean) C']

    where P_m is the first m = ``n_significant_pcs_`` columns of ``input_components_`` (p, r) and
    coef is (d, m), or (d, p). The step is affine in (z, h): projection = C, mapping = -C coef P_m',
    bias = -C (intercept + output_mean + pca_mean - coef P_m' input_mean), composed in float64 and
    rounded to float32 once. Equals ``rdScalerGPUOptimized.step`` of each file, fed with the output
    of the step before, as ``RDESM.forward`` does.

    The official training script regresses on raw embeddings of the smaller model, its model then
    feeds z. A pcr scaler gives itself away: the mean of its inputs is either the mean of that
    model's raw embeddings (the previous file's ``output_mean_``), or the mean of z, which the chain
    so far gives. ``report.context["fitted_on"]`` says "raw", "rd" or "unknown" for each stage but
    the first, whose z are raw embeddings; "unknown" where a mean is not in the files or fits
    neither. The files tell nothing of R2, variances and the number of residues: the report has no
    stages, and 0 residues.

    Args:
        files_or_dir: a folder with the ``rd-scaler-*.npz`` of one chain, one file, or several; or,
            where there is no such folder, a repository of the Hugging Face Hub, ``"org/name"``.
        target: the largest member to read; of a folder, all by default.
        kind: the scalers to take where there are several, such as "pcr-incremental-1k": that of a
            repository by default.
        hub: see :func:`rd_lightning.head.official_hub.hub_scalers`.

    Warns:
        UserWarning: a stage was fitted on raw embeddings.

    Raises:
        InputError: no file, a name that is not the package's, two scalers to one model, a gap in
            the chain, a file that is damaged, holds pickled objects, misses an array, or whose
            shapes do not fit.
    """
    files, origin = files_or_dir, {}
    if of_hub := names_repository(files_or_dir):
        files, origin = hub_scalers(str(files_or_dir), target, kind, **hub)
    elif hub:
        raise InputError(f"{files_or_dir} is read from the disk; leave out {', '.join(hub)}")
    found = scaler_files(files)
    links = in_order(found if kind is None else of_kind(found, kind), target)
    try:
        scalers = _chained(links)
    except InputError as error:
        if not of_hub:
            raise
        again = "; RDHead.from_official(..., force_download=True) downloads it again"
        raise InputError(f"{error}{again}") from error
    fitted_on = _fitted_on(scalers)
    for scaler in scalers:
        if fitted_on.get(scaler.stage) == "raw":
            warnings.warn(
                f"{scaler.file}: {scaler.stage} was fitted on raw {scaler.source} embeddings, but "
                "is fed reverse-distilled ones, here as in the official model; for a head fitted "
                "on what it is fed, fit one with rd-fit",
                UserWarning,
                stacklevel=3,  # the caller of RDHead.from_official
            )
    return OfficialChain(
        names=(scalers[0].source, *(s.target for s in scalers)),
        dims=(scalers[0].mapping.shape[1], *(s.projection.shape[1] for s in scalers)),
        blocks=[(_rounded(s.projection), _rounded(s.mapping), _rounded(s.bias)) for s in scalers],
        report=_report(scalers, fitted_on, origin),
    )


def _chained(links: Sequence[Link]) -> list[_Scaler]:
    """All files read; each takes as many columns as the one before gives."""
    scalers: list[_Scaler] = []
    for link in links:
        scaler = _read(link)
        taken, given = scaler.mapping.shape[1], scalers[-1].projection.shape[1] if scalers else None
        if given not in (None, taken):
            raise InputError(
                f"{link.path}: takes {taken} columns, but {scalers[-1].file} gives {given}; take "
                "both files from one family of models"
            )
        scalers.append(scaler)
    return scalers


def _read(link: Link) -> _Scaler:
    path, source, target, regressor = link
    pcr = regressor == "pcr"
    keys = ["regressor__coef_", "regressor__intercept_", "pca__mean_", "pca__components_"]
    if pcr:
        keys += [
            "regressor__input_mean_", "regressor__output_mean_",
            "regressor__input_components_", "regressor__n_significant_pcs_",
        ]  # fmt: skip
    arrays = load_arrays(path, keys)
    components = arrays["pca__components_"]
    if components.ndim != 2 or not 0 < components.shape[0] < components.shape[1]:
        raise InputError(
            f"{path}: pca__components_ is of shape {components.shape}, not (fewer rows, columns of "
            f"{target}); take the file anew"
        )
    d = components.shape[1]
    p = d - components.shape[0]
    m = whole_number(path, arrays.pop("regressor__n_significant_pcs_"), p) if pcr else p
    shapes: dict[str, tuple[int, ...]] = {"regressor__coef_": (d, m), "pca__mean_": (d,)}
    if pcr:
        # The package keeps min(residues, p) principal components and uses the first m.
        r = max((m, *arrays["regressor__input_components_"].shape[1:]))
        shapes |= {
            "regressor__input_mean_": (p,),
            "regressor__output_mean_": (d,),
            "regressor__input_components_": (p, r),
        }
    # One 0.0 where it was fitted without.
    shapes["regressor__intercept_"] = () if arrays["regressor__intercept_"].ndim == 0 else (d,)
    for key, shape in shapes.items():
        if arrays[key].shape != shape:
            raise InputError(
                f"{path}: {key} is of shape {arrays[key].shape}, not {shape}, for {p} columns of "
                f"{source} and {d} of {target}; take the file anew"
            )
    coefficients = arrays["regressor__coef_"]
    offset = arrays["regressor__intercept_"] + arrays["pca__mean_"]
    input_mean = output_mean = None
    if pcr:
        coefficients = coefficients @ arrays["regressor__input_components_"][:, :m].T
        input_mean, output_mean = (arrays[f"regressor__{n}_mean_"] for n in ("input", "output"))
        offset = offset + output_mean - coefficients @ input_mean
    return _Scaler(
        source=source,
        target=target,
        regressor=regressor,
        file=path.name,
        projection=components,
        mapping=-components @ coefficients,
        bias=-components @ offset,
        num_components=m,
        input_mean=input_mean,
        output_mean=output_mean,
    )


def _fitted_on(scalers: Sequence[_Scaler]) -> dict[str, str]:
    """Which of two vectors the mean of a stage's inputs is: that of raw h, or that of z."""
    found = {}
    z_mean = scalers[0].input_mean
    for before, scaler in pairwise(scalers):
        raw = before.output_mean
        if z_mean is not None and raw is not None:
            added = before.projection @ raw + before.mapping @ z_mean + before.bias
            z_mean = np.concatenate([z_mean, added])
        else:
            z_mean = None
        found[scaler.stage] = _nearest(scaler.input_mean, raw, z_mean)
    return found


def _nearest(mean: np.ndarray | None, raw: np.ndarray | None, rd: np.ndarray | None) -> str:
    if mean is None or raw is None or rd is None:
        return "unknown"
    to_raw, to_rd = np.linalg.norm(mean - raw), np.linalg.norm(mean - rd)
    if to_raw < _CLEARLY * to_rd:
        return "raw"
    return "rd" if to_rd < _CLEARLY * to_raw else "unknown"


def _report(
    scalers: Sequence[_Scaler], fitted_on: dict[str, str], origin: dict[str, Any]
) -> FitReport:
    regressors = {s.regressor for s in scalers}
    context: dict[str, Any] = {
        "origin": "scalers of the package reverse-distillation; residues, R2 and variances unknown",
        "files": [s.file for s in scalers],
        "regressors": {s.stage: s.regressor for s in scalers},
        "num_components": {s.stage: s.num_components for s in scalers},
        "fitted_on": fitted_on,
        **origin,
    }
    return FitReport(
        regression="+".join(sorted(regressors)),
        num_components="marchenko_pastur" if "pcr" in regressors else "all",
        ridge=None,
        num_residues=0,
        num_heldout_residues=0,
        stages=(),
        level_variance=(),
        context=context,
    )


def _rounded(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
