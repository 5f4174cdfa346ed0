"""Plots of the committed figures: cost against K, a step's time, a phase's distances, members.

pip install -e ".[benchmarks,study]"
python benchmarks/plot.py  # reads docs/results, writes docs/figures/*.{png,svg}
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from rllib_cikd import CIKDConfig

DOCS = Path(__file__).parents[1] / "docs"
#: Folder of the benchmarks' `--out` files.
MACHINE = "amd-epyc"

#: Okabe and Ito's colours, told apart by colour-blind readers; hatches and markers for print.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#999999"

plt.rcParams["svg.hashsalt"] = "rllib-cikd"  # the same data draw the same file


def load(name: str) -> dict[str, Any]:
    return json.loads((DOCS / "results" / MACHINE / f"{name}.json").read_text())


def save(figure: plt.Figure, name: str) -> None:
    (DOCS / "figures").mkdir(exist_ok=True)
    path = DOCS / "figures" / name
    figure.savefig(path.with_suffix(".png"), dpi=150, bbox_inches="tight")
    figure.savefig(path.with_suffix(".svg"), bbox_inches="tight", metadata={"Date": None})
    print(f"docs/figures/{name}.png, .svg")


def cost_against_members() -> None:
    report = load("update_cost")["milliseconds"]["cpu, 2 threads"]
    members = [int(k) for k in report]
    figure, axes = plt.subplots(figsize=(5, 3.5))
    for name, label, colour, style in (
        ("agents", "plain PyTorch agents, one by one", GREY, "^:"),
        ("plain", "all members at once, plain engine", ORANGE, "s--"),
        ("native", "all members at once, native engine", BLUE, "o-"),
    ):
        times = [report[str(k)]["median"][name] for k in members]
        axes.plot(members, times, style, color=colour, label=label)
    axes.set_xlabel("members K")
    axes.set_ylabel("ms for one SAC update of all members")
    axes.set_xticks(members)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, "update-cost")


def distillation_curve() -> None:
    """Both distances within a phase, as shares of those before it."""
    with (DOCS / "results" / "distillation-curve.csv").open() as file:
        points = list(csv.DictReader(file))
    steps = [int(point["gradient_steps"]) for point in points]
    figure, axes = plt.subplots(figsize=(5, 3.5))
    for column, label, colour, style in (
        ("kl", "KL(teacher ‖ student)", BLUE, "-"),
        ("critic_distance", "distance of the critics", ORANGE, "--"),
    ):
        distances = [float(point[column]) for point in points]
        shares = [distance / distances[0] for distance in distances]
        axes.plot(steps, shares, style, color=colour, label=label)
    for phase in (300, 1000):
        axes.axvline(phase, color=GREY, linewidth=0.8)
        axes.text(phase, 0.8, f" {phase}", color="black")
    axes.set_yscale("log")
    axes.set_xlabel("gradient steps of distillation")
    axes.set_ylabel("share of the distance before the phase")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, "distillation-curve")


def step_budget() -> None:
    """Each part from its own benchmark; the rest is what end-to-end takes beyond them."""
    throughput = load("throughput")["env_steps_per_s"]
    rates = sorted(throughput["CIKD, 3 agents"])
    whole = 1e3 / rates[len(rates) // 2]
    update = load("update_cost")["milliseconds"]["cpu, 2 threads"]["3"]["median"]["native"]
    by_size = load("distillation_cost")["by_buffer_size"]
    defaults = CIKDConfig()
    phase = defaults.distillation_updates / defaults.distillation_interval
    distillation = next(iter(by_size.values()))["median"]["distil"] * phase
    sampling = load("sampling_cost")["median"]
    environment = sampling["environment"]
    runner = sampling["runner"] - environment
    parts = [
        ("three SAC updates", update, BLUE, ""),
        ("distillation", distillation, ORANGE, "//"),
        ("RLlib's env runner", runner, GREEN, ".."),
        ("environment", environment, GREY, "xx"),
        ("rest", max(0.0, whole - update - distillation - runner - environment), "white", ""),
    ]
    figure, axes = plt.subplots(figsize=(7, 1.6))
    left = 0.0
    for label, width, colour, hatch in parts:
        text = f"{label} ({width:.2f} ms)"
        axes.barh(0, width, left=left, color=colour, hatch=hatch, edgecolor="black", label=text)
        left += width
    axes.set_yticks([])
    axes.set_xlabel("ms for one environment step of CIKD, three agents, HalfCheetah-v5")
    axes.legend(frameon=False, ncol=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes.spines[["top", "right", "left"]].set_visible(False)
    save(figure, "step-budget")


def members_and_lone_agents() -> None:
    """Each member of each run of the main comparison, beside agents that learn alone."""
    files = (DOCS / "results" / "comparison-100k").glob("*.evaluations.csv")
    frame = pd.concat(pd.read_csv(file) for file in sorted(files))
    frame = frame[frame["member"].str.startswith("policy_")]
    tasks = frame["task"].unique()
    figure, grid = plt.subplots(
        len(tasks), 2, figsize=(8, 3 * len(tasks)), sharex=True, sharey="row"
    )
    looks = [
        {"color": BLUE, "marker": "o"},
        {"color": ORANGE, "marker": "s"},
        {"color": GREEN, "marker": "^"},
    ]
    alone = {"color": "black", "linestyle": "--"}
    runs = ["task", "variant", "seed", "member"]
    for (task, variant, seed, _), curve in frame.groupby(runs):
        row = grid[list(tasks).index(task)]
        places = {"ensemble-sac": row[:1], "cikd": row[1:], "vanilla-sac": row}[variant]
        look = alone if variant == "vanilla-sac" else looks[seed]
        for axes in places:
            axes.plot(curve["step"] / 1e3, curve["return"], linewidth=1, markersize=3, **look)
    for task, row in zip(tasks, grid, strict=True):
        row[0].set_ylabel("mean return of 20 episodes")
        for variant, axes in zip(("ensemble-sac", "cikd"), row, strict=True):
            axes.set_title(f"{task}, {variant}", fontsize="medium")
            axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("environment steps, thousands")
    marks = [
        plt.Line2D([], [], label=f"members, seed {seed}", **look) for seed, look in enumerate(looks)
    ]
    marks.append(plt.Line2D([], [], label="lone agents", **alone))
    figure.legend(handles=marks, ncol=4, loc="lower center", bbox_to_anchor=(0.5, -0.06))
    figure.tight_layout()
    save(figure, "members-100k")


if __name__ == "__main__":
    cost_against_members()
    step_budget()
    distillation_curve()
    members_and_lone_agents()
