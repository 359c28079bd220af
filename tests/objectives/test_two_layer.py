from __future__ import annotations

import numpy as np
import pytest

from fedpref.maths import flute
from fedpref.objectives.margin import mean_loss
from fedpref.objectives.selector import right_margins, scores, slot_biases
from fedpref.objectives.two_layer import (
    Classifier,
    Layer,
    Network,
    Penalties,
    activations,
    both_logits,
    classifier_gradient,
    collapse_gradient,
    fitted,
    network_gradient,
    trained,
)
from fedpref.seeds import generator

DIM, WIDTH, PAIRS = 5, 3, 20
NO_PENALTIES = Penalties(0.0, 0.0, 0.0)
ALL_PENALTIES = Penalties(0.25, 0.1, 0.05)


def some_network(seed: int = 0) -> Network:
    rng = generator(seed, "network")
    layer = Layer(rng.normal(0, 0.5, (WIDTH, DIM)), rng.normal(0, 0.5, WIDTH))
    return Network(layer, Classifier(rng.standard_normal((2, WIDTH)), rng.normal(0, 0.3, 2)))


def some_sides(seed: int = 0, num_pairs: int = PAIRS) -> tuple[np.ndarray, np.ndarray]:
    chosen, rejected = generator(seed, "sides").standard_normal((2, num_pairs, DIM))
    return chosen, rejected


def features_of(layer: Layer, sides: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    features: np.ndarray = activations(layer, sides[0]) - activations(layer, sides[1])
    return features


def objective(network: Network, sides: tuple[np.ndarray, np.ndarray], penalties: Penalties) -> float:
    features, rows = features_of(network.layer, sides), network.classifier.rows
    loss = mean_loss(right_margins(both_logits(network.classifier, features)))
    regularisers = (flute.collapse_defect(rows), np.sum(rows**2), np.mean(np.sum(features**2, axis=1)))
    return float(loss + np.dot(penalties, regularisers))


@pytest.mark.parametrize("penalties", [NO_PENALTIES, ALL_PENALTIES])
def test_gradients_are_those_of_the_whole_objective(penalties: Penalties) -> None:
    network, sides, width = some_network(), some_sides(), 1e-6
    gradient = network_gradient(network, *sides, penalties)
    for part, field in ((0, 0), (0, 1), (1, 0), (1, 1)):
        for index in np.ndindex(network[part][field].shape):
            nudge = np.zeros_like(network[part][field])
            nudge[index] = width
            ends = []
            for sign in (1, -1):
                parts = [list(layer) for layer in network]
                parts[part][field] = parts[part][field] + sign * nudge
                moved = Network(Layer(*parts[0]), Classifier(*parts[1]))
                ends.append(objective(moved, sides, penalties))
            slope = (ends[0] - ends[1]) / (2 * width)
            assert gradient[part][field][index] == pytest.approx(slope, abs=1e-8)


def test_with_the_layer_frozen_the_classifiers_gradient_is_the_same() -> None:
    network, sides = some_network(), some_sides()
    alone = classifier_gradient(network.classifier, features_of(network.layer, sides), ALL_PENALTIES)
    for one, other in zip(alone, network_gradient(network, *sides, ALL_PENALTIES).classifier, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-15)


def test_steps_are_those_of_torch_on_both_orders() -> None:
    """Against autograd: labels A in one order and B in the other, two-way cross entropy."""
    torch = pytest.importorskip("torch")
    network, (chosen, rejected), lr = some_network(), some_sides(), 0.1
    arrays = [array for part in network for array in part]
    v, c, w, beta = (torch.tensor(array, requires_grad=True) for array in arrays)
    a, b = torch.tensor(chosen), torch.tensor(rejected)
    target = torch.tensor([[0.5, -0.5], [-0.5, 0.5]], dtype=torch.float64)
    labels = torch.tensor([0] * PAIRS + [1] * PAIRS)
    optimiser = torch.optim.SGD([v, c, w, beta], lr=lr)
    for step in range(7):
        optimiser.zero_grad()
        phi_a, phi_b = (torch.tanh(side @ v.T + c) for side in (a, b))
        f = torch.cat([phi_a - phi_b, phi_b - phi_a])
        gram = w @ w.T
        loss = torch.nn.functional.cross_entropy(f @ w.T + beta, labels)
        loss = loss + ALL_PENALTIES.collapse * torch.linalg.norm(gram / torch.linalg.norm(gram) - target)
        loss = loss + ALL_PENALTIES.rows * w.square().sum()
        if step >= 3:
            loss = loss + ALL_PENALTIES.features * f.square().sum(dim=1).mean()
        loss.backward()
        if step < 3:  # the head alone, first
            v.grad = c.grad = None
        optimiser.step()
    features = features_of(network.layer, (chosen, rejected))
    rng = generator(0, "batches")
    own, _ = fitted(network.classifier, features, 3, None, lr, ALL_PENALTIES, rng)
    found, _ = trained(Network(network.layer, own), chosen, rejected, 4, None, lr, ALL_PENALTIES, 0.0, rng)
    for ours, theirs in zip([array for part in found for array in part], (v, c, w, beta), strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-12)


def test_swapping_the_responses_negates_the_score_and_keeps_the_bias() -> None:
    network, (chosen, rejected) = some_network(), some_sides()
    one, other = (
        both_logits(network.classifier, features_of(network.layer, sides))
        for sides in ((chosen, rejected), (rejected, chosen))
    )
    np.testing.assert_allclose(scores(one), -scores(other), atol=1e-15)
    bias = network.classifier.biases[0] - network.classifier.biases[1]
    np.testing.assert_allclose(slot_biases(one), bias)
    np.testing.assert_allclose(slot_biases(other), bias)


def test_no_liking_for_a_slot_arises_and_one_that_came_fades() -> None:
    network, sides, rng = some_network(), some_sides(), generator(0, "batches")
    for start in (0.0, 1.0):
        classifier = Classifier(network.classifier.rows, np.array([start, -start]))
        found, _ = trained(Network(network.layer, classifier), *sides, 300, None, 0.3, NO_PENALTIES, 0.0, rng)
        bias = found.classifier.biases[0] - found.classifier.biases[1]
        assert bias == 0 if start == 0 else abs(bias) < 1.0


# -------------------------------------------------------------------------------- neural collapse


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e2])
def test_for_two_rows_the_closed_form_is_the_servers_gradient(seed: int, scale: float) -> None:
    rows = scale * generator(seed, "rows").standard_normal((2, WIDTH))
    np.testing.assert_allclose(collapse_gradient(rows), flute.collapse_gradient(rows), rtol=1e-9)


def test_close_to_collapse_the_closed_form_is_still_right() -> None:
    """For s along d, NC = sqrt(2) |s| / |d| up to higher orders, so its gradient by s is sqrt(2) / |d|."""
    row = np.array([2.0, 0.0, 0.0])
    for size in (1e-3, 1e-8, 1e-12):
        gradient = collapse_gradient(np.stack([row + size * row, -row + size * row]))
        np.testing.assert_allclose(gradient.sum(axis=0), [np.sqrt(2) / 2, 0, 0], atol=1e-5)


@pytest.mark.parametrize(
    "rows", [np.array([[1.0, 2.0], [-1.0, -2.0]]), np.array([[1.0, 2.0], [1.0, 2.0]]), np.zeros((2, 2))]
)
def test_opposite_equal_and_zero_rows_are_left(rows: np.ndarray) -> None:
    assert not collapse_gradient(rows).any()


def test_what_collapse_penalises_no_answer_depends_on() -> None:
    """A common part changes NC and no logit; where there is none, the regulariser changes no step."""
    network, sides = some_network(), some_sides()
    features, rows = features_of(network.layer, sides), network.classifier.rows
    shifted = Classifier(rows + 1.0, network.classifier.biases)
    np.testing.assert_allclose(both_logits(shifted, features), both_logits(network.classifier, features))
    assert flute.collapse_defect(rows + 1.0) != pytest.approx(flute.collapse_defect(rows), abs=0.1)

    opposite = Classifier(np.stack([rows[0], -rows[0]]), np.zeros(2))
    found = [
        fitted(opposite, features, 50, 4, 0.3, Penalties(weight, 0.1, 0.0), generator(0, "batches"))[0]
        for weight in (0.0, 0.25)
    ]
    np.testing.assert_array_equal(found[0].rows, found[1].rows)


def test_the_rows_become_opposite() -> None:
    network, (left, right) = some_network(), some_sides()
    likes_left = (left - right)[:, :1] > 0
    sides = np.where(likes_left, left, right), np.where(likes_left, right, left)
    features = features_of(network.layer, sides)
    defects = [
        flute.collapse_defect(
            fitted(
                network.classifier, features, 1000, None, 0.05, Penalties(w, 0, 0), generator(0, "batches")
            )[0].rows
        )
        for w in (0.0, 0.25)
    ]
    assert defects[1] < 0.05 < defects[0]


# ------------------------------------------------------------------------------------------ steps


def test_the_pull_holds_the_layer_and_not_the_head() -> None:
    network, sides = some_network(), some_sides()
    moved = []
    for mu in (0.0, 1.0, 8.0):
        found, _ = trained(network, *sides, 60, None, 0.1, NO_PENALTIES, mu, generator(0, "batches"))
        moved.append([np.linalg.norm(found[part][0] - network[part][0]) for part in (0, 1)])
    layers, heads = np.transpose(moved)
    assert layers[0] > layers[1] > layers[2] > 0
    assert heads[2] > heads[0] / 2


def test_steps_that_are_not_finite_are_skipped_and_counted() -> None:
    network, (chosen, rejected) = some_network(), some_sides()
    chosen[3] = np.nan
    rng = generator(0, "batches")
    found, steps = trained(network, chosen, rejected, PAIRS, 1, 0.1, ALL_PENALTIES, 0.5, rng)
    assert steps == (1, PAIRS)
    assert all(np.isfinite(array).all() for part in found for array in part)
    features = features_of(network.layer, (chosen, rejected))
    own, steps = fitted(network.classifier, features, PAIRS, 1, 0.1, ALL_PENALTIES, rng)
    assert steps == (1, PAIRS) and np.isfinite(own.rows).all()


def test_nothing_handed_in_is_changed() -> None:
    network, sides = some_network(), some_sides()
    copies = [array.copy() for part in network for array in part] + [side.copy() for side in sides]
    rng = generator(0, "batches")
    fitted(network.classifier, features_of(network.layer, sides), 3, 4, 0.1, ALL_PENALTIES, rng)
    trained(network, *sides, 3, 4, 0.1, ALL_PENALTIES, 0.5, rng)
    for copy, array in zip(copies, [array for part in (*network, sides) for array in part], strict=True):
        np.testing.assert_array_equal(copy, array)
