"""Signal tracks of a windows data set: opened and checked, staged, read in bins."""

from __future__ import annotations

from data_shards.build.windows_spec import TrackFormat

_EXTENSIONS: dict[str, TrackFormat] = {
    ".bw": "bigWig",
    ".bigwig": "bigWig",
    ".bedgraph": "bedGraph",
    ".bdg": "bedGraph",
    ".bam": "bam",
    ".cram": "cram",
    ".tagalign": "tagAlign",
}
