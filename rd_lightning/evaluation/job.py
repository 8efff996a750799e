"""One run of rd-evaluate: its settings checked, its assays scored one by one, each kept at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from torch import Tensor

from ..errors import InputError, check_choice, check_whole
from ..runtime.precision import autocast
from .assays.assay import Assay, read_assays
from .assays.splits import Split, schemes_of
from .models import Models
from .nonlinear.run import Nonlinear
from .options import EvaluateOptions, listed, score_settings
from .probes.gp import check_gpytorch, check_rows
from .representations.baselines import BUILDERS, Representation, build
from .representations.refits import Refit, Skipped, refits
from .representations.variant_embedder import POOLINGS, VariantEmbedder, check_length
from .representations.zero_shot import MaskedMarginals, check_zero_shot, with_zero_shot
from .run_folder import SCORES_VERSION, RunFolder
from .scoring import ONE_HOT, PROBES, REFIT_COLUMNS, Scoring, num_fits, score_assay, score_refits
from .statistics.predictions import Predictions
from .submission import check_submission

EMBEDDINGS, NONLINEAR = "embeddings", "nonlinear"


class Scored(NamedTuple):
    """What one assay came to; its predictions are in the run's folder."""

    results: pd.DataFrame
    refits: pd.DataFrame
    """Columns :data:`REFIT_COLUMNS`; empty unless the training set was resampled."""


class EvaluateJob(Models):
    """What a configuration asks for.

    Raises:
        InputError: it cannot be done; the message says what to change.
    """

    def __init__(self, options: EvaluateOptions, folder: Path) -> None:
        self.options, self.folder = options, RunFolder(folder)
        if options.assays is None:
            raise InputError("assays is missing; name a CSV file or a folder: assays=x.csv")
        for name, asked in (("energy", options.energy), ("sae.enabled", options.sae.enabled)):
            if asked:
                raise InputError(f"{name} is of tasks; leave it out, or give tasks=PATH")
        self.names = listed(options.representations)
        for name in self.names:
            check_choice("representations", name, (*BUILDERS, ONE_HOT))
        self.poolings, self.probes = listed(options.pooling), listed(options.probes)
        for pooling in self.poolings:
            check_choice("pooling", pooling, POOLINGS)
        for probe in self.probes:
            check_choice("probes", probe, PROBES)
        check_whole("num_folds", options.num_folds, least=2)
        if options.fit is None and self.names != [ONE_HOT]:
            raise InputError(
                "fit is missing; name the folder that rd-fit wrote, fit=rd-fit/..., or compare "
                "representations=[one_hot] alone"
            )
        if options.zero_shot and options.fit is None:
            raise InputError("zero_shot=true needs a fit, whose largest member gives the scores")
        if "gp" in self.probes:
            check_gpytorch()
        super().__init__(options)
        check_choice("on_invalid", options.on_invalid, ("raise", "skip"))
        read, self.problems = read_assays(
            options.assays,
            reference=options.reference,
            wild_type=options.wild_type,
            **asdict(options.columns),
        )
        self.splits: dict[str, dict[str, list[Split]]] = {}
        self.left_out: list[str] = []
        """Schemes that "auto" leaves out, and why."""
        for assay in read:
            try:
                self._check_assay(assay)
            except InputError as error:
                self.problems[assay.name] = str(error)
        self.assays = [assay for assay in read if assay.name not in self.problems]
        self._refuse(len(self.assays) + len(self.problems))

    def _refuse(self, number: int) -> None:
        """Raise InputError for assays that cannot be used, all at once; or go on without them."""
        said = "; ".join(self.problems.values())
        if self.problems and number == 1:
            raise InputError(said)
        if not self.assays:
            raise InputError(f"none of {number} assays can be used: {said}")
        if self.problems and self.options.on_invalid == "raise":
            raise InputError(
                f"{len(self.problems)} of {number} assays cannot be used: {said}; mend them, or "
                "go on with the others: on_invalid=skip"
            )

    def _check_assay(self, assay: Assay) -> None:
        options = self.options
        self.splits[assay.name], left_out = schemes_of(
            assay, options.schemes, num_folds=options.num_folds, seed=options.seed
        )
        self.left_out += left_out
        if assay.positions is None and set(self.poolings) != {"mean"}:
            raise InputError(
                f"{assay.name}: pooling over mutated residues needs mutants; give their column, "
                "the wild type, or use pooling=mean"
            )
        if ONE_HOT in self.names and len({len(s) for s in assay.sequences}) > 1:
            raise InputError(
                f"{assay.name}: one_hot needs sequences of one length; leave it out: "
                "representations=[raw,rd,...]"
            )
        if self.fitted is not None:
            check_length(assay, options.max_residues)
        if options.zero_shot:
            check_zero_shot(assay)
        if options.submission:
            check_submission(assay)
        if "gp" in self.probes:
            check_rows(assay.name, self.splits[assay.name])

    # The family

    @cached_property
    def representations(self) -> list[Representation]:
        """All but one-hot; of the fit."""
        if self.fitted is None:
            return []
        names = [name for name in self.names if name != ONE_HOT]
        found = build(names, self.fitted, self.options.widths, seed=self.options.seed)
        return found if self.nonlinear is None else [*found, *self.nonlinear.representations]

    @property
    def runs_models(self) -> bool:
        """Whether an assay is left to be embedded."""
        return self.fitted is not None and not all(map(self.folder.done, self.assays))

    @cached_property
    def nonlinear(self) -> Nonlinear | None:
        """Fitted when first asked for: a pass over the FASTA file."""
        settings = self.options.nonlinear
        if self.fitted is None or not settings.features:
            return None
        check_whole("nonlinear.features", settings.features, least=1)
        with autocast(self.precision, self.device):
            return Nonlinear.make(
                self.fitted,
                self.backbones,
                settings.fasta,
                num_features=settings.features,
                bandwidth=settings.bandwidth,
                seed=self.options.seed,
                folder=self.folder.path / NONLINEAR,
                arithmetic=self.arithmetic,
            )

    @cached_property
    def refits(self) -> list[Refit | Skipped]:
        """Of the training sequences; empty unless they were asked for."""
        settings = self.options.training_set
        if self.fitted is None or not settings.enabled:
            return []
        return list(
            refits(
                self.fitted.state,
                list(self.fitted.head.names),
                shares=tuple(settings.shares),
                num_draws=settings.num_draws,
                num_resamples=settings.num_resamples,
                seed=self.options.seed,
                **self.fitted.head.report.options,
                scale=self.fitted.head.report.scale,
            )
        )

    @cached_property
    def _cache(self) -> Path:
        cache = self.options.cache
        return self.folder.path / EMBEDDINGS if cache is None else Path(cache)

    @cached_property
    def zero_shot(self) -> MaskedMarginals | None:
        """Of the largest member; None unless asked for."""
        if not self.options.zero_shot:
            return None
        weights = self.options.family.get("weights")
        return MaskedMarginals(
            self.backbones,
            self.family.tokenizer(),
            self.models_identity,
            folder=None if weights is None else Path(weights),
            cache=self._cache,
            tokens_per_batch=self.tokens_per_batch,
        )

    @property
    def scored_names(self) -> list[str]:
        """All that stands in the results: representations, one-hot, and zero-shot scores."""
        names = [r.name for r in self.representations] + [ONE_HOT] * (ONE_HOT in self.names)
        return names + (with_zero_shot(names) if self.options.zero_shot else [])

    @cached_property
    def embedder(self) -> VariantEmbedder:
        identity = self.models_identity
        if self.nonlinear is not None:
            identity["features"] = self.nonlinear.identity
        return VariantEmbedder(
            self.backbones,
            self.family.tokenizer(),
            identity,
            cache=self._cache,
            tokens_per_batch=self.tokens_per_batch,
            max_residues=self.options.max_residues,
            transform=None if self.nonlinear is None else self.nonlinear.features,
        )

    # The run

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What the scores depend on, as JSON has it."""
        settings = score_settings(self.options, self.folder.path)
        head = None if self.fitted is None else self.fitted.head.digest()
        found = {"scores": SCORES_VERSION, "settings": settings, "head": head}
        if self.fitted is not None:
            found |= self.arithmetic
        if self.fitted is not None and self.options.training_set.enabled:
            found["groups"] = [moments.num_rows for moments in self.fitted.state.groups]
        return json.loads(json.dumps(found))

    def prepare(self) -> None:
        """All that can still go wrong, or takes long, before the first assay is scored."""
        _ = self.representations, self.refits
        if self.runs_models:
            _ = self.embedder, self.zero_shot
        self.folder.begin(self.manifest)

    def scoring(self, assay: Assay) -> Scoring:
        return Scoring(
            self.splits[assay.name],
            tuple(self.poolings),  # pyright: ignore[reportArgumentType]
            tuple(self.probes),  # pyright: ignore[reportArgumentType]
            self.options.seed,
        )

    def done(self, assay: Assay) -> bool:
        """Whether an assay is scored."""
        return self.folder.done(assay)

    def num_residues(self, assay: Assay) -> int:
        """Residues that go through the models."""
        return 0 if self.fitted is None else self.embedder.num_residues(assay)

    def num_fits(self, assay: Assay) -> int:
        one_hot, zero_shot = ONE_HOT in self.names, self.options.zero_shot
        return num_fits(self.scoring(assay), self.representations, one_hot, zero_shot)

    def score(
        self,
        assay: Assay,
        on_residues: Callable[[int], None] = lambda residues: None,
        on_fit: Callable[[], None] = lambda: None,
    ) -> Scored:
        """Read, or scored and kept."""
        if self.folder.done(assay):
            results, refitted = self.folder.read(assay)
            self._check_whole(assay, results)
            return Scored(results, refitted)
        rows = {} if self.fitted is None else self._embedded(assay, on_residues)
        scoring, zero_shot = self.scoring(assay), None
        if self.zero_shot is not None:
            with autocast(self.precision, self.device):
                zero_shot = self.zero_shot.score(assay, on_batch=lambda: on_residues(0))
        found, predictions = score_assay(
            assay,
            rows,
            self.representations,
            scoring,
            with_one_hot=ONE_HOT in self.names,
            zero_shot=zero_shot,
            on_fit=on_fit,
        )
        refit_scores = score_refits(assay, rows, self.refits, self.levels, scoring)
        refitted = pd.DataFrame(refit_scores, columns=list(REFIT_COLUMNS))
        results = pd.DataFrame(found)
        self._check_whole(assay, results)
        self.folder.write(assay, results, refitted, predictions)
        return Scored(results, refitted)

    def _embedded(self, assay: Assay, on_residues: Callable[[int], None]) -> dict[str, Tensor]:
        with autocast(self.precision, self.device):
            return self.embedder.embed(assay, on_residues)

    def _check_whole(self, assay: Assay, results: pd.DataFrame) -> None:
        """Everything that was to be scored has scores, and nothing else does."""
        columns = ["representation", "scheme", "pooling", "probe"]
        planned = set(
            product(self.scored_names, self.splits[assay.name], self.poolings, self.probes)
        )
        found = set(results[columns].itertuples(index=False, name=None))
        if found != planned:
            raise InputError(
                f"{assay.name}: {len(found & planned)} of the {len(planned)} planned combinations "
                f"of {', '.join(columns)} were scored, and {len(found - planned)} others; remove "
                f"{self.folder.part(assay)}, and the assay is scored again"
            )

    def predictions(self) -> Predictions:
        """Of the assays that are scored."""
        return self.folder.predictions(self.assays)
