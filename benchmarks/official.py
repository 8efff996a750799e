"""The official package's fit of one step, called as its training script calls it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

INSTALL = (
    "pip install --no-deps reverse-distillation==0.1.0; "
    'pip install fbpca loguru "huggingface_hub<1" scikit-learn'
)
# Without --no-deps it pulls torchtext, CUDA wheels and some forty more; huggingface_hub 1 and
# later need a package of their own for the import alone.


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


def fit(x: np.ndarray, y: np.ndarray) -> Fitted:
    """``rdScaler(..., regressor_type="pcr", pca_type="incremental").fit(x, y)``, step by step.

    ``rdScaler`` itself takes only ESM-2's widths; its ``fit`` is these four lines: the regression
    with its R2 on the training rows, the prediction, the residual, and IncrementalPCA in the
    wrapper's batches of 131,072 rows.
    """
    from reverse_distillation.scaler.modules import IncrementalPCAWrapper, PCRegressionWrapper

    regressor = PCRegressionWrapper()
    pca = IncrementalPCAWrapper(n_components=y.shape[1] - x.shape[1])
    regressor.fit(X=x, y=y, validate=True)
    pca.fit(y - regressor.predict(x))
    m = int(regressor.n_significant_pcs_)
    coefficients = regressor.input_components_[:, :m] @ regressor.regressor.coef_.T
    return Fitted(coefficients, pca.components_.T, m)


def silence() -> None:
    """Stop its log lines, which its import sends to standard output."""
    from loguru import logger

    logger.disable("reverse_distillation")
