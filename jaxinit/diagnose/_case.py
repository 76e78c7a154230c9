"""What the checks look at: a record, and what it tells of the network behind it."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from jaxinit.diagnose._certainty import Figure
from jaxinit.diagnose._profile import Change, Profile, change, exists, profile
from jaxinit.diagnose._verdict import STEPS
from jaxinit.records import Finding, Propagation, Site, Statistic
from jaxinit.records._depth import positions
from jaxinit.records._diagnosis import SEVERITIES

#: Share of exact zeros that a ReLU on symmetric pre-activations leaves, give or take small width.
_HALF = (0.4, 0.6)
_SIGMOIDAL = ("tanh", "erf", "arctan", "softsign", "hard_tanh")
_UNIT_GAIN = ("identity", "selu")
#: Sites of one role in their blocks are compared with each other from this many on.
BLOCKS = 3
#: Values of a stack that one is left of by pooling, at most.
_POOLED = 16
#: Kinds of sites at which rows of a table are looked up.
TABLES = ("embedding", "Embed", "gather")
_NUMBER, _INDEX = re.compile(r"\d+"), re.compile(r"\[\d+\]")
_NUMBERED = re.compile(
    r"(?P<within>(?:.*/)?)(?P<name>[^/#\[]*[^/#\[\d])(?P<number>\d+)(?P<rest>(?:[#\[][^/]*)?)"
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A record under examination."""

    record: Propagation

    @functools.cached_property
    def forward(self) -> Profile | None:
        return profile(self.record, "log_second_moment")

    @functools.cached_property
    def backward(self) -> Profile | None:
        return profile(self.record, "log_grad_second_moment")

    @functools.cached_property
    def lengths(self) -> Profile | None:
        """As `forward`; where some networks die, of the mean second moment: a log of 0 has no mean."""
        stat, log = self.record.second_moment, self.record.log_second_moment
        if self.forward is None or stat is None or log is None or stat.mean.shape != log.mean.shape:
            return self.forward
        if not (np.isneginf(log.mean) & np.isfinite(log.max)).any():
            return self.forward
        with np.errstate(invalid="ignore", divide="ignore"):
            logs = np.log(stat.mean).mean(axis=1), (stat.stderr / stat.mean).mean(axis=1)
        whole = Profile(self.record.sites, positions(self.record.sites), *logs, stat.count, None)
        return whole.at([self.record.sites.index(site) for site in self.forward.sites])

    @functools.cached_property
    def depth(self) -> int:
        return len(self.record.sites)

    @functools.cached_property
    def activation(self) -> str | None:
        """The nonlinearity: by name where the record has it, "relu" where half of the values are exact zeros."""
        name = self.record.config.get("activation")
        if isinstance(name, str):
            return name
        stat = self.record.zero_fraction
        if stat is None:
            return None
        before = np.array([s.activation for s in self.record.layout], bool) if self.record.layout else ...
        shares = stat.mean[before]
        shares = shares[np.isfinite(shares)]
        return "relu" if shares.size and _HALF[0] < np.median(shares) < _HALF[1] else None

    @functools.cached_property
    def is_residual(self) -> bool:
        """Whether the record says that the network has skips."""
        return "residual=Residual(" in str(self.record.config.get("network", ""))

    @functools.cached_property
    def may_be_plain(self) -> bool:
        """Whether nothing in the record speaks of skips, normalization or dropout."""
        text = str(self.record.config.get("network", ""))
        return not text or "residual=None, norm=None, dropout=0.0" in text

    @functools.cached_property
    def families(self) -> list[tuple[str, np.ndarray]]:
        """Groups of sites that can be compared: all of a canonical network, those of one kind of a probed model.

        A model's sites are of different kinds (dense layers, norms, blocks), each with a scale of its own; those
        of one kind of which there are three or more form a group, else all places that are no inputs do. Layers
        that stand one behind the other in a stack (convolutions, then dense layers on what they left) are of one.
        """
        layout = self.record.layout
        if not layout:
            return [("", np.arange(self.depth))]
        places = [(i, s) for i, s in enumerate(layout) if s.role != "input"]
        kinds = dict.fromkeys(s.kind for _, s in places)
        groups: list[tuple[str, np.ndarray]] = []
        for kind in kinds:
            index = np.array([i for i, s in places if s.kind == kind])
            if groups and self._goes_on(int(groups[-1][1][-1]), int(index[0])):
                before, first = groups.pop()
                kind, index = f"{before} and {kind}", np.concatenate([first, index])
            groups.append((kind, index))
        groups = [(k, index) for k, index in groups if len(index) >= 3]
        return groups or [("", np.array([i for i, _ in places], dtype=int))]

    def _goes_on(self, last: int, first: int) -> bool:
        """Whether the layer of a later site multiplies what the one before left, nearly all of it, and nothing between.

        A mean over many positions changes the scale by their number; pooling by windows hardly does.
        """
        layout, (before, after) = self.record.layout, (self.matrix(last), self.matrix(first))
        if last > first or not before or not after or layout[last].kind in TABLES:
            return False
        if any(s.parameters and not s.container for s in layout[last + 1 : first]):
            return False
        if len(after) > 2:  # a convolution, of the channels that the one before was shaped to
            return after[-2] > 1 and layout[last].units % after[-2] == 0
        (left, units), (found, features) = (
            (math.prod(s.shape) // (s.shape[s.batch_axis] if s.batch_axis is not None else 1), s.units)
            for s in (layout[last], layout[first])
        )
        everywhere = left // units == found // features and after[0] == units
        return everywhere or (found == features and after[0] <= left <= _POOLED * after[0])

    def matrix(self, site: int) -> tuple[int, ...]:
        """The shape of the matrix that enters at a site, () where there is none."""
        p, names = self.record.parameters, self.record.layout[site].parameters
        shape = p.shapes[p.index(names[0])] if p is not None and names and names[0] in p.names else ()
        return shape if len(shape) > 1 else ()

    @functools.cached_property
    def steps(self) -> dict[str, np.ndarray]:
        """Of each place in a loop that uses the same parameters in every step, a recurrent cell's: its sites."""
        steps: dict[str, list[int]] = {}
        parameters = () if self.record.parameters is None else self.record.parameters.names
        for i, site in enumerate(self.record.layout):
            if site.role != "input" and (name := _looped(site, parameters)):
                steps.setdefault(name, []).append(i)
        return {name: np.array(index) for name, index in steps.items()}

    def lasting(self, sites: np.ndarray) -> np.ndarray:
        """A mask without the steps of places of which other steps are not in it: a hidden state starts at zero."""
        out = sites.copy()
        for index in self.steps.values():
            out[index] &= sites[index].all()
        return out

    @functools.cached_property
    def travels(self) -> list[tuple[str, np.ndarray, bool]]:
        """Groups of sites along which signal and gradient travel, and whether it is time that they travel in.

        As `families`, but of a loop that uses the same parameters in every step (a recurrent cell's) each place with
        its steps is a group of its own, and the last steps of places of one role (of stacked cells) are another.
        """
        timed = {i for index in self.steps.values() for i in index}
        out = [(kind, index[[i not in timed for i in index]], False) for kind, index in self.families]
        out = [group for group in out if len(group[1]) >= 3 or not group[0]]
        last: dict[tuple[str, str], list[int]] = {}
        for name, index in self.steps.items():
            if len(index) >= 3:
                out.append((f"{STEPS} {name}", index, True))
            last.setdefault((self.record.layout[index[-1]].kind, role(name)), []).append(int(index[-1]))
        return out + [(kind, np.array(index), False) for (kind, _), index in last.items() if len(index) >= 3]

    def strands(self, sites: np.ndarray) -> list[np.ndarray]:
        """The sites of each role in its block, of which there are some; else all: what alternates is no walk."""
        found = np.array(roles([self.record.sites[i] for i in sites]))
        groups = [sites[found == one] for one in dict.fromkeys(found)]
        return [group for group in groups if len(group) >= BLOCKS] or [sites]

    def change(self, p: Profile) -> Change:
        """The change over a profile; what alternates, block by block, is no walk."""
        place = {site: n for n, site in enumerate(p.sites)}
        index = np.array([i for i, site in enumerate(self.record.sites) if site in place], int)
        strands = self.strands(index)
        return change(p, [np.sort([place[self.record.sites[i]] for i in one]) for one in strands])

    def within(self, p: Profile, family: np.ndarray) -> Profile:
        """The finite part of a profile at the sites of a family."""
        names = {self.record.sites[i] for i in family}
        return p.at([i for i, s in enumerate(p.sites) if s in names and np.isfinite(p.log[i])])

    @functools.cached_property
    def single(self) -> np.ndarray:
        """Sites of one unit: two numbers have no angle between them, only signs."""
        if self.record.layout:
            return np.array([s.shape[-1:] == (1,) for s in self.record.layout])
        widths = self.record.config.get("widths")
        if (
            widths is None
            or len(widths) != self.depth
            or "spatial=Spatial(" in str(self.record.config.get("network"))
        ):
            return np.zeros(self.depth, bool)
        return np.asarray(widths) == 1

    @functools.cached_property
    def silent(self) -> np.ndarray:
        """Sites at which the signal is exactly 0 in every network."""
        return always_zero(self.record.log_second_moment, self.depth)

    @functools.cached_property
    def reached(self) -> np.ndarray:
        """Sites that a gradient reaches, be it 0; all where none was measured."""
        stat = self.record.log_grad_second_moment
        if stat is None or not stat.mean.size or not self.record.layout:
            return np.ones(self.depth, bool)
        return exists(stat)

    @property
    def basis(self) -> str:
        n = self.record.count
        return "exact" if n == 0 else f"{n} seed{'s' * (n > 1)}"

    # ---- remedies, as code ------------------------------------------------------------------------------

    @property
    def gain(self) -> str:
        """The kernel initializer that keeps second moments through the network's activation."""
        name = self.activation
        if name is None or name == "relu":
            return "ji.he_normal()"
        if name in _UNIT_GAIN:
            return "ji.lecun_normal()"
        return f"ji.scaled_for({name!r})"

    @property
    def rescale(self) -> str:
        """Code that mends the scale."""
        if self.is_residual:
            return self.damp
        if self.activation in _SIGMOIDAL:
            return f"kernel_init, bias_init = ji.critical({self.activation!r}, bias_variance=0.05)"
        unknown = "  # after ReLU; else ji.scaled_for(activation)" if self.activation is None else ""
        return f"kernel_init={self.gain}{unknown}"

    def redraw(self, parameter: str) -> str:
        """Code that mends the scale of one parameter: rows of a table get the length 1, right for a head as well."""
        p = self.record.parameters
        if p is None or parameter not in p.names or parameter.rsplit("/", 1)[-1] not in TABLES:
            return self.rescale
        return f"embedding_init=ji.normal({p.shapes[p.index(parameter)][-1] ** -0.5:.2g})"

    @property
    def tame(self) -> str:
        """Code that mends growth. A probed model does not say whether it has skips: both cases are named."""
        if self.is_residual or not self.record.layout:
            return self.rescale
        also = "" if self.activation is not None else ", after ReLU; else ji.scaled_for(activation)"
        branch = f"ji.residual({self.gain}, depth=blocks)"
        return f"kernel_init={self.gain}  # without skips{also}; with skips {branch} ends each branch"

    @property
    def damp(self) -> str:
        """Code that makes residual branches small: for the last layer of every branch."""
        return f"kernel_init=ji.residual({self.gain}, depth={self.depth})"


def _looped(site: Site, parameters: Sequence[str]) -> str:
    """The name, without the step, of a site in a loop that uses the same parameters in every step; else ""."""
    start, step, rest = site.name.rpartition("[")
    shared = site.loops and any(p == start or p.startswith(f"{start}/") for p in parameters)
    return start + rest.partition("]")[2] if step and shared else ""


def role(site: str) -> str:
    """A site's place in its block: its path without the numbers of what it lies in, or of the loop it is run in."""
    *within, last = site.split("/")
    return "/".join([*(_NUMBER.sub("", name) for name in within), _INDEX.sub("", last)])


def roles(sites: Sequence[str]) -> list[str]:
    """The `role` of each; of names side by side, as `up_0`, `down_0`, `up_1`, ..., the number is that of the block.

    A number is taken for one where two names at least have three and more of them and take turns. In a plain stack each
    is a layer of its own, and so it is in stacks one after the other: `down_0`, `down_1`, `down_2`, `up_2`, `up_1`, ...
    """
    split = [_NUMBERED.fullmatch(site) for site in sites]
    numbers: dict[tuple[str, str], set[str]] = {}
    for each in filter(None, split):
        numbers.setdefault((each["within"], each["name"]), set()).add(each["number"])
    many = {name for name, own in numbers.items() if len(own) >= BLOCKS}
    inside = [each for each in split if each and each.group("within", "name") in many]
    turns = many - _in_rows(inside)
    beside = Counter(within for within, _ in turns)
    out = []
    for site, found in zip(sites, split, strict=True):
        block = found and found.group("within", "name") in turns and beside[found["within"]] > 1
        out.append(role("".join(found.group("within", "name", "rest")) if found and block else site))
    return out


def _in_rows(sites: Sequence[re.Match[str]]) -> set[tuple[str, str]]:
    """Names, with what they lie in, that follow themselves with another number."""
    out: set[tuple[str, str]] = set()
    before: dict[str, re.Match[str]] = {}
    for site in sites:
        last = before.get(site["within"], site)
        if last["name"] == site["name"] and last["number"] != site["number"]:
            out.add((site["within"], site["name"]))
        before[site["within"]] = site
    return out


def level(names: Sequence[str], values: np.ndarray) -> np.ndarray:
    """For each, the median of those of its role in their blocks, of three or more such; else the median of all.

    What every block does alike is made so: queries and keys get little gradient where logits are small.
    """
    found = np.array(roles(names))
    usual = np.full(values.shape, np.median(values))
    for one in set(found):
        alike = found == one
        if alike.sum() >= BLOCKS:
            usual[alike] = np.median(values[alike])
    return usual


def scatter(deviations: np.ndarray) -> float:
    """Standard deviation of logarithms about what is usual, by their median size, and at least 0.1."""
    return max(1.4826 * float(np.median(np.abs(deviations))), 0.1)


def most_severe(found: Sequence[Finding], rank: Callable[[Finding], float] = lambda f: 0.0) -> list[Finding]:
    """The one finding of the highest severity, of several the first by `rank`; none of none."""
    return sorted(found, key=lambda f: (SEVERITIES.index(f.severity), rank(f)))[:1]


def finding(
    kind: str,
    severity: str,
    what: str,
    where: tuple[str, ...],
    measured: tuple[str, Figure],
    threshold: float,
    p_value: float,
    remedy: str,
    source: str,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    **evidence: float,
) -> Finding:
    """A Finding from the name and the value of a figure that lies in [`least`, `most`]."""
    name, figure = measured
    low, high = figure.interval()
    return Finding(
        kind, severity, what, where, name, figure.value, max(low, least), min(high, most), threshold,
        min(p_value, 1.0), figure.basis, remedy, source, evidence,
    )  # fmt: skip


def always_zero(stat: Statistic | None, sites: int) -> np.ndarray:
    """Sites at which a log second moment is -inf in every network that has it, for every input."""
    if stat is None or not stat.mean.size:
        return np.zeros(sites, bool)
    return np.asarray(exists(stat) & np.isneginf(np.where(np.isnan(stat.max), -np.inf, stat.max)).all(axis=1))
