"""Every number at which something becomes a finding, each with where it comes from."""

from __future__ import annotations

import math

#: A finding is raised when the truth lies beyond its threshold with this error probability (one-sided); what is
#: searched at many sites is divided by their number (Bonferroni). A convention of ours: a dozen checks then
#: raise a false alarm in about one network in a hundred that sit exactly at a threshold, and hardly ever in one
#: that is at half of it.
SURE = 1e-3

#: What would be a warning but is not sure is said to be likely while a figure like the measured one had at most this
#: probability if the truth were at the threshold: the estimate is then beyond the threshold, and more seeds would tell.
LIKELY = 0.5

#: End-to-end change of a second moment, in powers of ten: worth a note, a warning, an error. 10^3 in the second
#: moment is a factor 30 in the rms, the spread of learning rates that layers then want; at 10^6 only 1e-3 of the
#: rms is left (or 1e3 of it is there), three of the seven digits of float32.
NOTE_DECADES = 1.0
DECADES = 3.0
ERROR_DECADES = 6.0
DECADES_SOURCE = (
    "derivation: 10^3 in the second moment is a factor 30 of the rms, 10^6 leaves 1e-3 of the rms; that networks of "
    "constant second moments train: Glorot & Bengio 2010, He et al. 2015"
)

#: Signals and gradients whose rms leaves [2^-126, 2^128) are 0 or infinite, in float32 and in bfloat16 alike.
LOG_TINY = -126 * math.log(2.0)
LOG_HUGE = 128 * math.log(2.0)
#: The same of float16, and the share of either, in the log, up to which a layer or two do not explain an overflow.
LOG_HALF = 16 * math.log(2.0)
MODERATE = 0.25
RANGE_SOURCE = "the range of normal numbers of float32 and bfloat16 (IEEE 754; subnormals are flushed by XLA)"

#: 1 - c may fall by exp(-6) from the first site to the last: random networks train down to a depth of about six
#: correlation lengths (Schoenholz et al. 2017), and 1 - c falls by a factor e in each.
COLLAPSE_LOG = -6.0
COLLAPSE_SOURCE = (
    "Schoenholz et al. 2017: networks train down to about six correlation lengths, exp(-6) in 1 - c"
)

#: The same share for the positions of one input.
RANK_SOURCE = (
    "the share at which inputs are said to collapse; that attention without skips loses rank with depth: Dong, "
    "Cordonnier & Loukas 2021; that it stops the gradients of queries and keys: Noci et al. 2022"
)

#: bfloat16 rounds with a relative error of up to u = 2^-8. Entries of two inputs differ, in rms and relative to
#: themselves, by sqrt(2 (1 - c)); below u most entries round to the same number.
BF16_ONE_MINUS_C = 2.0**-17
BF16_SOURCE = (
    "derivation: entries differ by sqrt(2 (1 - c)) of their rms, bfloat16 rounds by up to 2^-8: 1 - c = 2^-17"
)

#: Values of second moment 10^3 (`DECADES`) and more are beyond every nonlinearity with a flat side. An output of rms 10
#: already meets its loss: the cross entropy of n logits of rms s starts at about s sqrt(2 log n), instead of log n.
#: Where the weights of a layer amplify the rms by less than a factor 3, values of rms 30 had inputs of rms 10.
OUTPUT_DECADES = 2.0
AMPLIFIES = 3.0
LARGE_SOURCE = (
    "derivation: tanh is flat beyond 3, a logistic function beyond 6; the largest of n normal logits of rms s is about "
    "s sqrt(2 log n)"
)

#: Share of units off (or saturated) on every input. Symmetric pre-activations leave at most one half of the units
#: on the flat side of a one-sided nonlinearity, even if all inputs are equal: only biases or weights of nonzero
#: mean give more. At 3/4 half of the units that could be on are lost; at 0.95 nine in ten.
DEAD_SHARE = 0.75
DEAD_ERROR_SHARE = 0.95
DEAD_SOURCE = (
    "derivation: symmetric pre-activations leave at most 1/2 of the units off, 3/4 is half of the others lost as "
    "well; Lu, Shin, Su & Karniadakis 2020 on dying ReLU"
)

#: Share of units on a flat part of their nonlinearity whose value is not 0. Symmetric pre-activations of any scale
#: leave at most one half of them on the flat side of a one-sided nonlinearity (softplus, GELU): more than that is flat
#: on both sides, as tanh is beyond +-3 and the logistic function beyond +-6, and half of the units then pass less than
#: 1e-4 of a gradient's second moment. For normal pre-activations that is an rms of 4.4 before tanh, 8.9 before a gate.
SATURATED_SHARE = 0.5
SATURATED_SOURCE = (
    "derivation: more than 1/2 flat is flat on both sides, half of the units then pass less than 1e-4 of a gradient's "
    "second moment; Glorot & Bengio 2010 on saturation"
)

#: A layer disagrees with its neighbours if the step of log <z^2> into it is this many robust standard deviations
#: (1.4826 MAD, at least 0.1) from the median step, and more than a factor 10.
STEP_SCORE = 6.0
STEP_FACTOR = 10.0
STEP_SOURCE = "robust z-score (Iglewicz & Hoaglin 1993 use 3.5; 6 as every layer is tried) and a factor 10"

#: Relative gradient of a layer against the median layer: with one learning rate for all, a layer at 1/100 of the
#: others' learns a hundred times more slowly, one at 100 times sets the learning rate of all.
IMBALANCE = 100.0
IMBALANCE_SOURCE = (
    "derivation: with one learning rate a layer whose relative gradient is 100 times the median's decides it; "
    "You, Gitman & Ginsburg 2017 (LARS) on that ratio"
)

#: The optimizer's first step over the parameter: a step as long as the parameter itself replaces what was drawn. A
#: matrix whose relative step is 100 times above or below the median matrix's is judged as in `IMBALANCE`.
STEP_RATIO = 1.0
STEP_RATIO_SOURCE = (
    "derivation: a step as long as the parameter replaces what was drawn; relative steps of about 1e-3 are the rule of "
    "thumb (Karpathy, CS231n notes, 'Ratio of weights:updates')"
)

#: Units are copies of each other if the square of their mean makes up all but this share of their second moment.
IDENTICAL = 1e-4
IDENTICAL_SOURCE = "equal units have equal gradients and stay equal (Goodfellow et al. 2016, sec. 8.4)"

#: Standard deviation over seeds of a log second moment from which single networks differ by a factor 10.
SPREAD = math.log(10.0)
SPREAD_SOURCE = (
    "Hanin & Nica 2020: the log varies by about 5 depth / width in ReLU networks of any good scale"
)

EXACT_SOURCE = "exact: a zero, or what is no number, is seen and not estimated"
