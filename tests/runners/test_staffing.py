"""Why a cluster has no worker for a run, in words and numbers, and what to do about it."""

import pytest

from depthsieve.runners.staffing import ClusterOffer, Need, why_no_worker

ROOMY = ClusterOffer(((16, 4),))


def test_what_a_cluster_has_room_for() -> None:
    offer = ClusterOffer(((8, 0), (16, 4), (2, 1)))
    assert offer.workers(4, gpu=False) == 2 + 4
    assert offer.workers(2, gpu=True) == 4 + 1
    assert offer.workers(64, gpu=False) == 1


@pytest.mark.parametrize(
    ("nodes", "free", "need", "shortage"),
    [
        (((16, 4),), None, Need(16, 1.0), ""),
        (((16, 4),), ((16.0, 4.0),), Need(16, 4.0), ""),
        (((2, 0), (0, 0)), None, Need(2, 0.0), ""),
        (
            ((2, 0), (4, 0), (0, 0)),
            None,
            Need(16, 0.0),
            "each needs 16 CPUs, and the largest of 3 nodes has 4 CPUs; --threads 4 would fit",
        ),
        (
            ((32, 0), (4, 2)),
            None,
            Need(8, 1.0),
            "each needs 8 CPUs and 1 GPU, and the largest of 2 nodes has 4 CPUs and 2 GPUs; --threads 4 would fit",
        ),
        (
            ((32, 0),),
            None,
            Need(8, 0.5),
            "each needs 8 CPUs and 0.5 GPUs, and the largest of 1 node has 32 CPUs and 0 GPUs; "
            "--device cpu labels without GPUs",
        ),
        (
            ((0, 0),),
            None,
            Need(1, 0.0),
            "each needs 1 CPU, and the cluster has no CPUs (1 node)",
        ),
        (
            ((4, 1), (4, 0)),
            ((1.0, 0.0), (3.5, 0.0)),
            Need(2, 1.0),
            "each needs 2 CPUs and 1 GPU, and no node has more than 3.5 CPUs and 0 GPUs free: others use this cluster",
        ),
    ],
)
def test_what_is_short(
    nodes: tuple[tuple[int, int], ...], free: tuple[tuple[float, float], ...] | None, need: Need, shortage: str
) -> None:
    assert ClusterOffer(nodes, free).shortage(need) == shortage


@pytest.mark.parametrize(
    ("nodes", "need", "can"),
    [
        (((0, 0),), Need(4, 0.0), False),
        (((0, 0), (1, 0)), Need(4, 0.0), True),  # too few CPUs is for the run to tell of: those can be chosen
        (((8, 0),), Need(1, 1.0), False),
        (((8, 0), (8, 1)), Need(1, 1.0), True),
        (((0, 1),), Need(1, 1.0), False),
    ],
)
def test_whether_any_node_could_have_a_worker(nodes: tuple[tuple[int, int], ...], need: Need, can: bool) -> None:
    assert ClusterOffer(nodes).can_work(need) is can


def test_what_is_known_best_is_said() -> None:
    need = Need(1, 0.0)
    places = ["node 10.0.0.1, process 7", "node 10.0.0.2, process 8"]
    assert why_no_worker(ROOMY, need, places[:1], places, "") == "the one on node 10.0.0.1, process 7 loads the teacher"
    unsure = "the one on node 10.0.0.1, process 7 (and 1 more) cannot be reached, and Ray finds out whether it lives"
    assert why_no_worker(ROOMY, need, [], places, "low on memory") == unsure
    assert why_no_worker(ROOMY, need, [], [], "") == "Ray is starting one"
    assert why_no_worker(ROOMY, need, [], [], "low on memory") == (
        "Ray is starting one; the last one ended: low on memory"
    )
    small = "each needs 32 CPUs, and the largest of 1 node has 16 CPUs and 4 GPUs; --threads 16 would fit"
    assert why_no_worker(ROOMY, Need(32, 0.0), [], [], "its node died") == f"{small}; the last one ended: its node died"
