"""A matrix with named samples and features as a field, dense or sparse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_shards.build.row_fields import BLOCK_BYTES, refuse_nan, stored_dtype
from data_shards.build.rows_spec import MatrixSpec
from data_shards.build.staging import Positions, create, scatter, scatter_columns
from data_shards.errors import InputError
from data_shards.sources.files import open_binary
from data_shards.sources.matrix import MatrixSource, open_matrix
from data_shards.store.schema import FieldEntry


@dataclass(frozen=True)
class MatrixField:
    """A matrix source and the features that are kept.

    Attributes:
        spec: its description.
        source: the opened file.
        kept: int64, numbers of the kept features in the source, in the order of the field.
    """

    spec: MatrixSpec
    source: MatrixSource
    kept: npt.NDArray[np.int64]

    @property
    def name(self) -> str:
        """Of the field."""
        return self.spec.name

    @property
    def count(self) -> int:
        """Samples in the source."""
        return len(self.source.samples)

    @property
    def samples(self) -> tuple[str, ...]:
        """Names of the samples."""
        return self.source.samples

    def stage(self, folder: Path, places: Positions, samples: int) -> FieldEntry:
        """Write the numbers, dense or as CSR."""
        features = tuple(self.source.features[i] for i in self.kept)
        dtype = stored_dtype(np.dtype(self.source.dtype))
        entry = FieldEntry(
            name=self.name,
            role=self.spec.role,
            kind="sparse" if self.source.sparse else "dense",
            dtype=self.spec.dtype or dtype.name,
            shape=(len(features),),
            encoding=f"numbers of {self.spec.file}",
            names=features,
        )
        if self.source.sparse:
            self._stage_sparse(folder, places, samples)
        else:
            self._stage_dense(folder / f"{self.name}.npy", places, samples, dtype)
        return entry

    def _stage_dense(
        self, path: Path, places: Positions, samples: int, dtype: np.dtype[Any]
    ) -> None:
        create(path, (samples, len(self.kept)), dtype)
        for block in self.source.blocks(BLOCK_BYTES):
            values, source = block.values, self.source
            features = source.features
            if block.axis == "samples":
                values = values[:, self.kept]
                names = [features[i] for i in self.kept]
                refuse_nan(
                    values, block.start, source.samples, names, source.path, self.spec.missing
                )
                mine = places[block.start : block.start + len(values)]
                scatter(path, mine, values.astype(dtype, copy=False))
                continue
            stop = block.start + values.shape[1]
            column = np.flatnonzero((self.kept >= block.start) & (self.kept < stop))
            chosen = values[:, self.kept[column] - block.start]
            names = [features[i] for i in self.kept[column]]
            refuse_nan(chosen, 0, source.samples, names, source.path, self.spec.missing)
            scatter_columns(path, places, column, chosen.astype(dtype, copy=False))

    def _stage_sparse(self, folder: Path, places: Positions, samples: int) -> None:
        """Write CSR: a first pass counts each sample's values, a second one writes them."""
        lengths = np.zeros(samples, dtype=np.int64)
        for part in self._sparse_parts(places):
            np.add.at(lengths, part.place, 1)
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
        values, indices = (folder / f"{self.name}.{part}.npy" for part in ("values", "indices"))
        width = np.uint16 if len(self.kept) <= 1 << 16 else np.int32
        create(values, (int(lengths.sum()),), stored_dtype(np.dtype(self.source.dtype)))
        create(indices, (int(lengths.sum()),), width)
        np.save(folder / f"{self.name}.start.npy", starts)
        np.save(folder / f"{self.name}.length.npy", lengths.astype(np.int32))
        written = starts.copy()
        for part in self._sparse_parts(places):
            # Values of one sample are next to each other in a part: number them from where the
            # sample's last part ended.
            begins = np.flatnonzero(np.diff(part.place, prepend=-1))
            counts = np.diff(np.append(begins, len(part.place)))
            within = np.arange(len(part.place)) - np.repeat(begins, counts)
            target = written[part.place] + within
            written[part.place[begins]] += counts
            scatter(values, target, part.values)
            scatter(indices, target, part.column.astype(width))

    def _sparse_parts(self, places: Positions) -> Iterator[_Part]:
        """Read the values of kept samples and features, block by block, sample after sample."""
        column_of = np.full(len(self.source.features), -1, dtype=np.int64)
        column_of[self.kept] = np.arange(len(self.kept))
        for block in self.source.blocks(BLOCK_BYTES):
            csr = block.values
            csr.sort_indices()
            refuse_nan(csr.data, 0, None, None, self.source.path, self.spec.missing)
            by_samples = block.axis == "samples"
            rows = places[block.start : block.stop] if by_samples else places
            place = np.repeat(rows, np.diff(csr.indptr))
            column = column_of[csr.indices + (0 if by_samples else block.start)]
            keep = (place >= 0) & (column >= 0)
            yield _Part(place[keep], column[keep], csr.data[keep])


@dataclass(frozen=True)
class _Part:
    """Some values of a sparse matrix; arrays of shape (values,).

    Attributes:
        place: sample in the data set.
        column: place of the feature among the kept ones.
        values: as in the source.
    """

    place: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    values: npt.NDArray[Any]


def open_matrix_field(spec: MatrixSpec, folder: Path) -> MatrixField:
    """Open a matrix and find the features to keep.

    Raises:
        InputError: the file is faulty, a feature is not in it or named twice, or a sparse matrix
            is to be normalised.
    """
    source = open_matrix(
        folder / spec.file,
        format=spec.format,
        samples=spec.samples,
        duplicates=spec.duplicates,
        header=spec.header,
        names=spec.names,
        layer=spec.layer,
    )
    if source.sparse and (spec.normalise or spec.dtype is not None):
        raise InputError(
            f"matrix {spec.name!r} is sparse, and stays so: it can't be normalised here",
            path=folder / spec.file,
            remedy="normalise in the network's first layer, or give a dense matrix",
        )
    if spec.features is None:
        return MatrixField(spec, source, np.arange(len(source.features), dtype=np.int64))
    path = folder / spec.features
    place = {name: number for number, name in enumerate(source.features)}
    kept: list[int] = []
    with open_binary(path) as stream:
        for line, raw in enumerate(stream, start=1):
            name = raw.decode("utf-8", "replace").strip()
            if not name:
                continue
            if name not in place:
                raise InputError(
                    f"feature {name!r} is not in {spec.file}",
                    path=path,
                    line=line,
                    remedy="take it out, or correct the name",
                )
            kept.append(place[name])
    if len(set(kept)) < len(kept):
        twice = next(source.features[i] for i in kept if kept.count(i) > 1)
        raise InputError(
            f"feature {twice!r} is named twice", path=path, remedy="name each feature once"
        )
    return MatrixField(spec, source, np.array(kept, dtype=np.int64))
