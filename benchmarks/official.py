"""The official package's fit of one step, called as its training script calls it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

INSTALL = (
    "pip install --no-deps reverse-distillation==0.1.0; "
    'pip install fbpca loguru "transformers<5" scikit-learn'
)
# Without --no-deps it pulls torchtext, CUDA wheels and some forty more; it needs huggingface_hub
# below 1, which transformers below 5 comes with.


PCA = ("incremental", "fbpca")
"""Its two ways to the residual's directions; the first is the training script's default."""
PCA_NAMES = {"incremental": "IncrementalPCA", "fbpca": "fbpca"}


class Fitted(NamedTuple):
    """What its two wrappers found, in our layout: y = z B, V in columns."""

    coefficients: np.ndarray
    vectors: np.ndarray
    num_components: int


def available() -> str | None:
    """Why the package cannot be imported; None if it can."""
    try:
        import reverse_distillation.scaler.modules  # noqa: F401
    except ImportError as error:
        return str(error)
    return None


def fit(x: np.ndarray, y: np.ndarray, pca: str = PCA[0]) -> Fitted:
    """``rdScaler(..., regressor_type="pcr", pca_type=pca).fit(x, y)``, step by step.

    ``rdScaler`` itself takes only ESM-2's widths; its ``fit`` is these lines: the regression with
    its R2 on the training rows, the prediction, the residual, and its PCA (incremental: in the
    wrapper's batches of 131,072 rows).
    """
    from reverse_distillation.scaler.modules import (
        IncrementalPCAWrapper,
        PCRegressionWrapper,
        fbpcaWrapper,
    )

    regressor = PCRegressionWrapper()
    wrapper = IncrementalPCAWrapper if pca == "incremental" else fbpcaWrapper
    found = wrapper(n_components=y.shape[1] - x.shape[1])
    regressor.fit(X=x, y=y, validate=True)
    found.fit(y - regressor.predict(x))
    m = int(regressor.n_significant_pcs_)
    coefficients = regressor.input_components_[:, :m] @ regressor.regressor.coef_.T
    return Fitted(coefficients, found.components_.T, m)


def silence() -> None:
    """Stop its log lines, which its import sends to standard output."""
    from loguru import logger

    logger.disable("reverse_distillation")
