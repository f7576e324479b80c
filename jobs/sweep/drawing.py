"""Pictures of a study: one interactive page, and a PNG each for those who only look."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.sweep.study import ObjectiveName

if TYPE_CHECKING:
    import optuna

PAGE = "sweep.html"
_CONTOUR = 4  # parameters that a contour picture shows, at most
_TITLES = {
    "history": "History: every trial, and the best so far",
    "intermediate": "Validation after each epoch; pruned trials end early",
    "importance": "Importance of each parameter (fANOVA)",
    "parallel": "Parallel coordinates",
    "slice": "Each parameter against the objective",
    "contour": "Pairs of parameters",
    "pareto": "Pareto front",
    "timeline": "Timeline",
}


def draw(study: optuna.Study, objectives: Sequence[ObjectiveName], folder: Path) -> list[Path]:
    """Draw a study as far as its trials allow.

    Returns:
        The files: ``sweep.html`` first, then a PNG a picture.
    """
    import plotly.io
    from optuna.trial import TrialState

    folder.mkdir(parents=True, exist_ok=True)
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    names = _pictures(study, objectives, len(complete))
    parts: list[str] = []
    files: list[Path] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's plots are marked experimental
        for name in names:
            figure = _interactive(study, name, objectives)
            figure.update_layout(title=_TITLES[name], template="plotly_white")
            first = not parts
            parts.append(plotly.io.to_html(figure, full_html=False, include_plotlyjs=first))
            files.append(_still(study, name, objectives, folder / f"{name}.png"))
    page = folder / PAGE
    title = f"<title>{study.study_name}</title><h1>{study.study_name}</h1>"
    page.write_text(f"<!doctype html><meta charset='utf-8'>{title}{''.join(parts)}")
    return [page, *files]


def _pictures(study: optuna.Study, objectives: Sequence[ObjectiveName], complete: int) -> list[str]:
    """Name the pictures that there is something to show in."""
    if complete == 0:
        return []
    if len(objectives) > 1:
        several = ["pareto"] if len(objectives) in (2, 3) else []
        return [*several, "timeline"]
    parameters = {name for trial in study.get_trials(deepcopy=False) for name in trial.params}
    names = ["history", "intermediate"]
    if parameters:
        names += ["slice"]
    if parameters and complete > 1:
        names += ["parallel", "importance"]
    if len(parameters) > 1 and complete > 1:
        names += ["contour"]
    return names


def _interactive(study: optuna.Study, name: str, objectives: Sequence[ObjectiveName]) -> Any:
    from optuna import visualization

    return _call(visualization, study, name, objectives)


def _still(study: optuna.Study, name: str, objectives: Sequence[ObjectiveName], path: Path) -> Path:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as visualization

    axes = _call(visualization, study, name, objectives)
    figure = (axes.flat[0] if hasattr(axes, "flat") else axes).figure
    figure.set_size_inches(11, 6)
    figure.savefig(path, dpi=90, bbox_inches="tight")
    plt.close(figure)
    return path


def _call(module: Any, study: optuna.Study, name: str, objectives: Sequence[ObjectiveName]) -> Any:
    label = objectives[0]
    draw_it: dict[str, Callable[[], Any]] = {
        "history": lambda: module.plot_optimization_history(study, target_name=label),
        "intermediate": lambda: module.plot_intermediate_values(study),
        "importance": lambda: module.plot_param_importances(study, target_name=label),
        "parallel": lambda: module.plot_parallel_coordinate(study, target_name=label),
        "slice": lambda: module.plot_slice(study, target_name=label),
        "contour": lambda: module.plot_contour(
            study, params=_most_important(study), target_name=label
        ),
        "pareto": lambda: module.plot_pareto_front(study, target_names=list(objectives)),
        "timeline": lambda: module.plot_timeline(study),
    }
    return draw_it[name]()


def _most_important(study: optuna.Study) -> list[str]:
    """Name the parameters that all complete trials have, the most telling first."""
    from optuna.importance import get_param_importances

    try:
        names = list(get_param_importances(study))
    except (RuntimeError, ValueError):  # too few trials, or all of one value
        names = []
    names = names or sorted({name for trial in study.trials for name in trial.params})
    return names[:_CONTOUR]
