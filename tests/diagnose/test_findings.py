"""Every kind of finding is raised by what it names and by nothing else, says how sure it is, and can be mended."""

import dataclasses
import io
import math

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import jaxinit as ji
from jaxinit.diagnose import KINDS, diagnose
from jaxinit.diagnose._case import roles
from jaxinit.records import ParameterStatistics, Propagation, Site, Statistic

L, SEEDS = 30, 12
SITES = tuple(str(l) for l in range(1, L + 1))
DEPTH = np.arange(float(L))


def sampled(values, spread=0.02, seeds=SEEDS, seed=0):
    """A Statistic over seeds whose samples scatter about `values` (sites, ...)."""
    noise = np.random.default_rng(seed).standard_normal((seeds, *np.shape(values)))
    with np.errstate(invalid="ignore"):
        return Statistic.of(np.asarray(values)[None] + spread * noise)


def record(
    forward=0.0 * DEPTH, backward=0.0 * DEPTH, apart=0.5 + 0 * DEPTH, spread=0.02, seeds=SEEDS, **more
):
    """A Propagation with one input: logs of second moments, and 1 - c relative to noise."""
    config = {"label": "made", "widths": [64] * len(forward), "activation": "relu", **more.pop("config", {})}
    apart = np.asarray(apart)[:, None]
    return Propagation(
        "simulation", SITES[: len(forward)], 1, ((0, 1),),
        log_second_moment=sampled(np.asarray(forward)[:, None], spread, seeds),
        log_grad_second_moment=sampled(np.asarray(backward)[:, None], spread, seeds, 1),
        one_minus_correlation=Statistic.of(
            apart[None] * (1 + spread * np.random.default_rng(2).standard_normal((seeds, *apart.shape)))
        ),
        config=config, **more,
    )  # fmt: skip


def kinds(d, severity="warning"):
    return {f.kind for f in d.at_least(severity)}


NAMES = ("a/kernel", "b/kernel", "c/kernel", "table/embedding", "c/bias")


def stepped(
    gradient=(1.0, 1.0, 1.0, 1.0, 1.0), step=(1e-3, 2e-3, 5e-4, 1e-3, np.nan), norm=(1.0, 1.0, 1.0, 1.0, 0.0)
):
    """A model's record with the statistics of five parameters."""
    sites = tuple(
        Site(
            s,
            "output",
            "Dense",
            s,
            (2, 64),
            "float32",
            parameters=(NAMES[0 if n < 10 else 1 if n < 20 else 2],),
        )
        for n, s in enumerate(SITES)
    )
    parameters = ParameterStatistics(
        NAMES, ((64, 64), (64, 64), (64, 64), (99, 64), (64,)),
        *(sampled(np.array(v, float), 0.0) for v in (norm, gradient)),
        update_ratio=sampled(np.array(step, float), 0.0),
    )  # fmt: skip
    return dataclasses.replace(record(), source="probe", layout=sites, parameters=parameters)


#: A ConvNeXt of two stages: of each of its convolutions, from the first, the log of the gradient's second moment and of
#: the gradient over the weights. Those of blocks lie behind LayerScale's gammas.
CONVS = ("stem", "block_0/dwconv", "block_1/dwconv", "down", "block_2/dwconv", "block_3/dwconv")
GRADIENTS = np.array([-6.4, -44.2, -44.2, -7.9, -35.5, -35.4])
RATIOS = np.array([3.6, -15.6, -15.5, 2.2, -13.7, -13.7])
GAMMAS = tuple(f"block_{n}/gamma" for n in range(4))


def gated(gradients=GRADIENTS, ratios=RATIOS, gamma=1e-6, seeds=8):
    """Its record, with gammas of that size."""
    kernels = tuple(f"{s}/kernel" for s in CONVS)
    layout = tuple(
        Site(s, "output", "Conv", s, (4, 8, 8, 32), "float32", parameters=(k,))
        for s, k in zip(CONVS, kernels, strict=True)
    )
    shapes = (*((3, 3, 32, 32),) * len(CONVS), *((32,),) * 4)
    norms = sampled(np.array([1.0] * len(CONVS) + [gamma * math.sqrt(32)] * 4), 0.0)
    return Propagation(
        "probe", CONVS, 1, log_second_moment=sampled(np.zeros((len(CONVS), 1)), 0.02, seeds),
        log_grad_second_moment=sampled(gradients[:, None], 0.02, seeds, 1), update_ratio=sampled(np.exp(ratios), 0.0),
        layout=layout, parameters=ParameterStatistics((*kernels, *GAMMAS), shapes, norms),
    )  # fmt: skip


KINDS_OF = {1: "LayerNorm", 2: "Dense", 4: "Conv"}
#: A small network on images: what its layers leave, their kernels.
STACK = {
    "conv_0": ((8, 15, 15, 16), (8, 8, 4, 16)), "conv_1": ((8, 6, 6, 32), (4, 4, 16, 32)),
    "conv_2": ((8, 4, 4, 32), (3, 3, 32, 32)), "fc": ((8, 128), (512, 128)), "q": ((8, 6), (128, 6)),
}  # fmt: skip


def stacked(forward, backward=None, norm=None, shapes=STACK, seeds=8, **more):
    """Its record, from the logs of second moments, and of gradients summed over units."""
    layout = tuple(
        Site(n, "output", KINDS_OF[len(k)], n, s, "float32", parameters=(f"{n}/kernel",))
        for n, (s, k) in shapes.items()
    )
    units = np.log([math.prod(s) for s, _ in shapes.values()])
    backward = 0.0 * units if backward is None else backward
    norms = [math.sqrt(2 * k[-1]) for _, k in shapes.values()] if norm is None else norm
    return Propagation(
        "probe", tuple(shapes), 1, log_second_moment=sampled(np.asarray(forward)[:, None], 0.02, seeds),
        log_grad_second_moment=sampled((backward - units)[:, None], 0.02, seeds, 1), layout=layout,
        parameters=ParameterStatistics(
            tuple(f"{n}/kernel" for n in shapes), tuple(k for _, k in shapes.values()), sampled(np.array(norms), 0.0)
        ), **more,
    )  # fmt: skip


def planted():
    """Kind -> a record with that fault."""
    falls, silent, late = -0.7 * DEPTH, np.where(DEPTH > 9, -np.inf, 0.0), 0.0 * DEPTH
    late[-1] = -np.inf
    jump, branch = np.where(DEPTH > 14, 6.0, 0.0), 0.0 * DEPTH
    branch[7] = -np.inf
    odd = 0.0 * DEPTH
    odd[4:] = np.nan
    share = np.full(L, 0.4)
    share[11] = 0.99
    ratio = np.full(L, 0.1)
    ratio[5] = 60.0
    some = np.zeros((SEEDS, L, 1))
    some[0, 20:] = -np.inf
    wide = np.random.default_rng(3).standard_normal((SEEDS, L, 1)).cumsum(axis=1) * 1.2
    mean = {"mean": sampled(np.full((L, 1), 2.0), 0.0), "second_moment": sampled(np.full((L, 1), 4.0), 0.0)}
    bf16 = tuple(Site(s, "output", "Dense", s, (2, 64), "bfloat16") for s in SITES)
    return {
        "vanishing_signal": record(falls), "exploding_signal": record(-falls),
        "vanishing_gradient": record(backward=falls[::-1]), "exploding_gradient": record(-falls / 6, -falls[::-1]),
        "chaos": record(backward=-falls[::-1]),
        "underflow": record(-8.0 * DEPTH), "overflow": record(8.0 * DEPTH),
        "not_finite_signal": record(odd), "not_finite_gradient": record(backward=odd[::-1]),
        "zero_signal": record(silent), "zero_output": record(late), "silent_branch": record(branch),
        "dying": dataclasses.replace(record(), log_second_moment=Statistic.of(some)),
        "no_gradient": record(backward=silent[::-1]),
        "identical_units": record(**mean),
        "dead_units": record(dead_fraction=sampled(share, 1e-3)),
        "saturated_units": record(saturated_fraction=sampled(share, 1e-3)),
        "collapse": record(apart=0.5 * np.exp(-0.5 * DEPTH)),
        "rank_collapse": record(position_correlation=sampled(1 - 0.9 * np.exp(-0.5 * DEPTH), 1e-9)),
        "bf16_risk": dataclasses.replace(record(apart=1e-7 + 0 * DEPTH), layout=bf16),
        "unused_parameter": stepped(gradient=(1.0, 0.0, 1.0, 1.0, 1.0)),
        "zero_start": stepped(gradient=(0.0, 1.0, 1.0, 1.0, 1.0), norm=(1.0, 0.0, 1.0, 1.0, 0.0)),
        "stuck_at_zero": stepped(gradient=(0.0, 0.0, 1.0, 1.0, 1.0), norm=(0.0, 0.0, 1.0, 1.0, 0.0)),
        "small_gain": gated(),
        "update_ratio": stepped(step=(1e-3, 1e-6, 5e-4, 1e-3, np.nan)),
        "large_values": stacked(10.0 + 0 * DEPTH[:5]),
        "step": record(jump), "imbalance": record(update_ratio=sampled(ratio, 1e-3)),
        "wrong_default": record(-math.log(2.0) * DEPTH), "spread": dataclasses.replace(
            record(), log_second_moment=Statistic.of(wide)),
    }  # fmt: skip


PLANTED = planted()
NOTES = {"zero_output", "silent_branch", "spread", "zero_start", "small_gain"}


def test_every_kind_is_planted():
    assert set(PLANTED) == set(KINDS)


@pytest.mark.parametrize("kind", sorted(PLANTED))
def test_what_is_planted_is_found(kind):
    d = diagnose(PLANTED[kind])
    assert kind in kinds(d, "note" if kind in NOTES else "warning")
    assert d.ok == bool(d) == (kind in NOTES) and (d.word == "alive") == d.ok
    for f in d:
        assert f.what.endswith(".") and f.source and set(f.where) <= {*SITES, *NAMES, *GAMMAS, *STACK}
        assert f.low <= f.value <= f.high or math.isnan(f.value)
        assert 0.0 <= f.p_value < 1e-3 and f.basis
        if f.severity != "note":
            assert f.remedy


ALONE = sorted(
    set(PLANTED)
    - NOTES
    # what these do to the rest of the network is found as well
    - {"underflow", "overflow", "exploding_gradient", "zero_signal", "wrong_default", "dying"}
    - {"vanishing_signal", "exploding_signal"}
)


@pytest.mark.parametrize("kind", ALONE)
def test_nothing_else_is_found(kind):
    assert kinds(diagnose(PLANTED[kind])) == {kind}


def test_a_healthy_record_has_no_findings():
    more = {
        "dead_fraction": sampled(np.full(L, 0.5), 0.05), "saturated_fraction": sampled(np.full(L, 0.5), 0.05),
        "update_ratio": sampled(np.full(L, 0.1), 0.01), "mean": sampled(np.zeros((L, 1)), 0.1),
        "second_moment": sampled(np.ones((L, 1)), 0.05),
    }  # fmt: skip
    d = diagnose(record(**more))
    assert d.ok and not d.findings and d.word == "alive" and not d.skipped and "13 checks passed" in d.verdict


@pytest.mark.parametrize("kind", sorted(set(PLANTED) - NOTES))
def test_remedies_are_code(kind):
    for f in diagnose(PLANTED[kind]).at_least("warning"):
        scope = {"ji": ji, "jnp": jnp, "x": 1.0}
        if f.remedy.startswith("#"):  # nothing to write: it says what to do
            continue
        code = (
            f.remedy if f.remedy.startswith("kernel_init, ") else f"made = dict({f.remedy.split('  #')[0]})"
        )
        exec(code, scope)
        made = scope.get(
            "made", {"kernel_init": scope.get("kernel_init"), "bias_init": scope.get("bias_init")}
        )
        assert made and all(v is not None for v in made.values())


@pytest.mark.parametrize(
    ("activation", "remedy"),
    [
        ("relu", "kernel_init=ji.he_normal()"), ("gelu", "kernel_init=ji.scaled_for('gelu')"),
        ("tanh", "kernel_init, bias_init = ji.critical('tanh', bias_variance=0.05)"),
        ("selu", "kernel_init=ji.lecun_normal()"),
    ],
)  # fmt: skip
def test_the_remedy_follows_the_activation(activation, remedy):
    assert diagnose(record(-0.8 * DEPTH, config={"activation": activation})).worst()[0].remedy == remedy


def test_the_remedy_of_a_residual_network_is_in_its_branches():
    network = "Network(depth=30, residual=Residual(alpha=1.0, beta=1.0, order='pre'), norm=None, dropout=0.0)"
    [worst] = diagnose(record(0.7 * DEPTH, 0.7 * DEPTH[::-1], config={"network": network})).worst()
    assert (
        worst.kind == "exploding_signal"
        and worst.remedy == "kernel_init=ji.residual(ji.he_normal(), depth=30)"
    )


def test_rates_come_with_their_interval_and_depths():
    [f] = [f for f in diagnose(PLANTED["wrong_default"]) if f.kind == "vanishing_signal"]
    assert f.evidence["factor_low"] < 0.5 < f.evidence["factor_high"] < 0.51
    assert f.evidence["layers_to_1e3"] == pytest.approx(math.log(1e6) / math.log(2), rel=0.01)
    assert f.evidence["layers_to_float32"] == pytest.approx(252, abs=2)
    assert "×0.5 [" in f.what and f.where == ("1", "30") and f.place == "layers 1 to 30"


@pytest.mark.parametrize("kind", ["not_finite_signal", "zero_signal"])
def test_the_first_site_is_named(kind):
    assert (
        diagnose(PLANTED[kind]).worst()[0].where[0] == {"not_finite_signal": "5", "zero_signal": "11"}[kind]
    )


def test_the_layer_out_of_step_is_named():
    assert diagnose(PLANTED["step"]).worst()[0].where == ("16",)
    assert diagnose(PLANTED["imbalance"]).worst()[0].where == ("6",)
    assert diagnose(PLANTED["dead_units"]).worst()[0].where == ("12",)


def test_powers_of_depth_are_notes():
    d = diagnose(record(4.0 * np.log1p(DEPTH)))
    assert d.ok and [f.kind for f in d] == ["exploding_signal"] and "depth^4" in d.findings[0].what
    assert kinds(diagnose(record(np.linspace(0, 4.0 * math.log(L), L)))) == {"exploding_signal"}


def test_defaults_are_named_only_within_the_interval():
    def named(rate, activation="relu"):
        found = diagnose(record(math.log(rate) * DEPTH, config={"activation": activation}))
        return [f.what for f in found if f.kind == "wrong_default"]

    assert "lecun_normal" in named(0.5)[0] and "PyTorch" in named(1 / 6)[0]
    assert not named(0.4) and not named(0.6) and not named(0.5, "tanh") and not named(0.5, "no such function")


def test_more_spread_or_fewer_seeds_say_less():
    """A change of 3.2 decades: sure with little noise, a note that says so with much."""
    slope = -3.2 * math.log(10) / (L - 1) * DEPTH
    assert kinds(diagnose(record(slope, spread=0.02))) == {"vanishing_signal"}
    unsure = diagnose(record(slope, spread=1.0, seeds=9))
    assert unsure.ok and all(f.severity == "note" for f in unsure)


def test_the_drift_of_narrow_networks_is_no_fault():
    """Walks of mean ratio 1 and variance 5/32 a layer, as He-initialized ReLU of width 32 makes: 200 records."""
    rng, alarms = np.random.default_rng(7), 0
    for _ in range(200):
        own = rng.normal(-2.5 / 32, math.sqrt(5 / 32), (16, 99, 1)).cumsum(axis=1)
        sites = tuple(map(str, range(1, 100)))
        alarms += not diagnose(Propagation("simulation", sites, 1, log_second_moment=Statistic.of(own))).ok
    assert alarms <= 2


def test_the_same_drift_without_variance_is_one():
    """The twin: the same typical change (seven powers of e), but every network has it."""
    fixed = -5.0 / 64 * 100 * np.linspace(0, 1, L)
    assert not diagnose(record(fixed)).ok


def test_what_was_not_recorded_is_not_checked():
    only = Propagation("theory", SITES, 1, log_second_moment=Statistic.exact(np.zeros((L, 1))))
    d = diagnose(only)
    assert d.ok and "bfloat16" in d.skipped and "one_minus_correlation not recorded" in d.skipped["bfloat16"]
    empty = diagnose(Propagation("theory", SITES, 1))
    assert empty.ok and empty.word == "" and "Nothing" in empty.verdict


def test_one_site_and_one_seed():
    assert diagnose(record(np.zeros(1), np.zeros(1), np.full(1, 0.5))).ok
    one = diagnose(record(-2.0 * DEPTH, -2.0 * DEPTH[::-1], seeds=1))
    assert "vanishing_signal" in kinds(one) and "one network" in one.worst()[0].basis


def test_sites_of_different_kinds_are_not_compared():
    """Dense layers at 1, norms at e^-8 between them: no step, nothing vanishes; twin: one dense layer is off."""
    layout = tuple(
        Site(f"b{i}/{k}", "output", k, f"b{i}/{k}", (4, 64), "float32")
        for i in range(8)
        for k in ("Dense", "LayerNorm")
    )
    log = np.array([0.0 if s.kind == "Dense" else -8.0 for s in layout])

    def of(log):
        sites = tuple(s.name for s in layout)
        stat = sampled(log[:, None])
        return Propagation("probe", sites, 1, log_second_moment=stat, layout=layout)

    assert diagnose(of(log)).ok
    log[8] += 7.0
    assert diagnose(of(log)).worst()[0].where == ("b4/Dense",)


@pytest.mark.parametrize("seeds", [4, 8])
def test_branches_behind_small_gains_are_no_fault(seeds):
    """A level apart is no rate, with the gammas in the record and without; what the gammas explain is no imbalance."""
    d = diagnose(gated(seeds=seeds))
    assert not d.at_least("likely") and [f.kind for f in d] == ["small_gain"]
    assert "block_0/gamma and 3 more" in d.findings[0].what and "1e-06" in d.findings[0].what
    plain = diagnose(gated(gamma=1.0, seeds=seeds))
    assert kinds(plain, "note") == {"imbalance"}  # ratios that nothing explains


def test_a_gradient_that_grows_is_found_behind_small_gains():
    """The twins: a factor a layer, with alternating levels on top of it, and a stem that is off."""
    rate, inside = -5.0 * np.arange(6.0), np.array(["dwconv" in s for s in CONVS])
    uneven = 4.0 * (np.arange(6) % 2)
    for gamma in (1e-6, 1.0):
        for gradients in (rate, rate + uneven):
            found = diagnose(gated(gradients + 2.0 * math.log(gamma) * inside, 0.0 * rate, gamma))
            assert kinds(found) == {"exploding_gradient"} and found.worst()[0].where == (CONVS[0], CONVS[-1])
    off = RATIOS + np.array([8.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert diagnose(gated(ratios=off)).worst()[0].where == ("stem",)
    off = RATIOS + np.array([0.0, 0.0, 8.0, 0.0, 0.0, 0.0])
    assert diagnose(gated(ratios=off)).worst()[0].where == ("block_1/dwconv",)


def test_roles_that_grow_on_levels_of_their_own_are_found():
    """Roles e^30 apart that all grow by e^3 a block; twin: neither does."""
    names = [f"block_{n}/{name}" for n in range(6) for name in ("in", "up", "out")]
    layout = tuple(Site(n, "output", "Dense", n, (4, 64), "float32") for n in names)

    def of(rate):
        log = np.array([rate * (n // 3) + 30.0 * (n % 3 == 1) for n in range(18)])
        return Propagation("probe", tuple(names), 1, log_second_moment=sampled(log[:, None]), layout=layout)

    assert kinds(diagnose(of(3.0))) == {"exploding_signal"} and diagnose(of(0.0)).ok


def test_a_saw_over_the_layers_is_no_spread_between_seeds():
    """Seven seeds that agree, on layers e^±30 apart; twin: seeds that differ by as much."""
    saw = 30.0 * (-1.0) ** np.arange(L)
    few = dataclasses.replace(record(seeds=7), log_grad_second_moment=None)

    def of(apart):
        own = np.random.default_rng(5).normal(0.0, 0.02, (7, L, 1)) + saw[:, None]
        own[:, -1, 0] += apart * np.arange(7)
        return kinds(diagnose(dataclasses.replace(few, log_second_moment=Statistic.of(own))), "note")

    assert "spread" not in of(0.0) and "spread" in of(10.0)


@pytest.mark.parametrize("written", ["block_{}/{}", "{1}_{0}", "net/{1}{0}#1"])
def test_what_every_block_does_alike_is_no_step(written):
    """The last layer of each branch starts small, as GPT-2 scales it; twin: in one block it does not."""
    names = [written.format(i, name) for i in range(8) for name in ("query", "key", "value", "out")]
    layout = tuple(Site(n, "output", "Dense", n, (4, 64), "float32") for n in names)
    log = np.array([-5.0 if "out" in n else 0.0 for n in names])

    def of(log):
        return Propagation("probe", tuple(names), 1, log_second_moment=sampled(log[:, None]), layout=layout)

    assert diagnose(of(log)).ok
    odd = written.format(4, "out")
    log[names.index(odd)] += 7.0
    assert diagnose(of(log)).worst()[0].where == (odd,)


def test_roles_of_names_side_by_side():
    """Numbers are blocks where several names have them; in a plain stack each is a layer of its own."""
    assert roles(["stem", "up_0", "down_0", "up_1", "down_1", "up_2", "down_2"]) == [
        "stem", *["up_", "down_"] * 3,
    ]  # fmt: skip
    for plain in (["fc1", "fc2", "fc3", "head"], ["conv_0", "conv_1", "conv_2", "fc_0", "fc_1"]):
        assert roles(plain) == plain
    assert roles(["a/x0", "a/x1", "a/x2", "b/y0", "b/y1", "b/y2"])[0] == "a/x0"  # each alone where it is
    after = ["down_0", "down_1", "down_2", "middle", "up_2", "up_1", "up_0", "head"]
    assert roles(after) == after  # stacks one after the other
    takes_turns = [f"{name}_{n}#{use}" for n in range(3) for name in ("up", "down") for use in (1, 2)]
    assert roles(takes_turns) == ["up_#1", "up_#2", "down_#1", "down_#2"] * 3


def test_gradients_that_reach_nothing_in_a_model():
    layout = tuple(Site(f"l{i}", "output", "Dense", f"l{i}", (4, 64), "float32") for i in range(4))
    samples = np.zeros((5, 4, 1))
    samples[:, 1] = np.nan
    sites = tuple(s.name for s in layout)
    r = Propagation(
        "probe", sites, 1, log_second_moment=Statistic.of(np.zeros((5, 4, 1))),
        log_grad_second_moment=Statistic.of(samples), layout=layout,
    )  # fmt: skip
    [f] = diagnose(r).at_least("warning")
    assert (f.kind, f.severity, f.where) == ("no_gradient", "warning", ("l1", "l1"))


def test_the_parameter_is_named_and_no_other():
    [unused] = diagnose(PLANTED["unused_parameter"]).at_least("warning")
    assert unused.where == ("b/kernel",) and "No gradient for b/kernel" in unused.what
    [odd] = diagnose(PLANTED["update_ratio"]).at_least("warning")
    assert odd.where == ("b/kernel",) and "500 times less than the median of its like" in odd.what
    [long] = diagnose(stepped(step=(1e-3, 3.0, 5e-4, 7.0, np.nan))).at_least("warning")
    assert long.kind == "update_ratio" and long.where == ("table/embedding",) and "b/kernel" in long.what


def test_one_matrix_at_zero_is_a_start():
    one = diagnose(stepped(gradient=(0.0, 0.5, 1.0, 1.0, 1.0), norm=(1.0, 0.0, 1.0, 1.0, 0.0)))
    assert one.ok and kinds(one, "note") == {"zero_start"}
    [two] = diagnose(PLANTED["stuck_at_zero"]).at_least("warning")
    assert two.kind == "stuck_at_zero" and two.where == ("10", "11")


def test_steps_that_are_no_fault():
    """A table whose rows are few, a bias that starts at zero, an imbalance of 50, and what one seed cannot tell."""
    assert diagnose(stepped(step=(1e-3, 2e-5, 5e-4, 1e-7, np.nan))).ok
    one = diagnose(dataclasses.replace(PLANTED["update_ratio"], parameters=None))
    assert one.ok and "parameters.update_ratio not recorded" in one.skipped["size of the optimizer's steps"]


def test_values_out_of_a_domain_and_values_that_overflow():
    """nan behind a moderate signal: an operation; behind a huge one: the scale."""
    late = 0.0 * DEPTH
    late[4:] = np.nan
    layout = tuple(Site(s, "output", "Dense", s, (2, 64), "float32") for s in SITES)
    bad = sampled(np.isnan(late).astype(float), 0.0)
    domain, scale = (
        diagnose(dataclasses.replace(record(v), layout=layout, nonfinite_fraction=bad)).worst()[0]
        for v in (late, late + 80 * (DEPTH < 4))
    )
    assert "an operation on the way" in domain.what and "jax_debug_nans" in domain.remedy
    assert "an operation" not in scale.what and "kernel_init=" in scale.remedy


def test_steps_of_a_loop_are_of_one_role():
    """A cell's state and output take turns, over time; twin: one output is off."""
    names = [f"cell[{t}].{leaf}" for t in range(8) for leaf in ("0", "1")]
    layout = tuple(Site(n, "output", "Cell", "cell", (4, 64), "float32", loops=(8,)) for n in names)
    log = np.array([3.0 if n.endswith("0") else 0.0 for n in names])

    def of(log):
        return Propagation("probe", tuple(names), 1, log_second_moment=sampled(log[:, None]), layout=layout)

    assert diagnose(of(log)).ok
    log[names.index("cell[4].1")] += 6.0
    assert diagnose(of(log)).worst()[0].where == ("cell[4].1",)


def test_what_every_block_does_alike_is_no_imbalance():
    """Queries get little gradient where logits are small; twin: in one block another layer does."""
    names = [f"block_{i}/{name}" for i in range(4) for name in ("query", "value", "out")]
    layout = tuple(Site(n, "output", "Dense", n, (4, 64), "float32") for n in names)
    ratio = np.array([1e-3 if n.endswith("query") else 0.3 for n in names])

    def of(ratio):
        logs = sampled(np.zeros((12, 1)))
        stat = sampled(ratio, 1e-6)
        return Propagation("probe", tuple(names), 1, log_second_moment=logs, update_ratio=stat, layout=layout)

    assert diagnose(of(ratio)).ok
    ratio[names.index("block_2/value")] = 1e-3
    [found] = diagnose(of(ratio)).at_least("warning")
    assert found.kind == "imbalance" and found.where == ("block_2/value",)


def test_what_alternates_within_blocks_is_no_walk():
    """Positions that attention averages and queries spread again: alike at the last site, block by block."""
    names = [f"block_{i}/{name}" for i in range(12) for name in ("query", "out")]
    layout = tuple(Site(n, "output", "Dense", n, (4, 64), "float32") for n in names)
    apart = np.concatenate([[0.8, 0.8 * math.exp(-0.9 * i)] for i in range(12)])

    def of(apart):
        return Propagation(
            "probe", tuple(names), 1, log_second_moment=sampled(np.zeros((24, 1)), 0.02, 8),
            position_correlation=sampled(1 - apart, 1e-6, 8), layout=layout,
        )  # fmt: skip

    assert kinds(diagnose(of(apart))) == {"rank_collapse"}
    assert diagnose(of(np.where(apart < 0.1, 0.1, apart))).ok


def test_where_the_stream_enters_its_blocks_nothing_is_usual():
    """Branches that end small: the step into the first block is like no other; twin: the third block's is off."""
    names = ["stem", *(f"block_{i}/{name}" for i in range(8) for name in ("first", "last"))]
    layout = tuple(Site(n, "output", "Conv", n, (4, 64), "float32") for n in names)
    log = np.array([-4.0 if n.endswith("last") else 0.0 for n in names])

    def of(log):
        return Propagation("probe", tuple(names), 1, log_second_moment=sampled(log[:, None]), layout=layout)

    assert diagnose(of(log)).ok
    log[names.index("block_3/first")] += 6.0
    assert diagnose(of(log)).worst()[0].where == ("block_3/first",)


@pytest.mark.parametrize("written", ["{}_{}", "{}_{}/conv"])
def test_where_the_stream_leaves_its_blocks_a_length_seen_elsewhere_is_usual(written):
    """A U-Net by names side by side, and nested; twin: its head is far larger."""
    names = [
        *(written.format("down", n) for n in range(3)),
        *(written.format("up", n) for n in (2, 1, 0)),
        "head",
    ]
    layout = tuple(Site(n, "output", "Conv", n, (4, 64), "float32") for n in names)
    log = np.array([0.6, -1.5, -1.4, -1.6, -0.4, -0.3, -1.2])

    def of(log):
        return diagnose(
            Propagation("probe", tuple(names), 1, log_second_moment=sampled(log[:, None]), layout=layout)
        )

    assert of(log).ok and "step" not in kinds(of(log), "likely")
    log[-1] = 12.6
    [found] = [f for f in of(log).at_least("warning") if f.kind == "step"]
    assert found.where == ("head",) and found.what.endswith(
        "elsewhere." if "/" not in written else "to the largest elsewhere."
    )


def test_kernels_of_equal_entries_of_a_large_batch():
    """Examples are pooled, so that no spread over units is known: the program that draws says it."""
    made = dataclasses.replace(stepped(), pooled=32)
    assert diagnose(made).ok
    found = diagnose(dataclasses.replace(made, config={**made.config, "equal_entries": ["a/kernel"]}))
    assert kinds(found) == {"identical_units"}


def test_units_that_are_dead_below_a_silent_output():
    """Biases far below 0 and a head without: the head's zero is a consequence, the dead units are the fault."""
    late, share = 0.0 * DEPTH, np.ones(L)
    late[-1] = -np.inf
    d = diagnose(record(late, dead_fraction=sampled(share, 0.0)))
    assert [f.kind for f in d.at_least("error")] == ["dead_units"]
    share[:] = 0.5
    assert diagnose(record(late, dead_fraction=sampled(share, 0.0))).ok


@pytest.mark.parametrize("seeds", [1, 4, 8, 12])
def test_inputs_that_collapse_in_few_networks_and_in_many(seeds):
    assert kinds(diagnose(record(apart=0.5 * np.exp(-0.5 * DEPTH), seeds=seeds))) == {"collapse"}
    assert diagnose(record(apart=0.5 * np.exp(-0.1 * DEPTH), seeds=seeds)).ok


def test_one_network_that_keeps_its_inputs_apart_contradicts_a_collapse():
    samples = np.repeat(0.5 * np.exp(-0.5 * DEPTH)[None, :, None], 12, axis=0)
    assert not diagnose(dataclasses.replace(record(), one_minus_correlation=Statistic.of(samples))).ok
    samples[3] = 0.1
    assert diagnose(dataclasses.replace(record(), one_minus_correlation=Statistic.of(samples))).ok


def test_the_record(tmp_path):
    d = diagnose(PLANTED["wrong_default"])
    again = ji.load(d.save(tmp_path / "d.npz"))
    assert again.findings == d.findings and again.verdict == d.verdict and repr(again) == repr(d)
    assert d.worst(2) == d.findings[:2] and d.worst(0) == () and list(d) == list(d.findings)
    assert [r["kind"] for r in d.rows()] == [f.kind for f in d.findings] and len(d.to_pandas()) == len(
        d.findings
    )
    order = [("error", "warning", "likely", "note").index(f.severity) for f in d]
    assert order == sorted(order)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(d)
    text = console.export_text()
    assert "kernel_init=ji.he_normal()" in text and "layers 1 to 30" in text and "12 seeds" in text
    assert d.verdict.startswith("Vanishing: the signal falls by ×0.5") and "more finding" in d.verdict
    assert "error: The signal falls" in str(d)


def test_bad_arguments():
    with pytest.raises(TypeError, match=r"diagnose\(propagation=\.\.\.\).*ji\.simulate"):
        diagnose({"log": 3})
    d = diagnose(record())
    with pytest.raises(ValueError, match="'error', 'warning', 'likely' or 'note'"):
        d.at_least("fatal")
    with pytest.raises(ValueError, match="at least 0"):
        d.worst(-1)


def test_convolutions_and_the_dense_layers_behind_them_are_one_stack():
    """A gradient that falls by e^2 a layer, and one layer off; twins: behind a mean over positions, behind a norm."""
    falls = 2.0 * np.arange(5.0)
    [found] = [f for f in diagnose(stacked(0.0 * falls, falls)) if f.kind == "vanishing_gradient"]
    assert (
        found.severity == "warning"
        and found.where == ("conv_0", "q")
        and "5 Conv and Dense sites" in found.what
    )
    jump = np.array([0.0, 4.6, 4.6, 4.5, 3.4])
    for seeds in (1, 4, 8):
        assert ("step", ("conv_1",)) in {
            (f.kind, f.where) for f in diagnose(stacked(jump, seeds=seeds)).at_least("likely")
        }
    wide = STACK | {"conv_2": ((8, 32, 32, 32), (3, 3, 32, 32)), "fc": ((8, 128), (32, 128))}
    assert diagnose(stacked(0.0 * falls, falls, shapes=wide)).ok
    between = [*STACK.items()]
    normed = dict([*between[:3], ("norm", ((8, 4, 4, 32), (32,))), *between[3:]])
    falls = falls[[0, 1, 2, 2, 3, 4]]
    assert diagnose(stacked(0.0 * falls, falls, shapes=normed)).ok


def test_large_values_from_the_inputs_on_and_at_the_output():
    """Inputs of rms 147, a layer that amplifies, a tied head; twins: each a factor 100 smaller in second moment."""
    large = np.array([10.0, 10.0, 9.9, 9.8, 9.0])
    for seeds in (1, 8):
        [f] = diagnose(stacked(large, seeds=seeds)).at_least("warning")
        assert (
            f.where == ("conv_0",)
            and "so the inputs are large" in f.what
            and f.remedy.startswith("x = x / 10")
        )
        assert not [f for f in diagnose(stacked(large - 4.6, seeds=seeds)) if f.kind == "large_values"]
    amplified = stacked(large, norm=[60.0 * math.sqrt(k[-1]) for _, k in STACK.values()])
    output, f = (f for f in diagnose(amplified) if f.kind == "large_values")
    assert f.where == ("conv_0",) and "beyond what softmax" in f.what and "kernel_init" in f.remedy
    assert (f.severity, output.severity, output.where) == ("note", "warning", ("q",))
    bare = tuple(dataclasses.replace(s, role="operation") for s in amplified.layout)
    assert "large_values" not in kinds(diagnose(dataclasses.replace(amplified, layout=bare)), "note")
    late = np.array([0.0, 0.0, 1.0, 3.0, 6.0])
    [f] = [f for f in diagnose(stacked(late)) if f.kind == "large_values"]
    assert f.where == ("q",) and "starts at an rms of 20" in f.what
    assert "large_values" not in kinds(diagnose(stacked(late - 2.0)), "note")


def test_what_silences_the_rest_is_named():
    """All units of a layer are off; twin: half of them."""
    silent, share = np.where(DEPTH > 9, -np.inf, 0.0), np.full(L, 0.5)
    assert diagnose(record(silent, dead_fraction=sampled(share, 0.0))).worst()[0].where == ("11", "30")
    share[9:] = 1.0
    [f] = diagnose(record(silent, dead_fraction=sampled(share, 0.0))).at_least("error")
    assert f.where == ("10", "30") and "all units of layer 10 are off" in f.what and "bias_init" in f.remedy


def test_blocks_behind_a_layer_that_downsamples():
    """Stages of blocks on levels of their own; twins: nothing lies between them, or one block is off."""
    names = [f"stage{s}_block{b}" for s in range(3) for b in range(3)]

    def of(logs, between=True):
        layout = []
        for n, name in enumerate(names):
            if n % 3 == 0 and n and between:
                layout.append(
                    Site(f"down_{n}", "output", "Conv", f"down_{n}", (4, 64), "float32", parameters=("k",))
                )
            layout.append(Site(name, "output", "Block", name, (4, 64), "float32", container=True))
        level = dict(zip(names, logs, strict=True))
        stat = sampled(np.array([[level.get(s.name, 0.0)] for s in layout]))
        sites = tuple(s.name for s in layout)
        return diagnose(Propagation("probe", sites, 1, log_second_moment=stat, layout=tuple(layout)))

    staged = np.repeat([0.0, -4.0, -3.3], 3)
    assert of(staged).ok
    assert {f.kind for f in of(staged, between=False).at_least("likely")} == {"step"}
    staged[4] += 7.0
    assert of(staged).worst()[0].where == ("stage1_block1",)


def test_a_parameter_used_at_every_step_is_one():
    """Thirty steps of a cell whose ratio is small, and layers that are not; twin: a layer that is out of balance."""
    names = [*(f"cell[{t}]" for t in range(30)), "a", "b", "c"]
    kernel = {n: ("cell/kernel" if "[" in n else f"{n}/kernel",) for n in names}
    layout = tuple(
        Site(n, "output", "Dense", n.split("[")[0], (4, 64), "float32", parameters=kernel[n]) for n in names
    )

    def of(ratio):
        logs = sampled(np.zeros((33, 1)))
        return diagnose(
            Propagation(
                "probe", tuple(names), 1, log_second_moment=logs, layout=layout,
                update_ratio=sampled(np.array(ratio), 1e-7),
            )
        )  # fmt: skip

    assert of([2e-4] * 30 + [1e-2, 2e-2, 2.5e-2]).ok
    [found] = of([1e-2] * 30 + [1e-2, 2e-2, 2.5]).at_least("warning")
    assert found.kind == "imbalance" and found.where == ("c",)


def test_one_network_is_out_of_balance_beyond_the_scatter_of_its_layers():
    """With one seed layers that scatter by 30 are no sure imbalance at 150; twin: layers that agree, and 300."""
    ratio = np.exp(np.random.default_rng(0).normal(0.0, 3.4, L))
    ratio[7] = 150.0 * np.median(ratio)
    wild = diagnose(record(seeds=1, update_ratio=Statistic.of(ratio[None])))
    assert wild.ok
    calm = np.where(np.arange(L) == 7, 300.0, 1.0)
    assert "imbalance" in kinds(diagnose(record(seeds=1, update_ratio=Statistic.of(calm[None]))))


@pytest.mark.parametrize("seeds", [1, 4, 12])
def test_a_saw_that_falls_is_found_with_few_seeds(seeds):
    """Two roles that take turns, one a level below, and fall by e^0.7 a block; twin: they do not fall."""
    names = [f"block_{n}/{name}" for n in range(15) for name in ("in", "out")]
    layout = tuple(Site(n, "output", "Dense", n, (4, 64), "float32") for n in names)

    def of(rate):
        log = np.array([-rate * (n // 2) - 2.0 * (n % 2) for n in range(30)])
        stat = sampled(log[:, None], 0.02, seeds)
        return diagnose(Propagation("probe", tuple(names), 1, log_second_moment=stat, layout=layout))

    assert kinds(of(0.7)) == {"vanishing_signal"} and of(0.0).ok


def test_a_few_layers_that_run_away_are_no_power_of_depth():
    """Five layers whose growth slows down: by e^18, no power; twin: by e^7.6, which is one."""
    grows, rest = np.array([0.0, 6.0, 11.0, 15.0, 18.0]), np.zeros(5)
    assert kinds(diagnose(record(grows, rest, rest + 0.5))) == {"exploding_signal"}
    assert diagnose(record(0.42 * grows, rest, rest + 0.5)).ok


def held(update, names=("gamma", "up", "down"), inside="layers/", equal=True):
    """A stack whose gains, 1e-5, are one array of six layers, with relative steps of its kernels and of the head."""
    paths = [f"{inside}{name}" for name in names] + ["head"]
    shapes = ((6, 32), (6, 32, 64), (6, 64, 32), (32, 10))
    layout = tuple(
        Site(p, "operation", "dot_general", "", (4, 32), "float32", parameters=(p,)) for p in paths[1:]
    )
    norms = sampled(np.array([1e-5 * math.sqrt(6 * 32), 5.0, 5.0, 3.0]), 0.0)
    parameters = ParameterStatistics(
        tuple(paths), shapes, norms, update_ratio=sampled(np.array([9.0, *update]), 0.0)
    )
    return diagnose(
        Propagation(
            "probe", tuple(paths[1:]), 1, log_second_moment=sampled(np.zeros((3, 1))), layout=layout,
            update_ratio=sampled(np.array(update), 0.0), parameters=parameters,
            config={"equal_entries": [paths[0]] if equal else []},
        )
    )  # fmt: skip


@pytest.mark.parametrize("inside", ["layers/", ""])
@pytest.mark.parametrize("update", [(1e-9, 1e-9, 1e-4), (1e-3, 2e-3, 1e-3)])
def test_gains_of_all_layers_in_one_array(inside, update):
    """Plain SGD, and Adam, in a stack and in the model itself; twins: no gains but a matrix, and a step that is off."""
    found = held(update, inside=inside)
    assert not found.at_least("likely") and [f.kind for f in found] == ["small_gain"]
    assert not held(update, inside=inside, equal=False).ok
    if inside and update[0] < 1e-6:
        assert {f.where for f in held((*update[:2], 1e3 * update[2])).at_least("warning")} == {("head",)}


def test_inputs_behind_gains_near_zero_may_be_alike():
    """A class token that sees the image through gains of 1e-3 only; twins: gains of one, and a collapse beyond that."""
    fall, gains = np.linspace(0.0, -16.0, L), np.array([1e-3, 1.0]) * math.sqrt(32)

    def of(fall, gain):
        held = ParameterStatistics(("block/gamma",), ((32,),), sampled(np.array([gain]), 0.0))
        return diagnose(dataclasses.replace(record(apart=0.5 * np.exp(fall)), parameters=held))

    assert of(fall, gains[0]).ok and kinds(of(fall, gains[1])) == kinds(of(1.6 * fall, gains[0])) == {
        "collapse"
    }


def test_the_first_of_several_layers_that_are_off_is_named():
    """Layers 9 to 11 are up, the way back is steeper; twin: from layer 9 on all are up."""
    up = 7.0 * ((DEPTH > 7) & (DEPTH < 11)) - 0.5 * (DEPTH == 11)
    [f] = [f for f in diagnose(record(up)) if f.kind == "step"]
    assert f.where == ("9",) and "from layer 8 to layer 9" in f.what
    [f] = [f for f in diagnose(record(7.0 * (DEPTH > 7))) if f.kind == "step"]
    assert f.where == ("9",)


def test_two_gains_of_a_branch_at_zero_are_stuck():
    """Both norms of every branch start at zero; twins: the last alone, and a head at zero that waits for a step."""
    names = ("block/bn1/scale", "block/bn3/scale", "head/kernel", "block/bn3/bias")

    def of(gradient, norm=(0.0, 0.0, 1.0, 0.0)):
        figures = (sampled(np.array(v), 0.0) for v in (norm, gradient))
        held = ParameterStatistics(names, ((8,), (8,), (8, 4), (8,)), *figures)
        return {
            (f.kind, f.where)
            for f in diagnose(dataclasses.replace(record(), parameters=held)).at_least("warning")
        }

    assert of((0.0, 0.0, 1.0, 1.0)) == {("stuck_at_zero", names[:2])}
    assert not of((0.0, 1.0, 1.0, 1.0)) and not of((0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 0.0))
