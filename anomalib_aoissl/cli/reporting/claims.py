# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Claims as comparisons of two groups of runs, decided by a stated rule over the seeds.

The difference of two runs is taken seed by seed, on the same labelled images. Its mean m and standard error e over at
least three seeds decide a setting (a set, a number of labels):

- *better*: yes where m > 2 e, no where m < -2 e, else no difference seen.
- *as good as*: yes where m - 2 e > -margin, no where m + 2 e < -margin, else not decided.
- *on par*: yes where m - 2 e and m + 2 e lie within the margin, no where both lie beyond one side, else not decided.

Fewer seeds, or seeds that are one and the same run, decide nothing.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .rows import Row, grouped, our_or_peer

LEAST_SEEDS = 3

ClaimRule = Literal["better", "as good as", "on par"]
_SAID = {"better": "is better than", "as good as": "is as good as", "on par": "is on par with"}

Verdict = Literal["yes", "no", "no difference", "not decided"]
Pick = Callable[[Row], bool]
Variant = tuple[str, float, str]
"""Model, budget and weights: with seed, set and labels, a run."""


@dataclass(frozen=True)
class Setting:
    """What one set with one number of labels says.

    Attributes:
        name: Set, labels, and what else tells settings apart.
        difference: Mean difference.
        error: Its standard error; NaN for one seed.
        verdict: By the rule.
    """

    name: str
    difference: float
    error: float
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """Two groups of runs.

    Attributes:
        first: Name of the side that a claim is for.
        second: Name of the other.
        rule: How settings are decided.
        margin: What counts as nothing, for "as good as" and "on par".
        settings: The settings that both sides have.
    """

    first: str
    second: str
    rule: ClaimRule
    margin: float
    settings: list[Setting] = field(hash=False)

    @property
    def counts(self) -> dict[str, int]:
        """Settings of each verdict."""
        verdicts = [setting.verdict for setting in self.settings]
        return {name: verdicts.count(name) for name in ("yes", "no", "no difference", "not decided")}

    @property
    def outcome(self) -> str:
        """One of "held", "held in part", "did not hold", "not decided", "not measured"."""
        if not self.settings:
            return "not measured"
        counts = self.counts
        decided = len(self.settings) - counts["not decided"]
        if not decided:
            return "not decided"
        if counts["yes"] == decided:
            return "held"
        return "held in part" if counts["yes"] else "did not hold"

    def sentence(self) -> str:
        """Say whether it held, in how many settings, and by how much."""
        what = f"{self.first} {_SAID[self.rule]} {self.second}"
        if not self.settings:
            return f"{what}: not measured."
        counts, decided = self.counts, len(self.settings) - self.counts["not decided"]
        differences = [setting.difference for setting in self.settings]
        low, high, mean = min(differences), max(differences), statistics.fmean(differences)
        said = [f"in {counts['yes']} of {decided} decided settings"] if decided else []
        said += [f"the opposite in {counts['no']}"] if counts["no"] else []
        said += [f"no difference seen in {counts['no difference']}"] if counts["no difference"] else []
        said += [f"{counts['not decided']} not decided"] if counts["not decided"] else []
        numbers = f"mean difference {mean:+.3f}, from {low:+.3f} to {high:+.3f}"
        return f"{what}: **{self.outcome}** ({', '.join(said)}; {numbers})."


def compare(
    rows: Iterable[Row],
    first: Pick,
    second: Pick,
    names: tuple[str, str],
    rule: ClaimRule = "better",
    margin: float = 0.0,
) -> Comparison:
    """Return the comparison of two groups of runs, matched by set, labels, seed, and what else is the same on each.

    A side's runs with several budgets or weights are settings of their own.
    """
    rows = list(rows)
    ours = grouped((row for row in rows if first(row)), _place)
    theirs = grouped((row for row in rows if second(row)), _place)
    settings = []
    for place in (place for place in ours if place in theirs):
        one, other = grouped(ours[place], _variant), grouped(theirs[place], _variant)
        for left, right in itertools.product(one, other):
            name = _name(place, left, right) + _weights_said((left, one), (right, other))
            settings += _setting(name, one[left], other[right], rule, margin)
    return Comparison(*names, rule, margin, settings)


def _place(row: Row) -> tuple[str, int]:
    return row.set, row.labels


def _variant(row: Row) -> Variant:
    return row.model, row.budget, row.weights


def _weights_said(*sides: tuple[Variant, Iterable[Variant]]) -> str:
    """Return the weights of each side whose model has several."""
    several = [chosen[2] for chosen, every in sides if any(v[0] == chosen[0] and v[2] != chosen[2] for v in every)]
    return f", {' - '.join(several)}" if several else ""


def _name(place: tuple[str, int], left: Variant, right: Variant) -> str:
    """Return what a setting is called: the model where both sides have it, and the budget where one has one."""
    name = f"{place[0]}, {place[1]} label{'s' * (place[1] != 1)}"
    name += f", {left[0]}" if left[0] == right[0] else ""
    budget = max(left[1], right[1])
    return f"{name}, {budget:g} s" if budget else name


def _setting(name: str, left: Sequence[Row], right: Sequence[Row], rule: ClaimRule, margin: float) -> list[Setting]:
    """Return the setting of two sides' runs, or nothing where they share no seed."""
    ours, theirs = _by_seed(left), _by_seed(right)
    seeds = sorted(set(ours) & set(theirs))
    if not seeds:
        return []
    differences = [ours[seed] - theirs[seed] for seed in seeds]
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(seeds)) if len(seeds) > 1 else math.nan
    return [Setting(name, mean, error, decide(differences, rule, margin))]


def _by_seed(rows: Sequence[Row]) -> dict[int, float]:
    """Return the value of each seed, the mean where a table has a run twice."""
    return {
        seed: statistics.fmean(row.value for row in runs) for seed, runs in grouped(rows, lambda row: row.seed).items()
    }


def decide(differences: Sequence[float], rule: ClaimRule, margin: float = 0.0) -> Verdict:
    """Return what differences over seeds say, by the rule of this module."""
    if len(differences) < LEAST_SEEDS or len(set(differences)) == 1:
        return "not decided"
    mean = statistics.fmean(differences)
    twice = 2 * statistics.stdev(differences) / math.sqrt(len(differences))
    low, high = mean - twice, mean + twice
    if rule == "better":
        return "yes" if low > 0 else "no" if high < 0 else "no difference"
    if rule == "as good as":
        return "yes" if low > -margin else "no" if high < -margin else "not decided"
    if low > -margin and high < margin:
        return "yes"
    return "no" if low > margin or high < -margin else "not decided"


# --- the claims ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """A claim and what decides it.

    Attributes:
        name: Of its picture's file.
        title: The claim.
        comparisons: Makes its comparisons of all rows.
    """

    name: str
    title: str
    comparisons: Callable[[list[Row]], list[Comparison]]


def _weights(first: str, second: str) -> Callable[[list[Row]], Comparison]:
    """Return the comparison of two weights under the same models and budgets."""

    def make(rows: list[Row]) -> Comparison:
        masks = [row for row in rows if row.kind == "masks"]
        parts = [
            compare(
                [row for row in masks if _variant(row)[:2] == variant],
                lambda row: row.weights == first,
                lambda row: row.weights == second,
                (first, second),
            )
            for variant in dict.fromkeys(_variant(row)[:2] for row in masks)
        ]
        return Comparison(first, second, "better", 0.0, [setting for part in parts for setting in part.settings])

    return make


def _best_of_three(rows: list[Row]) -> list[Comparison]:
    return [_weights("MAE", other)(rows) for other in ("DINO", "iBOT")]


def _pretraining_pays(rows: list[Row]) -> list[Comparison]:
    return [_weights(first, second)(rows) for first in ("MAE", "drawn") for second in ("random", "shipped")]


def _votes(rows: list[Row]) -> list[Comparison]:
    names = ("vote by similarity", "vote by attention")
    shipped = [row for row in rows if row.weights == "shipped"]
    return [compare(shipped, _model(names[0]), _model(names[1]), names, "on par", 0.02)]


def _retrieval_or_fine_tuning(rows: list[Row]) -> list[Comparison]:
    single = [row for row in _our_and_peers(rows) if row.set != "other devices"]
    sides = ("vote by attention", "pixel head"), ("segmenter", "U-Net")
    return [compare(single, _model(a), _model(b), (a, b)) for a in sides[0] for b in sides[1]]


def _as_good_as_peers(rows: list[Row]) -> list[Comparison]:
    known = _our_and_peers(rows)
    peers = dict.fromkeys(row.model for row in known if row.is_peer and row.kind == "masks")
    ours = "pixel head"
    return [compare(known, _model(ours), _model(peer), (ours, peer), "as good as", 0.01) for peer in peers]


def _novelty(rows: list[Row]) -> list[Comparison]:
    known = [row for row in rows if row.kind == "novelty"]
    peers = dict.fromkeys(row.model for row in known if row.is_peer)
    ours = "novelty of the bank"
    return [compare(known, _model(ours), _model(peer), (ours, peer), "as good as", 0.02) for peer in peers]


def _own_pictures(rows: list[Row]) -> list[Comparison]:
    trained = dict.fromkeys(
        row.weights for row in rows if row.pretraining_seconds and row.weights not in {"MAE", "DINO", "iBOT"}
    )
    return [_weights(name, other)(rows) for name in trained for other in ("random", "shipped")]


def _our_and_peers(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of masks that models are compared by."""
    return [row for row in our_or_peer(rows) if row.kind == "masks"]


def _model(name: str) -> Pick:
    return lambda row: row.model == name


CLAIMS = (
    Claim("claim1", "Of MAE, DINO and iBOT, MAE is the best on a small set (AOI-SSL)", _best_of_three),
    Claim(
        "claim2", "Pretraining beats random weights and ImageNet's under a fixed budget (AOI-SSL)", _pretraining_pays
    ),
    Claim("claim3", "Retrieval by similarity is on par with attention (AOI-SSL)", _votes),
    Claim("claim4", "Retrieval beats fine-tuning on images of a single device (AOI-SSL)", _retrieval_or_fine_tuning),
    Claim("claim5", "The pixel head's masks are at least as good as any peer's", _as_good_as_peers),
    Claim("claim6", "Novelty finds drawn defects as well as anomalib's own models", _novelty),
    Claim("claim7", "Pretraining on one's own pictures pays", _own_pictures),
)
"""The paper's four claims, and this package's own."""
