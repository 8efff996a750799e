"""What do a representation's directions mean? Autoencoders trained, observed, and compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from ...distillation.moments import JointMoments
from ...errors import InputError
from .activations import Labelled, observe, progress
from .annotations import Annotation, Proteins, ResidueLabels, check_lengths
from .autoencoder import TopKAutoencoder
from .module import Coder, train
from .options import SAEOptions, given
from .result import SAEResult, result_of
from .stream import Mapped, RowStream, Standardised, moments_of


def analyse(
    stream: RowStream,
    maps: Mapping[str, Mapped],
    annotations: Mapping[str, Annotation],
    proteins: Proteins,
    options: SAEOptions,
    *,
    training: RowStream | None = None,
    moments: JointMoments | None = None,
    device: str | torch.device = "cpu",
    on_rows: Callable[[int], None] = lambda rows: None,
) -> SAEResult:
    """Train an autoencoder for each representation and seed, all in the same passes over a stream,
    and find the annotations that their features carry.

    Passes over streams: ``options.epochs`` to train, one over ``stream`` to count, and one for the
    moments where they are not given. Nothing of the size of residues x features is held. The
    caller's random numbers are left as they were. The same options give the same result on the
    same device.

    Args:
        stream: of the annotated proteins; residues, or proteins, as ``options.level`` says.
        maps: representations by name; the first is what the others are compared with. Random
            directions in place of those of rd are one more of them.
        annotations: by name, in the order of ``proteins``.
        proteins: those of ``stream``, by number.
        training: what the autoencoders are trained on; the same stream by default.
        moments: of the rows of ``training``, from which the inputs' mean and scale follow.
        device: of the training.
        on_rows: told the number of rows of each batch of a stream.

    Raises:
        InputError: an annotation is not of these proteins, a map has fewer columns, an embedding is
            NaN or infinite, or the training diverges.
    """
    _check(maps, annotations, proteins, options)
    training = stream if training is None else training
    stream, training = progress(stream, on_rows), progress(training, on_rows)
    moments = moments_of(training) if moments is None else moments
    coders = _make_coders(maps, moments, options)
    by_name = {f"{name}, seed {seed}": coder for (name, seed), coder in coders.items()}
    train(
        by_name,
        training,
        epochs=given(options.epochs),
        rows_per_step=given(options.rows_per_step),
        buffer_rows=options.buffer_rows,
        learning_rate=options.learning_rate,
        device=device,
    )
    counted = {
        seed: {
            Labelled(name, permuted): annotation.permuted(seed) if permuted else annotation
            for name, annotation in annotations.items()
            for permuted in (False, True)
        }
        for seed in options.seeds
    }
    observed = observe(
        stream,
        by_name,
        {name: counted[seed] for name, (_, seed) in zip(by_name, coders, strict=True)},
        level=options.level,
        top=options.top,
        around=options.around,
    )
    seen = dict(zip(coders, observed.values(), strict=True))
    return result_of(maps, annotations, proteins, options, coders, seen)


def _check(
    maps: Mapping[str, Mapped],
    annotations: Mapping[str, Annotation],
    proteins: Proteins,
    options: SAEOptions,
) -> None:
    if not maps or not annotations:
        missing = "annotation" if maps else "representation"
        raise InputError(f"no {missing} is given; name one or more")
    for name, annotation in annotations.items():
        if len(annotation.of) != len(proteins.ids):
            raise InputError(
                f"{name}: annotations of {len(annotation.of)} proteins for {len(proteins.ids)}"
            )
        if isinstance(annotation, ResidueLabels):
            if options.level == "protein":
                raise InputError(f"{name}: labels of residues need level=residue")
            check_lengths(annotation, proteins)


def _make_coders(
    maps: Mapping[str, Mapped], moments: JointMoments, options: SAEOptions
) -> dict[tuple[str, int], Coder]:
    coders = {}
    mean, covariance = moments.mean.cpu(), moments.covariance.cpu()
    for name, mapped in maps.items():
        try:
            inputs = Standardised(mapped, mean, covariance)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        for seed in options.seeds:
            autoencoder = TopKAutoencoder(
                mapped.width,
                options.num_features,
                given(options.k),
                k_aux=options.k_aux,
                dead_after=options.dead_after,
                seed=seed,
            )
            coders[name, seed] = Coder(inputs, autoencoder)
    return coders
