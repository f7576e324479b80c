"""Writing down what a run is and what came of it: parameters, folder, MLflow page."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from data_shards.dataset import ShardedDataset
from data_shards.shuffling import ShuffleQuality, shuffle_quality
from data_shards.store.schema import Schema
from jobs import figures, figures_scores
from jobs.chrome_trace import write_chrome_trace
from jobs.cluster import Cluster, Share
from jobs.figures_timeline import draw_timeline
from jobs.journal import Journal
from jobs.provenance import git_commit, versions
from jobs.runfolder import RunFolder
from trainer.config import flatten
from trainer.events import FILE_NAME
from trainer.metrics import Scores
from trainer.results import NetworkResult, TrainJob
from trainer.timeline import bounds, fractions, pipeline_efficiency, read_spans

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run_parameters(
    job: TrainJob, data: ShardedDataset, workers: Share, found: Cluster
) -> dict[str, Any]:
    """Collect all that decides the run, under dotted names, with effective values."""
    schema, config, layout = data.schema, job.config, job.layout
    derived = {
        "optimizer.momentum": config.optimizer.effective_momentum,
        "optimizer.eps": config.optimizer.effective_eps,
        "grid.micro_batches": layout.micro_batches,
        "grid.micro_batch": layout.micro_batch,
        "grid.device": workers.device,
        "grid.cpus_per_worker": workers.cpus,
        "data.path": str(data.place),
        "data.fingerprint": data.attributes.fingerprint,
        "data.tasks": len(schema.tasks),
        "data.window": schema.window.length,
        "data.shuffle_entropy": f"{mixing(job, data).entropy_ratio:.4f}",
        "git.commit": git_commit(),
        "cluster.nodes": found.nodes,
        "host.cpus": os.cpu_count(),
    }
    samples = {f"data.samples.{name}": split.samples for name, split in schema.splits.items()}
    libraries = {f"version.{name}": number for name, number in versions().items()}
    return flatten(config.model_dump(mode="json")) | derived | samples | libraries


def mixing(job: TrainJob, data: ShardedDataset) -> ShuffleQuality:
    """Measure how well batches mix the contigs, against a full permutation (entropy ratio 1)."""
    split = data.schema.split("train")
    contig = data.loci.contig[split.start : split.stop]
    return shuffle_quality(job.order(split.samples), contig, max(2, job.config.batch_size))


def record_results(
    journal: Journal,
    folder: RunFolder,
    results: Sequence[NetworkResult],
    scores: Mapping[str, Scores],
) -> None:
    """Write plan, results and figures into the run's folder, and have MLflow show them.

    Args:
        journal: of the run.
        folder: the run's folder, whose event log is complete.
        results: the model's, then its ablations'.
        scores: of each model and baseline on the test split.
    """
    main = results[0]
    cuts = {f"cut.{result.network}": list(result.plan.cut) for result in results}
    weights = {f"parameters.{r.network}": sum(r.plan.parameters) for r in results}
    journal.parameters(cuts | weights)
    folder.write_json("plan.json", {result.network: _plan(result) for result in results})
    folder.write_json("results.json", {name: score.plain() for name, score in scores.items()})
    log = folder.path / FILE_NAME
    pictures = {
        "training": figures.draw_training(log),
        "roc": figures_scores.draw_roc(main.test),
        "precision_recall": figures_scores.draw_pr(main.test),
        "calibration": figures_scores.draw_calibration(main.test),
        "confusion": figures_scores.draw_confusion(main.test),
        "ranking": figures_scores.draw_ranking(main.test),
        "comparison": figures.draw_comparison(scores),
        "stages": figures.draw_stages({result.network: result.plan for result in results}),
    }
    for result in results:
        pictures |= _timeline(journal, folder, result)
    for name, figure in pictures.items():
        journal.file(figures.save(figure, folder.figures / f"{name}.png"), "figures")
    journal.tags({"mlflow.note.content": results_table(scores)})
    for name in ("config.toml", "plan.json", "results.json"):
        journal.file(folder.path / name)


def _timeline(journal: Journal, folder: RunFolder, result: NetworkResult) -> dict[str, Figure]:
    """Log where the time of a traced step went: fractions a stage, and a trace for browsers."""
    name, stages = result.network, result.plan.stages
    spans = read_spans(folder.path / "trace" / f"{name}.json")
    if not spans:
        return {}
    begin, end = bounds(spans)
    shares = {
        rank: fractions(spans, rank, begin, end) for rank in sorted({span.rank for span in spans})
    }
    numbers = {
        f"timeline/{name}/worker{rank}/{kind}": value
        for rank, share in shares.items()
        for kind, value in asdict(share).items()
    }
    if stages > 1:
        numbers[f"timeline/{name}/efficiency"] = pipeline_efficiency(spans, stages)
    journal.metrics(numbers)
    path = write_chrome_trace(spans, stages, folder.path / "trace" / f"{name}.chrome.json")
    journal.file(path, "trace")
    return {f"timeline_{name}": draw_timeline(spans, shares, stages, f"one step of {name}")}


def data_schema(schema: Schema) -> dict[str, str]:
    """Name the fields of a data set with MLflow's types, for its page."""
    return {
        f"sequence ({schema.window.length})": "integer",
        f"labels ({len(schema.tasks)})": "boolean",
    }


def results_table(scores: Mapping[str, Scores]) -> str:
    """Write the scores as a Markdown table: AUROC / AUPR of each task, a column a model."""
    lines = [
        "AUROC / AUPR on the held-out test split",
        "",
        f"| task | {' | '.join(scores)} |",
        "|---|" + "---:|" * len(scores),
    ]
    means = [f"**{score.auroc:.3f} / {score.aupr:.3f}**" for score in scores.values()]
    lines.append(f"| mean | {' | '.join(means)} |")
    rows = zip(*(score.tasks for score in scores.values()), strict=True)
    for tasks in rows:
        cells = [
            "undefined" if math.isnan(task.auroc) else f"{task.auroc:.3f} / {task.aupr:.3f}"
            for task in tasks
        ]
        lines.append(f"| {tasks[0].task} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _plan(result: NetworkResult) -> dict[str, Any]:
    """Return how a network was cut and run, as plain values."""
    return {
        "layers": list(result.plan.layers),
        "parameters": list(result.plan.parameters),
        "cut": list(result.plan.cut),
        "costs": [cost.plain() for cost in result.plan.costs],
        "deepspeed": result.engine_config,
        "steps": len(result.fit.losses),
        "epochs": result.fit.epochs,
        "best_epoch": result.fit.best_epoch,
        "weights": result.fit.weights.name,
        "seconds": result.fit.seconds,
        "data_wait_seconds": result.fit.waited,
    }
