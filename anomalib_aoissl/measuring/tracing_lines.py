# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Which branches of a skeleton are one wire: at a crossing, those that go on in the same direction.

Two wires that cross at a small angle, or touch side by side, share a branch. It is taken out
with the junctions at its ends, and the branches around it are joined across the gap. All joints of a place are chosen
at once, by a matching of the least total bend.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from .skeleton import Branch

if TYPE_CHECKING:
    import networkx as nx

_LARGEST_BEND = np.deg2rad(60)
_WIDE = 1.4  # wires: a branch of this width is of two
_SHORT, _LONG = 1.5, 6.0  # wires' widths: a branch of this length is of two for sure; may be of two that cross
_SWAP = np.deg2rad(30)
_CLOSED = 8  # px of the shortest loop
_MOST = 40  # ends that meet at one place; more are of a speckled mask, and its pairs would take minutes


@dataclass(frozen=True)
class Line:
    """One wire.

    Attributes:
        points: ``[N, 2]`` (x, y) in px along the wire, where branches were found.
        shared: ``[N - 1]`` bool, whether the step to the next point leads over a place that other wires share.
        free: Whether the first and the last point are free ends of the skeleton.
    """

    points: np.ndarray
    shared: np.ndarray
    free: tuple[bool, bool]


End = tuple[int, int]  # branch and which of its ends, 0 or 1


def lines(found: Sequence[Branch], width: float) -> list[Line]:
    """Return the wires of a connected part.

    Args:
        found: Branches of its skeleton.
        width: Width of one wire, px.
    """
    shared = {number for number, branch in enumerate(found) if _is_shared(branch, width)}
    partner = _partners(found, shared, width)
    while idle := _idle(found, shared, partner, width):
        shared -= idle
        partner = _partners(found, shared, width)
    own = [number for number in range(len(found)) if number not in shared]
    return [_line(chain, found) for chain in _chains(own, partner)]


def _partners(found: Sequence[Branch], shared: set[int], width: float) -> dict[End, End]:
    """Return which end goes on to which at all places, both ways."""
    places = _joined_places(found, shared)
    at_place: dict[int, list[End]] = defaultdict(list)
    for number, branch in enumerate(found):
        for end in (0, 1):
            if number not in shared and branch.nodes[end] != -1:
                at_place[places[branch.nodes[end]]].append((number, end))
    partner: dict[End, End] = {}
    graph = _graph(found, shared)
    for ends in at_place.values():
        partner.update(_matched(ends, found, graph, width))
    return partner


def _idle(found: Sequence[Branch], shared: set[int], partner: dict[End, End], width: float) -> set[int]:
    """Return the shared branches that are no places where wires cross or touch: too few wires lead along them."""
    graph = _graph(found, shared)
    leading = Counter(number for ends in partner.items() for number in _between(found, graph, *ends))
    own = len(shared) < len(found)
    return {number for number in shared if not own or leading[number] // 2 < _least(found[number], width)}


def _least(branch: Branch, width: float) -> int:
    """Return how many wires must lead along a shared branch; both ways are counted."""
    if branch.length < _SHORT * width:
        return 0
    return 1 if branch.width > _WIDE * width else 2


def _graph(found: Sequence[Branch], shared: set[int]) -> nx.Graph:
    """Return the graph of the shared branches between their junctions."""
    import networkx as nx

    graph = nx.Graph()
    for number in shared:
        graph.add_edge(*found[number].nodes, number=number)
    return graph


def _between(found: Sequence[Branch], graph: nx.Graph, one: End, other: End) -> list[int]:
    """Return the shared branches, of which there is the graph, that lead from one end to another."""
    import networkx as nx

    first, last = found[one[0]].nodes[one[1]], found[other[0]].nodes[other[1]]
    if first == last:
        return []
    path = nx.shortest_path(graph, first, last)
    return [graph.edges[pair]["number"] for pair in pairwise(path)]


def _is_shared(branch: Branch, width: float) -> bool:
    """Tell whether a branch between two junctions may be of several wires."""
    if -1 in branch.nodes:
        return False
    return branch.width > _WIDE * width or branch.length < _LONG * width


def _joined_places(found: Sequence[Branch], shared: set[int]) -> dict[int, int]:
    """Return the place of each junction: junctions at the ends of a shared branch are one place."""
    places = {node: node for branch in found for node in branch.nodes if node != -1}
    for number in shared:
        first, last = (places[node] for node in found[number].nodes)
        places = {node: first if place == last else place for node, place in places.items()}
    return places


def _matched(ends: Sequence[End], found: Sequence[Branch], branches: nx.Graph, width: float) -> dict[End, End]:
    """Return which end goes on to which, both ways, over the graph of the shared branches; none of too many."""
    import networkx as nx

    if len(ends) > _MOST:
        return {}
    graph = nx.Graph()
    leaving = [_leaving(found[number], end, width) for number, end in ends]
    for i in range(len(ends)):
        for j in range(i):
            bend = _bend(*leaving[i], *leaving[j], width)
            along = _between(found, branches, ends[i], ends[j])
            if _changes_sides([found[number] for number in along], leaving[i][0], leaving[j][0], width):
                bend += _SWAP
            if bend < 2 * _LARGEST_BEND:
                graph.add_edge(i, j, weight=4 * np.pi - bend)  # more joints before less bend
    pairs = nx.max_weight_matching(graph)
    return {ends[a]: ends[b] for pair in pairs for a, b in (pair, pair[::-1])}


def _changes_sides(along: Sequence[Branch], first: np.ndarray, second: np.ndarray, width: float) -> bool:
    """Tell whether a wire would change to the other side of a branch that is two wires wide all along.

    Where wires cross, their common branch is narrow at one place; where they touch, it is not.
    """
    if len(along) != 1 or len(along[0].points) < 2 * width:
        return False
    branch = along[0]
    rim = min(len(branch.points) // 4, round(width))
    inner = branch.radius[rim : len(branch.radius) - rim]
    if 2 * float(inner.min()) < _WIDE * width:
        return False
    axis = branch.points[-1] - branch.points[0]
    sides = [
        axis[0] * (place - branch.points[0])[1] - axis[1] * (place - branch.points[0])[0] for place in (first, second)
    ]
    return bool(sides[0] * sides[1] < 0)


def _leaving(branch: Branch, end: int, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the place (x, y) where a branch begins at this end, and its direction away from there.

    The skeleton is bent within a wire's width of a junction, which is left out where the branch is long enough.
    """
    points = branch.points if end == 0 else branch.points[::-1]
    skipped = min(round(0.75 * width), max(0, len(points) - 3))
    start, stop = points[skipped], points[min(len(points) - 1, skipped + max(3, round(3 * width)))]
    way = stop - start
    length = float(np.linalg.norm(way))
    return start, way / length if length else np.zeros(2)


def _bend(first: np.ndarray, away: np.ndarray, second: np.ndarray, onward: np.ndarray, width: float) -> float:
    """Return by how much a wire would bend that comes in at ``first`` and goes on at ``second``, rad."""
    across = second - first
    length = float(np.linalg.norm(across))
    direct = _angle(-away, onward)
    if length < width / 2:
        return 2 * direct
    return max(direct, _angle(-away, across) + _angle(across, onward))


def _angle(one: np.ndarray, other: np.ndarray) -> float:
    """Return the angle between two directions, rad."""
    cross, dot = one[0] * other[1] - one[1] * other[0], float(one @ other)
    return abs(float(np.arctan2(cross, dot)))


def _chains(own: Sequence[int], partner: dict[End, End]) -> list[list[End]]:
    """Return the branches of each wire in order, each with the end that it begins at."""
    left, chains = set(own), []
    starts = [(number, end) for number in own for end in (0, 1) if (number, end) not in partner]
    for start in [*starts, *((number, 0) for number in own)]:  # then the circles
        if start[0] not in left:
            continue
        chain, here = [], start
        while here[0] in left:
            left.discard(here[0])
            chain.append(here)
            following = partner.get((here[0], 1 - here[1]))
            if following is None:
                break
            here = following
        chains.append(chain)
    return chains


def _line(chain: Sequence[End], found: Sequence[Branch]) -> Line:
    """Return the wire of a chain of branches."""
    pieces = [found[number].points if end == 0 else found[number].points[::-1] for number, end in chain]
    shared = np.zeros(sum(len(piece) for piece in pieces) - 1, dtype=bool)
    shared[np.cumsum([len(piece) for piece in pieces])[:-1] - 1] = True
    (first, start), (last, end) = chain[0], chain[-1]
    free = found[first].nodes[start] == -1, found[last].nodes[1 - end] == -1
    points = np.concatenate(pieces)
    if (
        len(points) > _CLOSED and all(free) and float(np.abs(points[0] - points[-1]).max()) <= 1
    ):  # a loop without a junction
        return Line(np.concatenate([points, points[:1]]), np.append(shared, False), (False, False))
    return Line(points, shared, free)
