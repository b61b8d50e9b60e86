from __future__ import annotations

import numpy as np
import pytest

from velora_edge.train.objective import score

LOGITS = np.array(
    [
        [9, 1, 2, 3, 4, 5, 6],
        [1, 9, 2, 3, 4, 5, 6],
        [9, 1, 2, 3, 4, 5, 6],
        [6, 5, 4, 3, 2, 1, 9],
    ],
    np.float32,
)
TRUTH = np.array([0, 1, 3, 5], np.int64)


def test_top_1_and_top_5() -> None:
    # Ranks: 0, 0, 4 (9, 6, 5, 4 before it), 6.
    found = score(LOGITS, TRUTH)
    assert (found.clips, found.top1, found.top5) == (4, 0.5, 0.75)


def test_the_confusion_matrix_counts_true_by_told() -> None:
    expected = np.zeros((7, 7), np.int64)
    expected[0, 0] = expected[1, 1] = expected[3, 0] = expected[5, 6] = 1
    np.testing.assert_array_equal(score(LOGITS, TRUTH).confusion, expected)


def test_the_loss_is_the_mean_cross_entropy_and_does_not_overflow() -> None:
    found = score(np.array([[1000.0, 0.0], [0.0, 0.0]], np.float32), np.array([0, 1]))
    assert found.loss == pytest.approx(np.log(2) / 2)


def test_a_tie_is_not_a_hit() -> None:
    assert score(np.zeros((2, 3), np.float32), np.array([0, 1])).top1 == 0.0


def test_recall_and_precision_by_class() -> None:
    found = score(np.eye(3, dtype=np.float32)[[0, 0, 1]], np.array([0, 1, 1])).per_class(("a", "b", "c"))
    assert found == {
        "a": {"clips": 1, "recall": 1.0, "precision": 0.5},
        "b": {"clips": 2, "recall": 0.5, "precision": 1.0},
        "c": {"clips": 0, "recall": None, "precision": None},
    }


@pytest.mark.parametrize("labels", [[], [0, 7, 0, 0], [0, -1, 0, 0], [0, 0]])
def test_labels_that_do_not_fit_are_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="expected labels below 7"):
        score(LOGITS[: 0 if not labels else 4], np.array(labels, np.int64))
