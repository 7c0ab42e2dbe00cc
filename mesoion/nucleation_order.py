"""Whether the hazard's ordering holds under the assumptions: of the sites in a pellet, and of its boundary types.

An order is a count over the samples: a pair is ordered where one comes first in nearly all of them. Every sample has
the same assumptions on both sides of a comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mesoion.nucleation_sampling import CRITERIA, METAL_SITES, SITE_WORDS, Criterion, draws, interval
from mesoion.nucleation_study import ALIKE, CRITERION_WORDS, CaseResult, Study
from mesoion.runfolder import RunFolder

Floats = NDArray[np.float64]

CERTAIN, LIKELY = 0.025, 0.25
"""An order that flips in at most the first share of samples holds; from the second on there is none."""


def verdict(flips: float) -> str:
    """In words, what a share of samples in which a pair changes places means."""
    if flips <= CERTAIN:
        return "holds"
    return "likely, not certain" if flips < LIKELY else "no order"


def pair(first: Floats, second: Floats) -> dict[str, float] | None:
    """How often the first critical current is the lower one, over samples in which one of the two is reached.

    None where neither is in any sample. A share of one half counts as the largest flip.
    """
    some = np.isfinite(first) | np.isfinite(second)
    if not some.any():
        return None
    a, b = first[some], second[some]
    lower = float(np.mean(a < b) + 0.5 * np.mean(a == b))
    both = np.isfinite(a) & np.isfinite(b)
    return {
        "first is lower in": lower,
        "order flips in": min(lower, 1.0 - lower),
        "within 5 % in": float((np.abs(a[both] / b[both] - 1.0) < ALIKE).sum() / len(a)),
        "reached in": float(some.mean()),
    }


def site_order(result: CaseResult) -> list[dict[str, Any]]:
    """Every pair of sites of a case, the one with the lower median first."""
    rows: list[dict[str, Any]] = []
    sites = (*METAL_SITES, "electrons")
    for criterion in CRITERIA:
        middle = {s: interval(result.currents[criterion, s])[0] for s in sites}
        share = _reached_first(result, criterion, sites)
        # Medians may both be infinite; what comes first more often then leads.
        order = sorted(sites, key=lambda s: (middle[s], -share[s]))
        for a, b in combinations(order, 2):
            found = pair(result.currents[criterion, a], result.currents[criterion, b])
            if found is None:
                continue
            rows.append(
                {
                    "case": result.case.name,
                    "criterion": CRITERION_WORDS[criterion],
                    "first": SITE_WORDS[a],
                    "second": SITE_WORDS[b],
                    **found,
                    "order": verdict(found["order flips in"]),
                }
            )
    return rows


def _reached_first(result: CaseResult, criterion: Criterion, sites: Sequence[str]) -> dict[str, float]:
    table = np.array([result.currents[criterion, s] for s in sites])
    return {s: float(np.mean(table.argmin(axis=0) == j)) for j, s in enumerate(sites)}


def type_order(study: Study, results: Sequence[CaseResult]) -> list[dict[str, Any]]:
    """Every pair of boundary types of a case: critical currents of pellets with boundaries of one of them alone.

    The assumptions are drawn alike, what the records leave open of each type on its own.
    """
    rows: list[dict[str, Any]] = []
    for index, r in enumerate(results):
        found: dict[str, dict[tuple[Criterion, str], Floats]] = {}
        for place, name in enumerate(r.case.fractions):
            alone = replace(r.case, fractions={name: 1.0}, _space_charge={})
            own = {p.name for p in r.case.parameters()}
            cube = r.cube.copy()
            fresh = np.random.default_rng([study.seed, 4, index, place]).random(cube.shape)
            mine = np.array([p.name in own for p in r.parameters])
            cube[:, mine] = fresh[:, mine]
            found[name] = alone.critical_currents(draws(r.parameters, cube), study.temperature)
        for criterion in CRITERIA:
            middle = {n: interval(f[criterion, "boundary"])[0] for n, f in found.items()}
            for a, b in combinations(sorted(found, key=lambda n: middle[n]), 2):
                counted = pair(found[a][criterion, "boundary"], found[b][criterion, "boundary"])
                if counted is None:
                    continue
                rows.append(
                    {
                        "case": r.case.name,
                        "criterion": CRITERION_WORDS[criterion],
                        "first": a,
                        "second": b,
                        **counted,
                        "order": verdict(counted["order flips in"]),
                    }
                )
    return rows


def write_order(study: Study, folder: RunFolder, results: Sequence[CaseResult]) -> None:
    """Both tables, and where the order holds and where not in words."""
    import pandas as pd

    sites = [row for r in results for row in site_order(r)]
    types = type_order(study, results)
    folder.table("order_of_the_sites", pd.DataFrame(sites))
    folder.result("order_of_the_sites", sites)
    if types:
        folder.table("order_of_the_boundary_types", pd.DataFrame(types))
    folder.result("order_of_the_boundary_types", types)
    said = [_site_words([o for o in sites if o["case"] == r.case.name], r) for r in results]
    said += [
        _type_words(r.case.name, own)
        for r in results
        if (own := [o for o in types if o["case"] == r.case.name])
    ]
    folder.paragraph("Whether the ordering holds", "\n\n".join(said))


def _site_words(rows: Sequence[dict[str, Any]], result: CaseResult) -> str:
    """Metal's sites as a chain by criterion, its largest flip, and how often electrons come before all of them."""
    short = SITE_WORDS["electrons"]
    parts, chains = [], []
    for criterion, words in CRITERION_WORDS.items():
        own = [o for o in rows if o["criterion"] == words and short not in (o["first"], o["second"])]
        if not own:
            continue
        chain = list(dict.fromkeys([o["first"] for o in own] + [o["second"] for o in own]))
        flips = max(o["order flips in"] for o in own)
        electrons = _reached_first(result, criterion, (*METAL_SITES, "electrons"))["electrons"]
        parts.append(
            f"until {words}, {' before '.join(chain)}: {_said(flips, flips)}; electrons short the cell before any of "
            f"them in {100 * electrons:.1f} % of the samples"
        )
        chains.append(chain)
    text = f"Sites, {result.case.name}: {'. '.join(p[0].upper() + p[1:] for p in parts)}."
    if len(chains) == 2 and chains[0] != chains[1]:
        text += (
            " The two criteria order the sites differently, so the order rests on which of them is assumed."
        )
    return text


def _type_words(case: str, rows: Sequence[dict[str, Any]]) -> str:
    parts = []
    for words in CRITERION_WORDS.values():
        own = [o for o in rows if o["criterion"] == words]
        if own:
            flips = [o["order flips in"] for o in own]
            alike = min(o["within 5 % in"] for o in own)
            parts.append(
                f"until {words}, {_said(min(flips), max(flips))}, and within 5 % of each other in {100 * alike:.0f} % "
                "of the samples or more"
            )
    return f"Boundary types, {case}: {'. '.join(p[0].upper() + p[1:] for p in parts)}."


def _said(least: float, most: float) -> str:
    share = f"{100 * most:.1f}" if least == most else f"{100 * least:.0f} to {100 * most:.0f}"
    if most <= CERTAIN:
        return f"the order holds (flips in {share} % of the samples)"
    if least < LIKELY:
        return f"the order is likely, not certain (flips in {share} % of the samples)"
    return f"there is no order (flips in {share} % of the samples)"
