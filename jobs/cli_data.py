"""``replisome data``: the options of its commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from data_shards.store.schema import Compression
from jobs.command import Json, RecipeName, run
from jobs.console import Console

data_app = typer.Typer(
    help="Make, show, check, compare and copy data sets.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
DataPath = Annotated[
    str, typer.Argument(metavar="DATA", help="The data set: X.zarr, or s3://bucket/X.zarr.")
]


@data_app.command("simulate")
def data_simulate(
    recipe: RecipeName,
    out: Annotated[Path, typer.Option(help="New folder for the files.")],
    seed: Annotated[int, typer.Option(help="Another seed, other files.")] = 0,
    json_: Json = False,
) -> None:
    """Write raw files in published formats, with a planted truth.

    Example: replisome data simulate danq --out raw/
    """
    from jobs.datasets import simulate_files

    def work(console: Console) -> dict[str, Any]:
        result = simulate_files(recipe, out, seed, console)
        console.show(f"wrote {', '.join(result['files'])} into {out}")
        return result

    run(json_, work)


@data_app.command("build")
def data_build(
    source: Annotated[Path, typer.Option("--from", help="Folder of the raw files.")],
    out: Annotated[str, typer.Option(help="The data set to make: X.zarr, or s3://bucket/X.zarr.")],
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="[RECIPE]", help="The recipe it is for; without one, --spec is needed."
        ),
    ] = "",
    spec: Annotated[
        Path | None,
        typer.Option(help="Description of the data set [default: RECIPE.toml in --from]."),
    ] = None,
    compression: Annotated[
        Compression,
        typer.Option(help='"none" is mapped in place; "lz4" is smaller, and read through a cache.'),
    ] = "none",
    scratch: Annotated[
        Path | None,
        typer.Option(
            help="Where one for an object store is built before it is sent; on storage that all "
            "nodes share [default: ~/.cache/replisome-builds]."
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Build a data set from raw files; a killed build, run again, continues.

    The description (TOML) is of windows over a reference genome (interval files or signal tracks
    give the labels) or of rows (matrices, arrays, sequences, columns of a sample sheet);
    docs/data.md shows both line by line.

    \b
    Examples:
      replisome data build danq --from raw/ --out x.zarr
      replisome data build danq --from genomes/ --spec yeast.toml --out yeast.zarr
      replisome data build --from tables/ --spec expression.toml --out expression.zarr
    """
    from jobs.datasets import build_dataset

    def work(console: Console) -> dict[str, Any]:
        result = build_dataset(recipe, source, spec, out, console, scratch, compression)
        sizes = ", ".join(f"{name} {count:,}" for name, count in result["samples"].items())
        console.show(f"built {out}: {sizes}; fields {', '.join(result['fields'])}")
        if result["dropped"]:
            console.show(f"left out: {result['dropped']:,} samples that some file lacks")
        console.show(f"fingerprint: {result['fingerprint']}")
        return result

    run(json_, work)


@data_app.command("show")
def data_show(
    data: DataPath,
    json_: Json = False,
) -> None:
    """Show sizes, class balance, origin and a sample of each split.

    Example: replisome data show x.zarr
    """
    from jobs.show import show_dataset

    run(json_, lambda console: show_dataset(data, console))


@data_app.command("check")
def data_check(
    data: DataPath,
    max_duplicates: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of held-out samples whose input another split may have."
        ),
    ] = 0.01,
    json_: Json = False,
) -> None:
    """Verify a data set from its bytes up; exit status 1 if anything is wrong.

    Checks the checksums of all shards, that numbers are finite, that windows lie on their contigs
    and none is there twice, that every label and class is in every split, and that nothing leaks
    between splits: no locus, overlap or group, and few equal or reverse-complement inputs.

    Example: replisome data check x.zarr
    """
    from jobs.datasets import check_dataset

    run(json_, lambda console: check_dataset(data, max_duplicates, console))


@data_app.command("diff")
def data_diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A data set, A.zarr.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another, B.zarr.")],
    json_: Json = False,
) -> None:
    """Say what differs between two data sets: description, source files, arrays.

    Compares schemas, provenance and the manifests' checksums, so it is quick on data of any size.

    Example: replisome data diff yeast.zarr yeast-old.zarr
    """
    from jobs.datasets import diff_datasets

    run(json_, lambda console: diff_datasets(first, second, console))


@data_app.command("copy")
def data_copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A data set.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Where the copy shall be.")],
    json_: Json = False,
) -> None:
    """Copy a data set to or from an object store; a killed copy, run again, continues.

    Credentials and endpoint come from the standard environment: AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL.

    \b
    Examples:
      replisome data copy yeast.zarr s3://lab/yeast.zarr
      replisome data copy s3://lab/yeast.zarr yeast.zarr
    """
    from jobs.datasets import copy_dataset

    run(json_, lambda console: copy_dataset(source, target, console))
