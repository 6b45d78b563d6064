"""All metrics of a map. Each has one formula on the evidence and a card; the formulas are functions of plain arrays."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from seewhy.errors import one_line
from seewhy.explanation.curves import RemovalCurves
from seewhy.trust.metrics import map_metrics, removal_metrics, shared_masks, stability
from seewhy.trust.metrics.dimming import Dimming
from seewhy.trust.metrics.evidence import RANDOM_ORDERS, MapEvidence, as_array
from seewhy.trust.metrics.metric import Metric, MetricCard
from seewhy.trust.metrics.not_defined import NotDefined
from seewhy.trust.metrics.removal import STEPS
from seewhy.trust.metrics.shared_masks import SUBSETS

DEFAULT = ("srg", "single_deletion", "explained_fraction", "class_sensitivity")

ADDITIVE = ("cam", "gradcam", "hirescam", "xgradcam")  # methods whose values have the unit of the score
FLAT = "the score does not change when parts of the image are covered, or the map is the same in all units"
NO_DROP = "covering the entire image does not lower the score, or the map has no positive evidence"
DIM = "the image multiplied by a heatmap"


def removal(name: str, formula: Callable[[RemovalCurves], float], card: MetricCard) -> Metric:
    """Return a metric that reads the curves of the removal test."""
    passes, shared = 2 * (STEPS - 1), 2 + RANDOM_ORDERS * (STEPS - 1)
    return Metric(name, lambda m, filler: formula(m.curves(filler)), card, passes, shared, "removal", uses_filler=True)


def dimming(name: str, formula: Callable[[Dimming], float], card: MetricCard) -> Metric:
    """Return a metric that reads the probabilities of the dimmed image."""
    return Metric(name, lambda m, _: formula(m.dimming), card, passes=2)


def of_map(name: str, formula: Callable[[MapEvidence], float], card: MetricCard, passes: int = 0) -> Metric:
    """Return a metric without fillers."""
    return Metric(name, lambda m, _: formula(m), card, passes)


def single_deletion(m: MapEvidence, filler: str) -> float:
    return float(shared_masks.single_deletion(m.sums[None], m.image.single_drops(filler))[0])


def sensitivity_n(m: MapEvidence, filler: str) -> float:
    masks, drops = m.image.subset_drops(filler)
    return float(shared_masks.sensitivity_n(m.sums[None], drops, masks)[0])


def infidelity(m: MapEvidence, filler: str) -> float:
    masks, drops = m.image.subset_drops(filler)
    return float(shared_masks.infidelity(m.sums[None], drops, masks)[0])


def explained_fraction(m: MapEvidence) -> float:
    name = m.key[0].partition("(")[0]
    if name not in ADDITIVE:
        raise NotDefined(f"the values of {name} do not add up to the score: only those of {', '.join(ADDITIVE)} do")
    score = float(m.image.result.scores[m.image.image])
    return map_metrics.explained_fraction(as_array(m.signed), score, m.score_without_layer)


def class_sensitivity(m: MapEvidence) -> float:
    others = m.image.other_class
    if m.key not in others:
        raise NotDefined(f"method '{m.key[0]}' cannot be computed again for another class")
    return stability.class_sensitivity(m.signed, others[m.key][0])


def coherency(m: MapEvidence) -> float:
    return map_metrics.coherency(as_array(m.heatmap), m.dimmed_again)


def complexity(m: MapEvidence) -> float:
    return map_metrics.complexity(as_array(m.heatmap))


def adcc(m: MapEvidence) -> float:
    return map_metrics.adcc(coherency(m), complexity(m), m.dimming.average_drop)


def max_sensitivity(m: MapEvidence) -> float:
    return stability.max_sensitivity(m.again, m.image.removal.input)


def mprt(m: MapEvidence) -> float:
    return stability.rank_similarity(m.signed, random_map(m))


def efficient_mprt(m: MapEvidence) -> float:
    return stability.relative_entropy(m.signed, random_map(m))


def random_map(m: MapEvidence) -> Tensor:
    """Return the map of the model with random weights."""
    try:
        return m.with_model(stability.fully_random(m.image.repetition.model.module))
    except NotDefined:
        raise
    except Exception as error:  # model code may raise anything
        raise NotDefined(f"a copy of the model with random weights fails ({one_line(error)})") from None


def sparseness(m: MapEvidence) -> float:
    return map_metrics.sparseness(as_array(m.signed))


def entropy(m: MapEvidence) -> float:
    values = as_array(m.signed)
    return map_metrics.entropy(values) / float(torch.tensor(values.size).log())


PROBABILITY = "of the probability p (of the score, if the target is not a class)"
PER_FILLER = f"{2 * (STEPS - 1)} forward passes per map and filler"

METRICS: tuple[Metric, ...] = (
    removal("srg", removal_metrics.srg, MetricCard(
        f"area under the curve {PROBABILITY}, smallest values of the map covered first, minus largest first",
        "Bluecher et al., TMLR 2024", "higher", "0", f"{PER_FILLER}, shared with deletion, insertion, mas and road",
        "Its size depends on the filler: compare maps with the same one. It reads the order of the values only.",
        "the score is not a finite number",
    )),
    removal("deletion", removal_metrics.deletion, MetricCard(
        f"area under the curve {PROBABILITY}, largest values covered first", "Petsiuk et al., BMVC 2018", "lower",
        "area of random orders", f"{PER_FILLER}, shared with srg",
        "A filler that destroys the class lowers it for any map. The covered image is unlike the training images.",
        "the score is not a finite number",
    )),
    removal("insertion", removal_metrics.insertion, MetricCard(
        f"area under the curve {PROBABILITY}, largest values revealed first", "Petsiuk et al., BMVC 2018", "higher",
        "area of random orders", f"{PER_FILLER}, shared with srg",
        "It uses the filler of deletion, so that insertion - deletion = srg; RISE starts from a blurred image instead.",
        "the score is not a finite number",
    )),
    removal("road", removal_metrics.road, MetricCard(
        "mean of (smallest first - largest first) / 2 at 10, 20, ... 90 % covered", "Rong et al., ICML 2022", "higher", "0",
        f"{PER_FILLER}, shared with srg; the filler of the paper is 'linear'",
        "It rises if a map is blurred, although blurring adds no information: compare maps of equal smoothness.",
        "the score is not a finite number",
    )),
    removal("mas", removal_metrics.mas, MetricCard(
        "insertion - deletion, each corrected by its distance from the fraction of the map's positive values",
        "Walker et al., IJCAI 2024", "higher", "about 0", f"{PER_FILLER}, shared with srg",
        "Negative values count as 0. The curves are made monotone, which hides rebounds.", NO_DROP,
    )),
    Metric("single_deletion", single_deletion, MetricCard(
        "Spearman's correlation of the sum of the signed map in a unit with the drop of the log-odds if it is covered",
        "Hesse et al., NeurIPS 2024", "higher", "0 (standard deviation 0.14 for 7 x 7 units)",
        "49 forward passes per image, target and filler, shared by all maps",
        "Redundant evidence has no drop: covering one of two faces changes little.", FLAT,
    ), shared_passes=49, shares="single", uses_filler=True),
    Metric("sensitivity_n", sensitivity_n, MetricCard(
        "correlation of the sum of the map in half of the units with the drop of the log-odds, over random halves",
        "Ancona et al., ICLR 2018", "higher", "0",
        f"{SUBSETS} forward passes per image, target and filler, shared by all maps and with infidelity",
        "With half of the image covered, most scores are near those of a fully covered image.", FLAT,
    ), shared_passes=SUBSETS, shares="subsets", uses_filler=True),
    Metric("infidelity", infidelity, MetricCard(
        "1 - r |r|, with the uncentered correlation r of the sums of the map in random halves with the drops",
        "Yeh et al., NeurIPS 2019", "lower", "1",
        f"{SUBSETS} forward passes per image, target and filler, shared by all maps and with sensitivity_n",
        "With its best scale. A map that predicts the opposite has a value above 1; the original square hides that.", FLAT,
    ), shared_passes=SUBSETS, shares="subsets", uses_filler=True),
    dimming("average_drop", lambda d: d.average_drop, MetricCard(
        "max(0, p - p of the image times the heatmap) / p", "Chattopadhay et al., WACV 2018", "lower", "none",
        f"2 forward passes per map: {DIM}", "A map of ones has 0, the best value: large maps win.", "p is 0",
    )),
    dimming("increase", lambda d: d.increase, MetricCard(
        "1 if p of the image times the heatmap exceeds p, else 0", "Chattopadhay et al., WACV 2018", "higher", "none",
        "with average_drop", "Large maps win. Only its mean over images is informative.", "p is not a finite number",
    )),
    dimming("average_gain", lambda d: d.average_gain, MetricCard(
        "max(0, p of the image times the heatmap - p) / (1 - p)", "Zhang et al., CVIU 2024", "higher", "none",
        "with average_drop", "Large maps win. Methods that optimize this number win.", "p is 1",
    )),
    dimming("drop_in_deletion", lambda d: d.drop_in_deletion, MetricCard(
        "(p - p of the image times (1 - heatmap)) / p", "Jung and Oh, ICCV 2021", "higher", "none", "with average_drop",
        "Large maps win.", "p is 0",
    )),
    of_map("coherency", coherency, MetricCard(
        "(r + 1) / 2, with the correlation r of the heatmap and that of the dimmed image", "Poppi et al., CVPRW 2021",
        "higher", "0.5", "1 explanation per map", "A fixed pattern that ignores the image has 1.",
        "a heatmap is constant",
    ), passes=3),
    of_map("complexity", complexity, MetricCard(
        "mean of the heatmap in [0, 1]", "Poppi et al., CVPRW 2021", "neither", "none", "none",
        "It measures the marked area, and falls if a map is sharpened.", "the map has no positive evidence",
    )),
    of_map("adcc", adcc, MetricCard(
        "harmonic mean of coherency, 1 - complexity and 1 - average_drop", "Poppi et al., CVPRW 2021", "higher", "none",
        "as coherency and average_drop", "It mixes three unlike numbers, and rewards small and repeatable maps.",
        "one of its parts is not defined",
    ), passes=5),
    of_map("explained_fraction", explained_fraction, MetricCard(
        "sum of the signed map / (score - score with the layer set to zero); 1: the map accounts for the score",
        "Sundararajan et al., ICML 2017 (completeness)", "neither", "none; 1 is the aim", "1 forward pass per map",
        "Only for methods whose values have the unit of the score. It does not depend on positions.",
        "the score does not change if the layer is set to zero, or the values of the method do not add up",
    ), passes=1),
    of_map("class_sensitivity", class_sensitivity, MetricCard(
        "Spearman's correlation of the signed map with that of the most likely other class", "Sixt et al., ICML 2020",
        "lower", "1: the method ignores the class", "1 explanation per image and target, shared by all maps",
        "Similar classes share evidence, so a high value can be right.", "a map is constant",
    )),
    of_map("max_sensitivity", max_sensitivity, MetricCard(
        "largest |map(x + d) - map(x)| / |map(x)| for 10 random d, |d| <= 0.02 in units of the input",
        "Yeh et al., NeurIPS 2019", "lower", "none", "11 explanations per map",
        "A constant map has 0. It shows robustness, not truth.",
        "the map is all zeros",
    ), passes=33),
    of_map("mprt", mprt, MetricCard(
        "Spearman's correlation of the map with that of the model with random weights", "Adebayo et al., NeurIPS 2018",
        "lower", "1: the method ignores the weights", "1 explanation per map",
        "A necessary test, not a ranking: noise lowers it too. The curve over layers is stability.mprt in Python.",
        "a map is constant",
    ), passes=3),
    of_map("efficient_mprt", efficient_mprt, MetricCard(
        "relative rise of the entropy of the map's values with random weights", "Hedstroem et al., 2023", "higher", "0",
        "1 explanation per map", "A map that becomes blank has -1, the worst value, although it reacted.",
        "the map is constant",
    ), passes=3),
    of_map("sparseness", sparseness, MetricCard(
        "Gini index of the absolute values", "Chalasani et al., ICML 2020", "neither", "none", "none",
        "A single pixel wins. It depends on the resolution of the layer.", "the map is all zeros",
    )),
    of_map("entropy", entropy, MetricCard(
        "entropy of the absolute values / log(cells)", "Bhatt et al., IJCAI 2020", "neither", "none", "none",
        "A single pixel has 0, a uniform map 1: it is style, not quality.", "the map is all zeros",
    )),
)  # fmt: skip
