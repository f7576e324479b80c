"""``replisome data show``: a data set in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table

from data_shards.dataset import ShardedDataset
from data_shards.sequence import ALPHABET, decode
from data_shards.store.schema import FieldEntry
from jobs.console import Console

_ENDS = 12  # letters or numbers shown of either end of a long sample


def show_dataset(place: str, console: Console) -> dict[str, Any]:
    """Show what is in a data set: fields, sizes, class balance, origin, a sample of each split."""
    data = ShardedDataset(place)
    schema, provenance = data.schema, data.attributes.provenance
    console.show(f"{place}: {_summary(data)}\nfingerprint: {data.attributes.fingerprint}")
    console.show(_field_table(data))
    positives = _positives(data)
    for name, counts in positives.items():
        console.show(_balance(data, schema.field(name), counts))
    for task in schema.tasks:
        given = f"; scored where {' and '.join(task.given)} are positive" if task.given else ""
        console.show(f"{task.name}: {task.rule}{given}")
    samples = [_sample(data, name) for name in schema.splits]
    shown = Table(*samples[0], title="samples", title_justify="left")
    for sample in samples:
        shown.add_row(*(str(value) for value in sample.values()))
    console.show(shown)
    origin = Table(
        "source file", "bytes", "sha256", title=f"built {provenance.created}", title_justify="left"
    )
    for source in provenance.sources:
        origin.add_row(source.name, f"{source.bytes:,}", source.sha256[:16])
    console.show(origin)
    console.show(f"by: {provenance.command}")
    return {
        "data": place,
        "fingerprint": data.attributes.fingerprint,
        "schema": schema.model_dump(mode="json", by_alias=True),
        "positives": {
            field: {split: counts.tolist() for split, counts in by_split.items()}
            for field, by_split in positives.items()
        },
        "provenance": provenance.model_dump(mode="json"),
        "samples": samples,
    }


def _summary(data: ShardedDataset) -> str:
    schema = data.schema
    sizes = ", ".join(f"{name} {split.samples:,}" for name, split in schema.splits.items())
    recipe = f" for recipe {schema.recipe!r}" if schema.recipe else ""
    text = f"{schema.kind}{recipe}, {schema.samples:,} samples ({sizes})"
    if schema.kind == "windows":
        window = schema.window
        text += (
            f" of {window.length} bp, labels by the central {window.center} bp, every "
            f"{window.stride} bp, strands {window.strands}\nreference: {len(schema.contigs)} "
            f"contigs, {schema.reference.total:,} bp; held out: "
            + ", ".join(
                f"{name} {' '.join(schema.splits[name].contigs)}" for name in ("valid", "test")
            )
        )
    return text


def _field_table(data: ShardedDataset) -> Table:
    table = Table("field", "role", "kind", "dtype", "shape", "bytes", "holds")
    for field in data.schema.fields:
        arrays = {"window": ["reference"]}.get(field.kind, [field.name])
        size = sum(
            shard.bytes
            for shard in data.shards
            if shard.array in arrays or shard.array.startswith(f"{field.name}.")
        )
        shape = " x ".join(str(n) for n in field.shape) or "1"
        text = field.encoding + (f"; normalised: {_steps(field)}" if field.normalise else "")
        table.add_row(field.name, field.role, field.kind, field.dtype, shape, f"{size:,}", text)
    return table


def _steps(field: FieldEntry) -> str:
    from data_shards.build.transforms import steps_of

    return ", ".join(steps_of(field))


def _positives(data: ShardedDataset) -> dict[str, dict[str, npt.NDArray[np.int64]]]:
    """Count samples of each label or class, by field and split."""
    found: dict[str, dict[str, npt.NDArray[np.int64]]] = {}
    for field in data.schema.fields:
        if field.kind == "bits":
            found[field.name] = {
                split: data.bits(field.name, data.split_rows(split)).sum(axis=0, dtype=np.int64)
                for split in data.schema.splits
            }
        elif field.kind == "dense" and field.dtype == "int64" and field.names:
            found[field.name] = {
                split: np.bincount(
                    data.gather(field.name, data.split_rows(split)), minlength=len(field.names)
                )
                for split in data.schema.splits
            }
    return found


def _balance(
    data: ShardedDataset, field: FieldEntry, counts: dict[str, npt.NDArray[np.int64]]
) -> Table:
    splits = data.schema.splits
    table = Table(field.name, *splits, title="positives", title_justify="left")
    for number, name in enumerate(field.names):
        cells = [
            f"{counts[split][number]:,} ({counts[split][number] / max(entry.samples, 1):.2%})"
            for split, entry in splits.items()
        ]
        table.add_row(name, *cells)
    return table


def _sample(data: ShardedDataset, split: str) -> dict[str, Any]:
    """Return the first sample of a split in words."""
    schema, row = data.schema, data.schema.split(split).start
    sample: dict[str, Any] = {"sample": row, "split": split}
    if schema.kind == "windows":
        loci = data.loci
        start = int(loci.start[row])
        contig = schema.contigs[int(loci.contig[row])].name
        sample["locus"] = f"{contig}:{start:,}-{start + schema.window.length:,}"
        sample["strand"] = "+" if loci.strand[row] > 0 else "-"
    for field in schema.fields:
        sample[field.name] = _value(data, field, np.array([row]))
    return sample


def _value(data: ShardedDataset, field: FieldEntry, rows: npt.NDArray[np.int64]) -> str:
    if field.kind == "bits":
        bits = data.bits(field.name, rows)[0]
        return ", ".join(n for n, bit in zip(field.names, bits, strict=True) if bit) or "none"
    if field.kind == "ragged":
        values = data.ragged(field.name, rows).values
        return bytes(values).decode() if field.name == "id" else _letters(values)
    value = data.gather(field.name, rows)[0]
    if field.kind == "window" or field.missing == ALPHABET.index("N"):
        return _letters(value.ravel())
    if field.dtype == "int64" and field.names and value.ndim == 0:
        return field.names[int(value)]
    numbers = [f"{number:.4g}" for number in np.ravel(value)[: _ENDS // 2]]
    return " ".join(numbers) + (" ..." if np.size(value) > len(numbers) else "")


def _letters(codes: npt.NDArray[np.uint8]) -> str:
    text = decode(codes)
    return text if len(text) <= 3 * _ENDS else f"{text[:_ENDS]}...{text[-_ENDS:]}"
