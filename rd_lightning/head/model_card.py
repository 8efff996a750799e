"""The model card of a head: what it is, how good the fit was, how to use it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..display.markdown import table
from ..families.family import Member
from ..families.record import MEMBERS
from ..families.table import Row, find
from .report import FitReport, StageReport, shown_figure

_PAPER = "https://arxiv.org/abs/2603.07710"
_TAGS = ("protein-language-model", "protein", "embeddings", "reverse-distillation", "matryoshka")
_UNKNOWN = "not recorded"
Entries = list[tuple[dict[str, Any], tuple[Row, Member] | None]]


def model_card(
    names: Sequence[str],
    dims: Sequence[int],
    report: FitReport,
    repo_id: str,
    *,
    member_dims: Sequence[int] | None = None,
    trained: bool = False,
) -> str:
    """Markdown with a YAML front matter, as the Hugging Face Hub reads it.

    Every figure is the report's; what the report does not know is called "not recorded".

    Args:
        names, dims: of the levels, smallest first.
        member_dims: widths of the members, where they are not those of the levels.
        repo_id: where the card will stand; its code loads from there.
        trained: whether the matrices may have been trained since the fit.
    """
    family = report.context.get("family")
    family = family if isinstance(family, str) else None
    members = list(dims if member_dims is None else member_dims)
    sections = [
        _front_matter(family, _licences(names, family, report)),
        f"# Reverse distillation of {f'{family}: ' if family else ''}{names[0]} to {names[-1]}",
        _introduction(names, dims, members, family, report.scale),
        f"## Use\n\n{_use(names, dims, members, family, repo_id)}",
        f"## Levels\n\n{_levels(names, dims, report)}",
        *([f"## Models\n\n{models}"] if (models := _models(names, family, report)) else []),
        f"## Fit\n\n{_fit(names, family, report)}",
        f"## Limits\n\n{_limits(names, family, report, trained)}",
        "## Citation\n\n"
        f"Catrina et al., *Reverse distillation of protein language models*, ICLR 2026, "
        f"[arXiv 2603.07710]({_PAPER}).",
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(family: str | None, licences: set[str]) -> str:
    from huggingface_hub import ModelCardData  # takes half a second to import

    data = ModelCardData(
        library_name="rd_lightning",
        license="mit" if licences <= {"MIT"} else "other",
        pipeline_tag="feature-extraction",
        tags=[*_TAGS, *([family] if family else [])],
    )
    return f"---\n{data.to_yaml()}\n---"


def _introduction(
    names: Sequence[str],
    dims: Sequence[int],
    members: Sequence[int],
    family: str | None,
    scale: str,
) -> str:
    whose = f" of the family `{family}`" if family else ""
    first = f"the embedding of {names[0]} as it is"
    if dims[0] < members[0]:
        first = f"the leading principal components of the {members[0]} of {names[0]}"
    elif scale == "rms":
        first = f"the embedding of {names[0]} about its mean, divided by one number"
    elif scale == "whiten":
        first = f"the principal components of {names[0]}, each divided by its deviation"
    return (
        f"An `RDHead` of `rd_lightning`: it takes the residue embeddings of the protein language "
        f"models{whose} ({', '.join(names)}) and gives nested ones by reverse distillation "
        f"([Catrina et al., ICLR 2026]({_PAPER})). The first {dims[0]} columns are "
        f"{first}; each larger model adds what the smaller ones do not explain. "
        "Embed once, keep as many of the first columns as you need. The models' own weights are "
        "not in this repository."
    )


def _use(
    names: Sequence[str],
    dims: Sequence[int],
    members: Sequence[int],
    family: str | None,
    repo_id: str,
) -> str:
    if family is None:
        return _python(
            "import torch",
            "from rd_lightning import RDHead",
            "",
            f'head = RDHead.from_pretrained("{repo_id}")',
            f"z = head([torch.randn(10, d) for d in head.member_dims])  # (10, {dims[-1]})",
        ) + (
            "\n\nIn place of `torch.randn`: the embeddings of 10 residues by "
            f"{', '.join(names)}, of {_listed(members)} columns."
        )
    return _python(
        "from rd_lightning import RDModel",
        "",
        f'model = RDModel.from_pretrained("{repo_id}")',
        f'vectors = model.embed(["MKTAYIAKQR"], pooling="mean")  # (1, {dims[-1]})',
    ) + (
        f"\n\nThe models are loaded as `rd_lightning` knows the family `{family}`, or with "
        "`weights=DIR` from a folder of yours; a family of your own must be registered first. "
        f'`level="{names[0]}"` or `width=N` runs no more models than these columns need. The head '
        f'alone, for embeddings that you have already: `RDHead.from_pretrained("{repo_id}")`.'
    )


def _levels(names: Sequence[str], dims: Sequence[int], report: FitReport) -> str:
    stages: Sequence[StageReport | None] = report.stages or [None] * (len(names) - 1)
    rows = [(names[0], str(dims[0]), str(dims[0]), *[""] * 4)]
    for k, stage in enumerate(stages, start=1):
        rows.append((names[k], str(dims[k]), str(dims[k] - dims[k - 1]), *_figures(stage)))
    heading = (
        "level", "columns", "of them new", "components", "R² fit", "R² held-out", "residual kept"
    )  # fmt: skip
    return "\n".join(table(heading, rows)) + (
        "\n*Components*: principal components of the level before on which a model is regressed, "
        "of all there are. *R²*: share of the model's variance that the regression explains, on "
        "the residues of the fit and on held-out ones. *Residual kept*: share of the variance of "
        "what is left that the new columns hold."
    )


def _figures(stage: StageReport | None) -> tuple[str, str, str, str]:
    if stage is None:
        return _UNKNOWN, _UNKNOWN, _UNKNOWN, _UNKNOWN
    figures = (stage.r2_fit, ".3f"), (stage.r2_heldout, ".3f"), (stage.kept_variance, ".1%")
    fit, heldout, kept = (shown_figure(*figure, absent=_UNKNOWN) for figure in figures)
    return f"{stage.num_components} of {stage.num_inputs}", fit, heldout, kept


def _entries(names: Sequence[str], family: str | None, report: FitReport) -> Entries:
    """What the report says of each member, with its row in the table of families."""
    listed = report.context.get(MEMBERS) or [{"name": name} for name in names]
    return [(e, find(e.get("of") or f"{family}/{e['name']}")) for e in listed[: len(names)]]


def _licences(names: Sequence[str], family: str | None, report: FitReport) -> set[str]:
    """Of the models' weights, as far as they are known."""
    return {found[0].licence for _, found in _entries(names, family, report) if found}


def _models(names: Sequence[str], family: str | None, report: FitReport) -> str:
    """The models that the levels are of, where they are published; empty where none is."""
    rows, published = [], False
    for entry, found in _entries(names, family, report):
        path = found[1].checkpoint if found else entry.get("path")
        revision = found[1].repository.revision if found else entry.get("revision")
        layer = entry.get("layer")
        rows.append(
            (
                str(entry["name"]),
                f"[{path}](https://huggingface.co/{path})" if path else _UNKNOWN,
                f"`{revision[:12]}`" if revision else _UNKNOWN,
                "last" if layer is None else str(layer),
                found[0].licence if found else _UNKNOWN,
            )
        )
        published = published or bool(path)
    if not published:
        return ""
    heading = ("level", "model", "revision", "layer", "licence")
    return "\n".join(table(heading, rows, left=5)) + (
        "\nThe licences are those of the models' weights, which may bind what is made with them."
    )


def _fit(names: Sequence[str], family: str | None, report: FitReport) -> str:
    context = report.context
    # A head solved from merged parts names the sequences of each.
    found = [context.get("fasta_digest"), *(p.get("content") for p in context.get("parts", []))]
    digests = dict.fromkeys(digest for digest in found if digest)
    weights = context.get("weights", {})
    versions = context.get("versions", {})
    keep = None if report.keep is None else list(report.keep)
    scale = {} if report.scale == "none" else {"scale": report.scale}
    chosen = {**report.options, "keep": keep, **scale}
    options = ", ".join(f"{k}={v}" for k, v in chosen.items() if v is not None)
    facts: list[tuple[str, Any]] = [
        ("family", family),
        ("options", options),
        ("residues in the fit", report.num_residues and f"{report.num_residues:,}"),
        ("residues held out", _held_out(report)),
        ("sequences", context.get("fasta")),
        ("digest of the sequences", _listed(f"`{digest}`" for digest in digests)),
        ("digests of the weights", _listed(f"{n} `{weights[n]}`" for n in names if n in weights)),
        ("software", _listed(f"{name} {version}" for name, version in versions.items())),
    ]
    rows = [(name, str(value or _UNKNOWN)) for name, value in facts]
    return "\n".join(table(("what", "how"), rows, left=2)).rstrip()


def _held_out(report: FitReport) -> str:
    return f"{report.num_heldout_residues:,}" if report.num_residues else ""


def _limits(names: Sequence[str], family: str | None, report: FitReport, trained: bool) -> str:
    models = f"these models of `{family}`" if family else "these models"
    limits = [
        "The mapping is linear: what a larger model says that is a nonlinear function of the "
        "smaller ones counts as new.",
        f"Fitted on {models} ({', '.join(names)}) only, with the weights above; on others its "
        "output means nothing.",
        *(
            []
            if report.scale == "none"
            else [
                "The columns of each level are on one scale "
                f"(`scale={report.scale}`), which the method as published does not have."
            ]
        ),
        "Explained variance is no measure of use: whether more columns help on your data is for "
        "your data to say (`rd-evaluate`).",
    ]
    if report.num_heldout_residues and {"plan", "parts"} & set(report.context):
        limits.append(
            "The held-out sequences are a share of the same files, told apart letter for letter: "
            "homologues may be on both sides."
        )
    if trained:
        limits.append("Its matrices may have been trained since; the figures are of the fit.")
    return "\n".join(f"* {limit}" for limit in limits)


def _python(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))
