"""Average precision and area under the ROC curve of many resamples, from scores in bins."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.sparse import csr_matrix

NUM_BINS = 2048


class ScoreBins:
    """One column's scores, sorted into bins; equal scores share a bin.

    The bins end at scores of positives and just above them. With at most ``num_bins / 2`` distinct
    scores of positives each has a bin of its own, and what lies between two of them another; then
    the areas are exact. Otherwise ``num_bins`` of these ends are used, evenly by number.

    The areas are those of scores that are equal within a bin. With ``P, N`` positives and negatives
    above a bin and ``p, n`` in it, a positive's precision lies in ::

        (P + 1) / (P + 1 + N + n)  to  (P + p) / (P + p + N)

    however the bin is ordered, and the value used, ``(P + p) / (P + p + N + n)``, lies there too.
    So the average precision is off by at most the mean of that range over positives, and the area
    under the ROC curve by ``sum(p n) / 2`` of all pairs.
    """

    def __init__(
        self,
        scores: Float64[np.ndarray, " n"],
        positive: Bool[np.ndarray, " n"],
        cluster: Int64[np.ndarray, " n"],
        num_clusters: int,
        *,
        num_bins: int = NUM_BINS,
    ) -> None:
        own = np.unique(scores[positive])
        ends = np.unique(np.concatenate([own, np.nextafter(own, np.inf)]))
        if len(ends) > num_bins:
            ends = ends[np.linspace(0, len(ends) - 1, num_bins).round().astype(np.int64)]
        self.bins = len(ends) - np.searchsorted(ends, scores, side="right")
        """Of each row; 0 holds the highest scores."""
        self._positives, self._negatives = (
            csr_matrix(
                (np.ones(rows.sum()), (self.bins[rows], cluster[rows])),
                shape=(len(ends) + 1, num_clusters),
            )
            for rows in (positive, ~positive)
        )

    def areas(
        self, counts: Float64[np.ndarray, "clusters r"]
    ) -> tuple[Float64[np.ndarray, " r"], Float64[np.ndarray, " r"]]:
        """Average precision and area under the ROC curve of each resample.

        NaN where a resample has no positive, of the ROC curve also where it has no negative.

        Args:
            counts: how often each resample draws each cluster.
        """
        positives, negatives = self._positives @ counts, self._negatives @ counts
        above, precision = positives.cumsum(axis=0), negatives.cumsum(axis=0)
        num_positives, num_negatives = above[-1], precision[-1].copy()
        precision += above
        np.divide(above, np.maximum(precision, 1, out=precision), out=precision)
        found = np.einsum("br,br->r", positives, precision)
        pairs = np.einsum("br,br->r", negatives, above)
        pairs -= np.einsum("br,br->r", negatives, positives) / 2
        num_pairs = num_positives * num_negatives
        return (
            found / np.where(num_positives > 0, num_positives, np.nan),
            pairs / np.where(num_pairs > 0, num_pairs, np.nan),
        )
