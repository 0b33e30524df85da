"""The trim by region, with weights, protected pixels and a warm-up; and the search for its threshold."""

import copy
import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from depthsieve.core.errors import UsageError
from depthsieve.reliability.masking import drop_count
from depthsieve.training.losses import TrimmedLoss
from depthsieve.training.losses.threshold import COUNTABLE, SHORT_ROW, countable_fraction, floor_share, kth_largest

DROPS = [0.0, 0.1, 0.25, 0.34, 0.5, 0.9]


def rand(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def kept_by_definition(
    loss: np.ndarray, valid: np.ndarray, protect: np.ndarray, drop: float, scope: str, side: int
) -> np.ndarray:
    """The trim of [B,H,W] in plain loops, as the docstring words it."""
    keep = valid.copy()
    images = range(len(loss))
    for scope_images in [[b] for b in images] if scope == "image" else [list(images)]:
        patches, n = [], 0  # each patch: its mean, and its pixels that may go
        for b, top, left in product(scope_images, range(0, loss.shape[1], side), range(0, loss.shape[2], side)):
            rows, columns = range(top, min(top + side, loss.shape[1])), range(left, min(left + side, loss.shape[2]))
            pixels = [(b, row, column) for row, column in product(rows, columns) if valid[b, row, column]]
            n += bool(pixels)
            free = [pixel for pixel in pixels if not protect[pixel]]
            if free:
                patches.append((np.float32(sum(loss[pixel] for pixel in free)) / np.float32(len(free)), free))
        k = min(drop_count(drop, n), len(patches))
        if k == 0:
            continue
        v = sorted((mean for mean, _ in patches), reverse=True)[k - 1]
        for pixel in (pixel for mean, free in patches if mean >= v for pixel in free):
            keep[pixel] = False
        if not keep[scope_images].any():
            keep[scope_images] = valid[scope_images]
    return keep


@settings(deadline=None, max_examples=150)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    seed=st.integers(0, 10_000),
    levels=st.integers(1, 40),
    valid_share=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    protect_share=st.sampled_from([0.0, 0.2, 0.7, 1.0]),
    drop=st.sampled_from(DROPS),
    scope=st.sampled_from(["image", "batch", "global"]),
    region=st.sampled_from([None, 1, 2, 3, 9]),
)
def test_pixels_and_patches_go_as_the_definition_says(
    shape: tuple[int, int, int],
    seed: int,
    levels: int,
    valid_share: float,
    protect_share: float,
    drop: float,
    scope: str,
    region: int | None,
) -> None:
    random = np.random.default_rng(seed)
    loss = random.integers(0, levels, shape).astype(np.float32)
    valid, protect = random.random(shape) < valid_share, random.random(shape) < protect_share
    expected = kept_by_definition(loss, valid, protect, drop, scope, region or 1)
    spoiled = np.where(valid, loss, np.nan)
    trimmed = TrimmedLoss(drop, scope, region)  # type: ignore[arg-type]
    arguments = torch.from_numpy(spoiled), torch.from_numpy(valid), torch.from_numpy(protect)
    assert np.array_equal(trimmed.keep_mask(*arguments).numpy(), expected)
    weight = torch.from_numpy(random.random(shape).astype(np.float32))
    plain = trimmed(arguments[0], arguments[1], None, arguments[2])
    assert plain.item() == pytest.approx(loss[expected].mean() if expected.any() else 0.0, rel=1e-5)
    weighted = trimmed(arguments[0], arguments[1], weight, arguments[2])
    mean = np.average(loss[expected], weights=weight.numpy()[expected]) if expected.any() else 0.0
    assert weighted.item() == pytest.approx(mean, rel=1e-5)


# Regions


def test_the_patch_with_the_highest_mean_goes_whole() -> None:
    loss = torch.zeros(1, 28, 42)
    loss[0, 14:28, 14:28] = 1.0
    loss[0, 0, 0] = 100.0  # the highest pixel; its patch has a mean of 100 / 196
    keep = TrimmedLoss(0.2, region=14).keep_mask(loss)
    assert (~keep).nonzero()[[0, -1]].tolist() == [[0, 14, 14], [0, 27, 27]]
    assert int((~keep).sum()) == 14 * 14
    assert int((~TrimmedLoss(0.34, region=14).keep_mask(loss)).sum()) == 2 * 14 * 14


def test_small_patches_at_the_border_count_as_one_each() -> None:
    loss = torch.zeros(1, 5, 5)  # nine patches: one of a pixel, the last, two columns and two rows, four of 2 x 2
    loss[0, 4, 4] = 3.0
    assert (~TrimmedLoss(0.12, region=2).keep_mask(loss)).nonzero().tolist() == [[0, 4, 4]]
    assert TrimmedLoss(0.11, region=2).keep_mask(loss).all()  # floor(0.11 * 9) = 0


def test_a_patch_is_judged_by_its_valid_pixels_and_counts_only_if_it_has_one() -> None:
    loss = torch.tensor([[[9.0, 0.0, 5.0, 5.0, 1.0, 1.0, 2.0, 2.0]]])
    valid = torch.tensor([[[True, False, True, True, True, True, False, False]]])
    keep = TrimmedLoss(0.34, region=2).keep_mask(loss, valid)
    assert keep[0, 0].tolist() == [False, False, True, True, True, True, False, False]
    assert TrimmedLoss(0.3, region=2).keep_mask(loss, valid)[0, 0, 0]  # 0.3 * 3 patches: none goes


def test_a_region_takes_maps_with_an_axis_of_one_channel() -> None:
    loss, valid = rand(0, 2, 1, 9, 11), rand(1, 2, 1, 9, 11) < 0.8
    trimmed = TrimmedLoss(0.3, region=4)
    assert torch.equal(trimmed.keep_mask(loss, valid)[:, 0], trimmed.keep_mask(loss[:, 0], valid[:, 0]))
    assert trimmed(loss, valid).item() == trimmed(loss[:, 0], valid[:, 0]).item()


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4, 5), (2, 1, 1, 4, 5)])
def test_a_region_refuses_what_is_no_map(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"losses of \[B,H,W\] or \[B,1,H,W\], not \["):
        TrimmedLoss(region=2)(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(0, 5, 6), (2, 0, 6), (2, 1, 5, 0)])
@pytest.mark.parametrize("scope", ["image", "batch"])
def test_maps_without_pixels_have_no_patches(shape: tuple[int, ...], scope: str) -> None:
    loss = torch.zeros(shape, requires_grad=True)
    value = TrimmedLoss(0.5, scope, region=2)(loss)  # type: ignore[arg-type]
    value.backward()
    assert value.item() == 0.0
    assert loss.grad is not None and loss.grad.shape == shape


def test_a_nan_in_a_patch_stays_in_sight() -> None:
    loss = torch.zeros(1, 4, 4)
    loss[0, 0, 0] = math.nan
    assert math.isnan(TrimmedLoss(0.5, region=2)(loss).item())


# Weights and protected pixels


def test_the_weight_counts_in_the_mean_and_not_in_the_order() -> None:
    loss = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    weight = torch.tensor([[100.0, 1.0, 2.0, 0.0]])
    assert TrimmedLoss(0.25)(loss, weight=weight).item() == pytest.approx((100 + 2 + 6) / 103)
    assert TrimmedLoss(0.5)(loss, weight=weight).item() == pytest.approx((100 + 2) / 101)
    assert TrimmedLoss(0.0)(loss, weight=weight).item() == pytest.approx((100 + 2 + 6) / 103)


def test_equal_weights_change_nothing_and_one_of_size_1_is_spread() -> None:
    loss = rand(2, 2, 3, 4)
    plain = TrimmedLoss(0.3)(loss)
    torch.testing.assert_close(TrimmedLoss(0.3)(loss, weight=torch.full((2, 3, 4), 0.25)), plain)
    torch.testing.assert_close(TrimmedLoss(0.3)(loss, weight=torch.ones(1, 1, 1, dtype=torch.float16)), plain)


def test_a_weight_gets_no_gradient_and_what_it_holds_at_other_pixels_reaches_none() -> None:
    loss = torch.tensor([[1.0, 2.0, 9.0, 3.0]], requires_grad=True)
    weight = torch.tensor(
        [[1.0, 3.0, math.inf, math.nan]], requires_grad=True
    )  # the third is trimmed, the last invalid
    value = TrimmedLoss(0.34)(loss, torch.tensor([[True, True, True, False]]), weight)
    value.backward()
    assert value.item() == 7 / 4
    assert loss.grad is not None
    assert loss.grad.tolist() == [[0.25, 0.75, 0.0, 0.0]]
    assert weight.grad is None


def test_weights_of_0_give_0_and_gradients_of_0() -> None:
    loss = rand(3, 2, 5).requires_grad_()
    value = TrimmedLoss()(loss, weight=torch.zeros(2, 5))
    value.backward()
    assert value.item() == 0.0
    assert loss.grad is not None and not loss.grad.any()


def test_small_weights_are_divided_by_their_sum_and_not_by_1() -> None:
    loss = torch.tensor([[2.0, 4.0]])
    assert TrimmedLoss(0.0)(loss, weight=torch.full((1, 2), 1e-6)).item() == pytest.approx(3.0)


def test_protected_pixels_stay_and_the_others_go_in_their_place() -> None:
    loss = torch.arange(1.0, 11.0).view(1, 10)
    protect = loss >= 9
    keep = TrimmedLoss(0.2).keep_mask(loss, protect=protect)  # 2 of all 10 go: the highest of the other 8
    assert keep[0].tolist() == [True] * 6 + [False] * 2 + [True] * 2
    assert TrimmedLoss(0.2)(loss, protect=protect).item() == (1 + 2 + 3 + 4 + 5 + 6 + 9 + 10) / 8


def test_where_fewer_are_unprotected_than_should_go_all_of_them_go() -> None:
    loss = torch.arange(1.0, 11.0).view(1, 10)
    assert TrimmedLoss(0.5).keep_mask(loss, protect=loss >= 4)[0].tolist() == [False] * 3 + [True] * 7
    assert TrimmedLoss(0.5).keep_mask(loss, protect=loss >= 0).all()
    assert not TrimmedLoss(0.1).keep_mask(loss * 0, protect=loss >= 9)[0, :8].any()  # they tie, and something is left


def test_what_is_protected_and_invalid_is_invalid() -> None:
    loss = torch.tensor([[1.0, 2.0, 3.0, math.nan]])
    valid = torch.tensor([[True, True, True, False]])
    assert TrimmedLoss(0.34)(loss, valid, protect=~valid).item() == 1.5


def test_a_protected_pixel_outlives_its_patch_and_has_no_say_in_it() -> None:
    loss = torch.tensor([[[1.0, 99.0, 3.0, 3.0, 2.0, 2.0]]])
    protect = loss == 99
    keep = TrimmedLoss(0.34, region=2).keep_mask(loss, protect=protect)
    assert keep[0, 0].tolist() == [True, True, False, False, True, True]
    keep = TrimmedLoss(0.67, region=2).keep_mask(torch.where(protect, loss, 5 - loss), protect=protect)
    assert keep[0, 0].tolist() == [False, True, True, True, False, False]


# Warm-up


def test_the_share_rises_call_by_call_and_then_stays() -> None:
    loss = torch.arange(100.0).view(1, 100)
    trimmed = TrimmedLoss(0.20, warmup=4)
    counts = []
    for _ in range(7):
        counts.append(100 - int(trimmed.keep_mask(loss).sum()))
        highest = 99 - counts[-1]
        assert trimmed(loss).item() == pytest.approx(highest / 2)
    assert counts == [0, 5, 10, 15, 20, 20, 20]


def test_calls_in_evaluation_mode_are_not_counted() -> None:
    trimmed = TrimmedLoss(0.20, warmup=4)
    loss = torch.arange(100.0).view(1, 100)
    trimmed(loss), trimmed(loss)
    trimmed.eval()
    assert [trimmed(loss).item() for _ in range(3)] == pytest.approx([89 / 2] * 3)
    trimmed.train()
    assert [trimmed(loss).item() for _ in range(2)] == pytest.approx([89 / 2, 84 / 2])


def test_the_count_of_calls_is_saved_and_training_goes_on_from_it() -> None:
    loss = torch.arange(100.0).view(1, 100)
    trimmed = TrimmedLoss(0.20, warmup=4)
    for _ in range(3):
        trimmed(loss)
    state = copy.deepcopy(trimmed.state_dict())
    assert {name: int(value) for name, value in state.items()} == {"calls": 3}
    resumed = TrimmedLoss(0.20, warmup=4)
    resumed.load_state_dict(state)
    assert [resumed(loss).item() for _ in range(2)] == [trimmed(loss).item() for _ in range(2)]
    shorter = TrimmedLoss(0.20, warmup=2)
    shorter.load_state_dict(state)
    assert int(shorter.keep_mask(loss).sum()) == 80


def test_drop_can_be_set_anew() -> None:
    loss = torch.arange(100.0).view(1, 100)
    trimmed = TrimmedLoss(0.10)
    trimmed.drop = 0.25
    assert trimmed.drop == 0.25
    assert int(trimmed.keep_mask(loss).sum()) == 75
    with pytest.raises(UsageError, match="drop must be"):
        trimmed.drop = 1.0
    assert trimmed.drop == 0.25


# The threshold


@settings(deadline=None, max_examples=200)
@given(drop=st.floats(0, 1, exclude_max=True), n=st.integers(0, COUNTABLE))
@example(drop=0.1 + 0.2, n=10**12)
@example(drop=0.9999999999999999, n=COUNTABLE)
@example(drop=0.3333333333333333, n=3 * 10**11)
@example(drop=0.29, n=100)
@example(drop=5e-324, n=COUNTABLE)
def test_a_share_is_counted_on_the_device_as_it_is_in_python(drop: float, n: int) -> None:
    p, q = countable_fraction(drop)
    assert 0 <= p < q <= COUNTABLE
    assert floor_share(torch.tensor([n, 7]), p, q).tolist() == [drop_count(drop, n), drop_count(drop, 7)]


@pytest.mark.parametrize("total", [None, lambda numbers: numbers], ids=["short digits", "long digits"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_the_kth_largest_is_that_of_a_sort(
    dtype: torch.dtype, total: Callable[[torch.Tensor], torch.Tensor] | None, data: st.DataObject
) -> None:
    width = 32 if dtype == torch.float32 else 64
    floats = st.floats(width=width, allow_nan=False) | st.sampled_from([0.0, -0.0, 1.0, math.inf, -math.inf])
    rows = 1 if total else data.draw(st.integers(1, 3))
    length = data.draw(st.integers(1, 8))
    values = [data.draw(st.lists(floats, min_size=length, max_size=length)) for _ in range(rows)]
    chosen = [data.draw(st.lists(st.booleans(), min_size=length, max_size=length)) for _ in range(rows)]
    k = data.draw(st.integers(0, length))
    value_RN, chosen_RN = torch.tensor(values, dtype=dtype), torch.tensor(chosen)
    found = kth_largest(value_RN, chosen_RN, torch.full((rows,), k), lambda n: n, total)
    for row, row_chosen, v in zip(value_RN, chosen_RN, found, strict=True):
        wanted = sorted(row[row_chosen].tolist(), reverse=True)
        if k and wanted:
            assert v.item() == wanted[min(k, len(wanted)) - 1]
        else:
            assert math.isnan(v.item())


def test_long_rows_have_thresholds_of_their_own() -> None:
    values = torch.stack([rand(4, SHORT_ROW), -100 * rand(5, SHORT_ROW), rand(6, SHORT_ROW).round()])
    chosen = rand(7, 3, SHORT_ROW) < 0.5
    k = torch.tensor([1, 7000, 12_000])
    found = kth_largest(values, chosen, k, lambda n: n)
    for row in range(3):
        assert found[row] == values[row][chosen[row]].sort(descending=True).values[k[row] - 1]


def test_a_wrong_argument_is_refused_in_one_line() -> None:
    for arguments, message in [
        ({"scope": "ranks"}, "'image', 'batch' or 'global', not 'ranks'"),
        ({"region": 0}, "1 pixel or more, or None, not 0"),
        ({"region": 3.5}, "not 3.5"),
        ({"warmup": -1}, "0 or more, not -1"),
        ({"group": object()}, "for scope 'global', not 'image'"),
    ]:
        with pytest.raises(UsageError, match=message) as caught:
            TrimmedLoss(**arguments)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"a weight of shape \[2\] does not fit values of \[2, 3\]"):
        TrimmedLoss()(torch.zeros(2, 3), weight=torch.ones(2))
    with pytest.raises(UsageError, match=r"a protect mask of shape \[3, 3\] does not fit values of \[2, 3\]"):
        TrimmedLoss()(torch.zeros(2, 3), protect=torch.ones(3, 3, dtype=torch.bool))


def test_what_is_set_shows() -> None:
    assert repr(TrimmedLoss(0.2, region=14)) == "TrimmedLoss(drop=0.2, scope='image', region=14)"
    assert repr(TrimmedLoss(0.2, "global", warmup=9)) == "TrimmedLoss(drop=0.2, scope='global', warmup=9)"


# How it runs


def test_it_compiles_as_one_graph() -> None:
    trimmed = TrimmedLoss(0.2, "batch", region=3, warmup=3)
    compiled = torch.compile(copy.deepcopy(trimmed), fullgraph=True, backend="aot_eager")
    valid, weight = rand(8, 2, 10, 10) < 0.9, rand(9, 2, 10, 10)
    for seed in range(3):
        one, other = rand(seed, 2, 10, 10).requires_grad_(), rand(seed, 2, 10, 10).requires_grad_()
        value, compiled_value = trimmed(one, valid, weight, valid), compiled(other, valid, weight, valid)
        value.backward(), compiled_value.backward()
        assert compiled_value.item() == value.item()
        assert one.grad is not None and other.grad is not None
        assert torch.equal(other.grad, one.grad)


@pytest.mark.parametrize("region", [None, 4])
def test_under_autocast_and_deterministic_algorithms_nothing_changes(region: int | None) -> None:
    loss, weight = rand(10, 2, 20, 20).bfloat16(), rand(11, 2, 20, 20).bfloat16()
    trimmed = TrimmedLoss(0.2, region=region)
    plain = trimmed(loss, weight=weight)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            value = trimmed(loss, weight=weight)
    finally:
        torch.use_deterministic_algorithms(False)
    assert value.dtype == torch.float32
    assert value.item() == plain.item()


def test_inputs_are_left_as_they_are_whatever_their_strides() -> None:
    loss, valid, weight = (
        rand(12, 5, 6, 2).permute(2, 0, 1),
        rand(13, 6, 5, 2).permute(2, 1, 0) < 0.8,
        rand(14, 1, 1, 6),
    )
    before = loss.clone(), valid.clone(), weight.clone()
    value = TrimmedLoss(0.3, region=2)(loss, valid, weight, ~valid)
    assert all(torch.equal(*pair) for pair in zip((loss, valid, weight), before, strict=True))
    assert value.item() == TrimmedLoss(0.3, region=2)(*(tensor.contiguous() for tensor in before)).item()
