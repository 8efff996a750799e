"""One run of rd-evaluate: its settings checked, its assays scored one by one, each kept at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from omegaconf import DictConfig

from ..cli.command import plain
from ..embedding.formats.base import safe_name
from ..embedding.nested_model import family_of, members_of
from ..embedding.parallel import stream_tokens
from ..errors import InputError, check_choice, check_whole
from ..families.backbone import load_backbones, weight_digests
from ..families.family import Family
from ..families.hugging_face import family_from_config
from ..fitting.fitted import Fitted, read_fit
from ..fitting.state import differences
from ..runtime.files import atomic_path, write_json
from .assays.assay import Assay, read_assays
from .assays.splits import schemes_of, splits_of
from .nonlinear.run import Nonlinear
from .representations.baselines import BUILDERS, Representation, build
from .representations.refits import Refit, Skipped, refits
from .representations.variant_embedder import POOLINGS, VariantEmbedder, check_length
from .scoring import ONE_HOT, PROBES, REFIT_COLUMNS, Scoring, num_fits, score_assay, score_refits
from .statistics.predictions import Predictions

MANIFEST, PARTS, PREDICTIONS = "run.json", "parts", "predictions"
EMBEDDINGS, NONLINEAR = "embeddings", "nonlinear"


class Scored(NamedTuple):
    """What one assay came to; its predictions are in the run's folder."""

    results: pd.DataFrame
    refits: pd.DataFrame
    """Columns :data:`REFIT_COLUMNS`; empty unless the training set was resampled."""


class EvaluateJob:
    """What a configuration asks for.

    Raises:
        InputError: it cannot be done; the message says what to change.
    """

    def __init__(self, config: DictConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        if config.assays is None:
            raise InputError("assays is missing; name a CSV file or a folder: assays=x.csv")
        self.names = _listed(config.representations)
        for name in self.names:
            check_choice("representations", name, (*BUILDERS, ONE_HOT))
        self.poolings, self.probes = _listed(config.pooling), _listed(config.probes)
        for pooling in self.poolings:
            check_choice("pooling", pooling, POOLINGS)
        for probe in self.probes:
            check_choice("probes", probe, PROBES)
        check_whole("num_folds", config.num_folds, least=2)
        if config.fit is None and self.names != [ONE_HOT]:
            raise InputError(
                "fit is missing; name the folder that rd-fit wrote, fit=rd-fit/..., or compare "
                "representations=[one_hot] alone"
            )
        self.fitted: Fitted | None = None if config.fit is None else read_fit(config.fit)
        self.assays = read_assays(
            config.assays,
            reference=config.reference,
            wild_type=config.wild_type,
            **config.columns,
        )
        self.schemes = {a.name: schemes_of(a, config.schemes) for a in self.assays}
        for assay in self.assays:
            self._check_assay(assay)

    def _check_assay(self, assay: Assay) -> None:
        for scheme in self.schemes[assay.name]:
            splits_of(assay, scheme, num_folds=self.config.num_folds, seed=self.config.seed)
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
            check_length(assay, self.config.max_residues)

    # The family

    @cached_property
    def levels(self) -> dict[str, int]:
        """Width by name; empty without a fit."""
        if self.fitted is None:
            return {}
        return dict(zip(self.fitted.head.names, self.fitted.head.dims, strict=True))

    @cached_property
    def representations(self) -> list[Representation]:
        """All but one-hot; of the fit."""
        if self.fitted is None:
            return []
        family = self.fitted.family(seed=self.config.seed)
        widths = None if self.config.widths is None else list(self.config.widths)
        found = build([n for n in self.names if n != ONE_HOT], family, widths)
        return found if self.nonlinear is None else [*found, *self.nonlinear.representations]

    @cached_property
    def family(self) -> Family:
        """What the fit was made with, or what the configuration names."""
        assert self.fitted is not None
        name = self.config.family.name or family_of(self.fitted.head, self.config.fit)
        return family_from_config({**self.config.family, "name": name})

    @cached_property
    def _loaded(self) -> tuple[torch.nn.ModuleDict, dict[str, str]]:
        """The backbones, and the digests of their weights, which are the fit's."""
        assert self.fitted is not None
        weights = self.config.family.weights
        members = members_of(self.family, self.fitted.head)
        folder = None if weights is None else Path(weights)
        backbones = load_backbones(self.family, members, folder).to(_device(self.config.device))
        known, found = self.fitted.state.identity.get("weights"), weight_digests(backbones)
        if known is not None and known != found:
            raise InputError(
                f"the weights are not those of the fit ({'; '.join(differences(found, known))}); "
                "give the same weights, or fit anew"
            )
        return backbones, found

    @property
    def backbones(self) -> torch.nn.ModuleDict:
        """Loaded when first asked for."""
        return self._loaded[0]

    @cached_property
    def nonlinear(self) -> Nonlinear | None:
        """Fitted when first asked for: a pass over the FASTA file."""
        settings = self.config.nonlinear
        if self.fitted is None or not settings.features:
            return None
        check_whole("nonlinear.features", settings.features, least=1)
        return Nonlinear.make(
            self.fitted,
            self.backbones,
            settings.fasta,
            num_features=settings.features,
            bandwidth=settings.bandwidth,
            seed=self.config.seed,
            folder=self.folder / NONLINEAR,
        )

    @cached_property
    def refits(self) -> list[Refit | Skipped]:
        """Of the training sequences; empty unless they were asked for."""
        settings = self.config.training_set
        if self.fitted is None or not settings.enabled:
            return []
        return list(
            refits(
                self.fitted.state,
                list(self.fitted.head.names),
                shares=tuple(settings.shares),
                num_draws=settings.num_draws,
                num_resamples=settings.num_resamples,
                seed=self.config.seed,
                **self.fitted.head.report.options,
            )
        )

    @cached_property
    def embedder(self) -> VariantEmbedder:
        device = _device(self.config.device)
        cache = self.config.cache
        identity = {"family": self.family.name, "weights": self._loaded[1]}
        if self.nonlinear is not None:
            identity["features"] = self.nonlinear.identity
        return VariantEmbedder(
            self.backbones,
            self.family.tokenizer(),
            identity,
            cache=self.folder / EMBEDDINGS if cache is None else Path(cache),
            tokens_per_batch=self.config.tokens_per_batch or stream_tokens(device.type),
            max_residues=self.config.max_residues,
            transform=None if self.nonlinear is None else self.nonlinear.features,
        )

    # The run

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What the numbers depend on; where and how fast they are computed is not among it."""
        leave_out = ("out", "cache", "device", "tokens_per_batch")
        settings = {k: v for k, v in plain(self.config).items() if k not in leave_out}
        head = None if self.fitted is None else self.fitted.head.digest()
        return json.loads(json.dumps({"settings": settings, "head": head}))

    def goes_on(self) -> bool:
        """Whether an earlier run with the same settings left something to go on from.

        Raises:
            InputError: an earlier run there was another one; what differs is named.
        """
        path = self.folder / MANIFEST
        if not path.exists():
            return False
        found = differences(json.loads(path.read_text()), self.manifest)
        if found:
            raise InputError(
                f"{self.folder} is of a run with other settings ({'; '.join(found)}); "
                "choose another out"
            )
        return True

    def prepare(self) -> None:
        """All that can still go wrong, or takes long, before the first assay is scored."""
        _ = self.representations, self.refits
        if self.fitted is not None and not all(map(self.done, self.assays)):
            _ = self.embedder
        write_json(self.folder / MANIFEST, self.manifest)

    def scoring(self, assay: Assay) -> Scoring:
        return Scoring(
            self.schemes[assay.name],
            tuple(self.poolings),  # pyright: ignore[reportArgumentType]
            tuple(self.probes),  # pyright: ignore[reportArgumentType]
            self.config.num_folds,
            self.config.seed,
        )

    def num_fits(self, assay: Assay) -> int:
        return num_fits(self.scoring(assay), self.representations, ONE_HOT in self.names)

    def part(self, assay: Assay) -> Path:
        """Where an assay's scores are kept; the name tells its content, so a changed file is scored
        anew."""
        content = {key: value for key, value in asdict(assay).items() if key != "reference"}
        text = json.dumps(content, sort_keys=True, default=lambda array: array.tolist())
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        return self.folder / PARTS / f"{safe_name(assay.name)}.{digest}.parquet"

    def done(self, assay: Assay) -> bool:
        return self.part(assay).exists()

    def score(
        self,
        assay: Assay,
        on_residues: Callable[[int], None] = lambda residues: None,
        on_fit: Callable[[], None] = lambda: None,
    ) -> Scored:
        """Read, or scored and kept."""
        path = self.part(assay)
        refit_path, folder = path.with_suffix(".refits.parquet"), self.folder / PREDICTIONS
        if path.exists():
            return Scored(pd.read_parquet(path), pd.read_parquet(refit_path))
        rows = {} if self.fitted is None else self.embedder.embed(assay, on_residues)
        scoring = self.scoring(assay)
        found, predictions = score_assay(
            assay,
            rows,
            self.representations,
            scoring,
            with_one_hot=ONE_HOT in self.names,
            on_fit=on_fit,
        )
        refit_scores = score_refits(assay, rows, self.refits, self.levels, scoring)
        refitted = pd.DataFrame(refit_scores, columns=list(REFIT_COLUMNS))
        predictions.save(folder)
        write_frame(refitted, refit_path)
        results = pd.DataFrame(found)
        write_frame(results, path)  # last: it says that the assay is done
        return Scored(results, refitted)

    def predictions(self) -> Predictions:
        """Of the assays that are scored."""
        wanted, found = {assay.name for assay in self.assays}, Predictions()
        kept = Predictions.load(self.folder / PREDICTIONS)
        for key in kept:
            if key.assay in wanted:
                found.add(key, kept.truth(key.assay, key.scheme), kept[key])
        return found


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Parquet, whole or not at all."""
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device is cpu, cuda or cuda:1, not {name!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device={name}, but torch finds no GPU; use device=cpu")
    return device


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
