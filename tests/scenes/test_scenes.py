"""Scenes: determinism, exact depth against an independent check, and what light, patterns and noise do."""

from __future__ import annotations

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from depthsieve.scenes import FAMILIES, KINDS, render_scene, render_scenes
from depthsieve.scenes.building import build
from depthsieve.scenes.shading import paint
from depthsieve.scenes.solids import (
    BALL,
    BOX,
    CHECKER,
    GROUND,
    PLAIN,
    ROOF,
    ROOM,
    SKY,
    TUBE,
    Camera,
    Light,
    Material,
    Solid,
    World,
    cast,
)

WHITE = Material(PLAIN, (0.8, 0.8, 0.8), (0.8, 0.8, 0.8), 1.0, 0.0)
ALL_KINDS = KINDS + FAMILIES["foreign"]
LEVEL_CAMERA = Camera((0.0, 2.0, 0.0), 0.0, 0.0, 0.0, 0.8)
NOON = Light((0, 1, 0), None, (1, 1, 1), (0.3, 0.3, 0.3), (0.5, 0.6, 0.9), (0.2, 0.3, 0.9), 0.0, 0.0)
GROUND_ONLY = Solid(GROUND, (0, 0, 0), (1, 1, 1), WHITE)


def test_the_same_seed_gives_the_same_bytes_whatever_came_before() -> None:
    first = render_scene(7, 42, 56)
    render_scene(8, 42, 56)
    again = render_scene(7, 42, 56)
    assert first.rgb_HW3.tobytes() == again.rgb_HW3.tobytes()
    assert first.disparity_HW.tobytes() == again.disparity_HW.tobytes()
    with ThreadPoolExecutor(4) as pool:
        for seed, scene in zip(range(12), pool.map(lambda s: render_scene(s, 42, 56), range(12)), strict=True):
            alone = render_scene(seed, 42, 56)
            assert scene.rgb_HW3.tobytes() == alone.rgb_HW3.tobytes()
            assert scene.disparity_HW.tobytes() == alone.disparity_HW.tobytes()


def test_every_seed_is_another_scene() -> None:
    scenes = [render_scene(seed, 28, 28) for seed in (0, 1, 2, 1 << 32, (1 << 64) - 1)]
    assert len({s.disparity_HW.tobytes() for s in scenes}) == len(scenes)
    assert len({s.rgb_HW3.tobytes() for s in scenes}) == len(scenes)


def test_many_at_once_are_byte_for_byte_the_single_ones() -> None:
    rgb_NHW3, disparity_NHW = render_scenes([5, 3, 5, 90], 42, 70)
    assert rgb_NHW3.shape == (4, 42, 70, 3) and disparity_NHW.shape == (4, 42, 70)
    for row, seed in enumerate((5, 3, 5, 90)):
        scene = render_scene(seed, 42, 70)
        assert rgb_NHW3[row].tobytes() == scene.rgb_HW3.tobytes()
        assert disparity_NHW[row].tobytes() == scene.disparity_HW.tobytes()


def test_a_scene_says_what_it_is() -> None:
    scene = render_scene(11, 30, 52)
    assert scene.rgb_HW3.shape == (30, 52, 3) and scene.rgb_HW3.dtype == np.uint8 and scene.rgb_HW3.flags.c_contiguous
    assert scene.disparity_HW.shape == (30, 52) and scene.disparity_HW.dtype == np.float32
    assert scene.seed == 11 and scene.kind == build(11).kind
    assert scene.focal_px == pytest.approx(26 / build(11).camera.spread)
    with pytest.raises(dataclasses.FrozenInstanceError):
        scene.kind = "room"  # type: ignore[misc]


def test_depth_is_the_inverse_of_disparity_and_infinite_in_the_sky() -> None:
    scene = render_scene(3, 42, 56, kind="park")
    sky_HW = scene.disparity_HW == 0
    assert 0 < sky_HW.mean() < 1
    assert np.isinf(scene.depth_HW[sky_HW]).all()
    assert scene.depth_HW[~sky_HW] == pytest.approx(1 / scene.disparity_HW[~sky_HW])


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_fixed_kind_is_drawn(kind: str) -> None:
    scenes = [render_scene(seed, 28, 42, kind) for seed in range(6)]
    assert {s.kind for s in scenes} == {kind}
    sky = [float((s.disparity_HW == 0).mean()) for s in scenes]
    assert (max(sky) > 0) == (kind in ("street", "park", "ruins", "canyon"))
    assert all(s.rgb_HW3.std() > 4 for s in scenes)


def test_all_kinds_come_up_in_their_shares() -> None:
    drawn = [build(seed).kind for seed in range(400)]
    shares = {kind: drawn.count(kind) / 400 for kind in KINDS}
    assert shares == pytest.approx({"room": 0.32, "table": 0.16, "street": 0.28, "park": 0.24}, abs=0.07)


def test_a_family_draws_its_own_kinds_in_equal_shares_and_leaves_the_other_as_it_was() -> None:
    assert FAMILIES["home"] == KINDS and FAMILIES["foreign"] == ("warehouse", "ruins", "canyon")
    drawn = [build(seed, family="foreign").kind for seed in range(300)]
    assert {kind: drawn.count(kind) / 300 for kind in set(drawn)} == pytest.approx(
        dict.fromkeys(FAMILIES["foreign"], 1 / 3), abs=0.08
    )
    scene = render_scene(6, 28, 42, family="foreign")
    assert scene.kind == drawn[6]
    assert scene.rgb_HW3.tobytes() == render_scene(6, 28, 42, drawn[6]).rgb_HW3.tobytes()
    assert render_scene(6, 28, 42, "table", family="foreign").kind == "table"
    # What the teacher was trained on, and every published number, is of these scenes.
    assert [build(seed).kind for seed in range(8)] == [
        "table",
        "park",
        "table",
        "street",
        "room",
        "room",
        "room",
        "street",
    ]
    means = [float(render_scene(seed, 42, 56).disparity_HW.mean()) for seed in range(4)]
    assert means == pytest.approx([0.968198, 0.224281, 1.02744, 0.1951], rel=1e-4)


def test_wild_scenes_are_of_every_kind_and_functions_of_their_seed() -> None:
    """The embedded teacher was trained on these: their bytes must stay."""
    assert FAMILIES["wild"] == ("crowded_room", "desk", "close_by", "thicket", "busy_street", "chaos")
    scenes = [render_scene(seed, 24, 32, family="wild") for seed in range(24)]
    assert {build(seed, family="wild").kind for seed in range(60)} == set(FAMILIES["wild"])
    assert all(np.isfinite(scene.disparity_HW).all() and (scene.disparity_HW >= 0).all() for scene in scenes)
    assert len({scene.rgb_HW3.tobytes() for scene in scenes}) == 24
    assert render_scene(23, 24, 32, family="wild").rgb_HW3.tobytes() == scenes[23].rgb_HW3.tobytes()
    means = [float(scene.disparity_HW.mean()) for scene in scenes[:4]]
    assert means == pytest.approx([1.85886, 0.022524, 1.96081, 0.427985], rel=1e-4)
    assert 0.2 <= min(noises := [build(seed, family="wild").sensor_noise for seed in range(24)]) < 0.5
    assert 1.1 < max(noises) <= 1.5


def test_nothing_of_a_wild_scene_stands_in_the_camera() -> None:
    for seed in range(12):
        world = build(seed, family="wild")
        for solid in world.solids:
            if solid.shape not in (GROUND, ROOM):
                room = 0.12 + 0.1 * min(solid.half)
                inner = solid.inner(world.camera.position)
                assert any(abs(i) >= h + room for i, h in zip(inner, solid.half, strict=True))


@pytest.mark.parametrize("seed", range(24))
def test_a_foreign_camera_stands_free(seed: int) -> None:
    world = build(seed, family="foreign")
    point = (np.array([[o]]) for o in world.camera.position)
    x, y, z = point
    assert not any(_inside(solid, x, y, z, margin=0.02).any() for solid in world.solids)
    depth_HW, _, _ = cast(world, 42, 56)
    assert np.median(depth_HW) > 0.25 and depth_HW.min() > 0.1


def test_foreign_photographs_are_noisier() -> None:
    world = build(4, "ruins")
    assert world.sensor_noise > 1.5
    found = cast(world, 84, 112)
    noisy, calm = (
        paint(dataclasses.replace(world, sensor_noise=n), *found, 4).astype(float) for n in (world.sensor_noise, 1.0)
    )
    assert np.abs(np.diff(noisy, axis=1)).mean() > 1.2 * np.abs(np.diff(calm, axis=1)).mean()
    assert build(4).sensor_noise == 1.0


def test_another_size_shows_the_same_world() -> None:
    for seed in range(8):
        small, large = render_scene(seed, 42, 56), render_scene(seed, 84, 112)
        pooled_HW = np.median(large.disparity_HW.reshape(42, 2, 56, 2).transpose(0, 2, 1, 3).reshape(42, 56, 4), axis=2)
        differs_HW = np.abs(pooled_HW - small.disparity_HW) > 0.05 * np.maximum(pooled_HW, small.disparity_HW)
        assert differs_HW.mean() < 0.12
        assert np.abs(small.rgb_HW3.mean() - large.rgb_HW3.mean()) < 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 28, 28), "seed"),
        ((1 << 64, 28, 28), "seed"),
        ((0, 7, 28), "7x28"),
        ((0, 28, 28, "moon"), "'moon'.*room, table, street, park, warehouse, ruins, canyon, crowded_room"),
    ],
)
def test_what_cannot_be_rendered_is_refused(arguments: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_scene(*arguments)


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(ValueError, match=r"family.*'mars'.*home, foreign, wild"):
        render_scene(0, 28, 28, family="mars")


def test_the_ground_has_the_z_depth_of_the_pinhole_formula() -> None:
    height, width = 60, 80
    depth_HW, index_HW, _ = cast(World("park", (GROUND_ONLY,), LEVEL_CAMERA, NOON), height, width)
    focal = LEVEL_CAMERA.focal_px(height, width)
    assert focal == 50.0
    below_H = np.arange(30, 60)
    assert depth_HW[30:] == pytest.approx(
        np.broadcast_to((2.0 * focal / (below_H + 0.5 - 30))[:, None], (30, 80)), rel=1e-6
    )
    assert np.isinf(depth_HW[:30]).all() and (index_HW[:30] == SKY).all()


Doubles = NDArray[np.float64]


def _inside(solid: Solid, x: Doubles, y: Doubles, z: Doubles, margin: float) -> NDArray[np.bool_]:
    """Whether points lie in the solid grown by `margin` (metres, about); written from the definitions, in float64."""
    if solid.shape == GROUND:
        return y < margin
    ax, ay, az = x - solid.centre[0], y - solid.centre[1], z - solid.centre[2]
    cos, sin = math.cos(solid.yaw), math.sin(solid.yaw)
    grow = [1 + margin / h for h in solid.half]
    u, v, w = (cos * ax - sin * az) / solid.half[0], ay / solid.half[1], (sin * ax + cos * az) / solid.half[2]
    if solid.shape == ROOM:
        room: NDArray[np.bool_] = ~((np.abs(u) < 2 - grow[0]) & (np.abs(v) < 2 - grow[1]) & (np.abs(w) < 2 - grow[2]))
        return room
    boxed = (np.abs(u) < grow[0]) & (np.abs(v) < grow[1]) & (np.abs(w) < grow[2])
    if solid.shape == BOX:
        return boxed
    if solid.shape == BALL:
        ball: NDArray[np.bool_] = (u / grow[0]) ** 2 + (v / grow[1]) ** 2 + (w / grow[2]) ** 2 < 1
        return ball
    if solid.shape == TUBE:
        radius = 1 - solid.taper * (v + 1) / 2 + (grow[0] - 1)
        tube: NDArray[np.bool_] = boxed & (radius > 0) & (u**2 + w**2 < radius**2)
        return tube
    assert solid.shape == ROOF
    roof: NDArray[np.bool_] = boxed & (np.abs(u) + v / 2 < 0.5 + (grow[0] - 1))
    return roof


@pytest.mark.parametrize(("seed", "kind"), [(seed, kind) for kind in ALL_KINDS for seed in range(4)])
def test_rays_run_free_to_their_hit_and_enter_the_solid_there(seed: int, kind: str) -> None:
    world = build(seed, kind)
    depth_HW, index_HW, rays = cast(world, 36, 48)
    x, y, z = (r.astype(np.float64) for r in rays)
    ox, oy, oz = world.camera.position
    reach_HW = np.where(np.isinf(depth_HW), 500.0, depth_HW.astype(np.float64))
    slack_HW = 1e-4 + 2e-4 * reach_HW
    blocked_HW = np.zeros(depth_HW.shape, bool)
    for share in (*np.linspace(0.03, 0.95, 24), 1.0):
        t_HW = reach_HW * share - (slack_HW if share == 1.0 else 0)
        t_HW = np.maximum(t_HW, 0.06)
        for solid in world.solids:
            blocked_HW |= _inside(solid, ox + t_HW * x, oy + t_HW * y, oz + t_HW * z, margin=-2e-3) & (reach_HW > 0.1)
    assert blocked_HW.mean() < 0.002
    entered_HW = np.ones(depth_HW.shape, bool)
    t_HW = reach_HW + slack_HW
    for index, solid in enumerate(world.solids):
        near_HW = _inside(solid, ox + t_HW * x, oy + t_HW * y, oz + t_HW * z, margin=2e-3)
        entered_HW &= (index_HW != index) | near_HW
    assert entered_HW.mean() > 0.998


@pytest.mark.parametrize("shape", [BOX, BALL, TUBE, ROOF])
def test_each_solid_stands_where_it_was_put(shape: int) -> None:
    solid = Solid(shape, (0.0, 2.0, 10.0), (1.0, 1.0, 1.0), WHITE)
    depth_HW, index_HW, _ = cast(World("park", (solid,), LEVEL_CAMERA, NOON), 61, 61)
    assert depth_HW[30, 30] == pytest.approx(9.0, abs=0.02)
    # A flat face shows its front edge, a round body its outline.
    half_width = 61 / 2 / 0.8 / (9.0 if shape in (BOX, ROOF) else math.sqrt(99))
    columns = np.flatnonzero((index_HW == 0).any(axis=0))
    assert columns.min() == pytest.approx(30 - half_width, abs=1.1) and columns.max() == pytest.approx(
        30 + half_width, abs=1.1
    )


def test_a_cone_has_its_tip_up_and_a_cylinder_its_top_disc() -> None:
    above = Camera((0.0, 6.0, 0.0), 0.0, -0.4, 0.0, 0.5)
    cone = Solid(TUBE, (0, 2, 10), (1, 2, 1), WHITE, taper=1.0)
    _, index_HW, _ = cast(World("park", (cone,), LEVEL_CAMERA, NOON), 61, 61)
    rows = np.flatnonzero((index_HW == 0).any(axis=1))
    wide = (index_HW == 0).sum(axis=1)
    assert wide[rows[0]] < wide[rows[len(rows) // 2]] < wide[rows[-2]]
    depth_HW, index_HW, rays = cast(World("park", (Solid(TUBE, (0, 2, 10), (1, 2, 1), WHITE),), above, NOON), 61, 61)
    height_HW = 6.0 + depth_HW * rays[1]
    on_top = np.abs(height_HW[index_HW == 0] - 4.0) < 1e-3
    assert 0.05 < on_top.mean() < 0.6


def test_the_camera_turns_and_tilts() -> None:
    ball = Solid(BALL, (3.0, 2.0, 3.0), (0.5, 0.5, 0.5), WHITE)

    def centre(camera: Camera) -> tuple[float, float]:
        _, index_HW, _ = cast(World("park", (ball,), camera, NOON), 81, 81)
        rows, columns = np.nonzero(index_HW == 0)
        return float(rows.mean()), float(columns.mean())

    assert centre(dataclasses.replace(LEVEL_CAMERA, yaw=math.pi / 4)) == pytest.approx((40, 40), abs=0.5)
    row, column = centre(dataclasses.replace(LEVEL_CAMERA, yaw=math.pi / 4 - 0.2))
    assert column > 45 and row == pytest.approx(40, abs=0.5)
    row, _ = centre(dataclasses.replace(LEVEL_CAMERA, yaw=math.pi / 4, pitch=-0.2))
    assert row < 35
    row, _ = centre(dataclasses.replace(LEVEL_CAMERA, yaw=math.pi / 4 - 0.2, roll=0.5))
    assert abs(row - 40) > 2


def test_patterns_are_fixed_to_the_world() -> None:
    checker = Material(CHECKER, (0.9, 0.9, 0.9), (0.05, 0.05, 0.05), 1.0, 0.0)
    world = World(
        "park", (Solid(GROUND, (0, 0, 0), (1, 1, 1), checker),), dataclasses.replace(LEVEL_CAMERA, pitch=-0.9), NOON
    )
    depth_HW, index_HW, rays = cast(world, 96, 96)
    rgb_HW3 = paint(world, depth_HW, index_HW, rays, 1)
    x_HW, z_HW = depth_HW * rays[0], depth_HW * rays[2]
    inner_HW = (np.abs(x_HW % 1 - 0.5) < 0.35) & (np.abs(z_HW % 1 - 0.5) < 0.35) & (depth_HW < 4)
    odd_HW = (np.floor(x_HW) + np.floor(z_HW)) % 2 == 1
    assert inner_HW.sum() > 500
    assert rgb_HW3[inner_HW & ~odd_HW].mean() > rgb_HW3[inner_HW & odd_HW].mean() + 60


def test_solids_throw_shadows_and_shade_and_haze_hides_what_is_far() -> None:
    ball = Solid(BALL, (0.0, 1.2, 6.0), (0.5, 0.5, 0.5), WHITE)
    camera = dataclasses.replace(LEVEL_CAMERA, position=(0.0, 4.0, 0.0), pitch=-0.5)

    def photograph(
        *solids: Solid, light: Light = NOON
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32], Doubles]:
        world = World("park", solids, camera, light)
        depth_HW, index_HW, rays = cast(world, 96, 96)
        x, z = depth_HW * rays[0], depth_HW * rays[2]
        return paint(world, depth_HW, index_HW, rays, 1), depth_HW, index_HW, np.hypot(x, z - 6.0)

    rgb_HW3, _, index_HW, apart_HW = photograph(GROUND_ONLY, ball)
    under_HW, open_HW = (index_HW == 0) & (apart_HW < 0.4), (index_HW == 0) & (apart_HW > 1.5) & (apart_HW < 3)
    assert under_HW.sum() >= 10
    assert rgb_HW3[under_HW].mean() < rgb_HW3[open_HW].mean() - 15
    evening = dataclasses.replace(NOON, toward=(1, 0.01, 0), colour=(0, 0, 0))  # no sun: what is left is contact shade
    rgb_HW3, _, index_HW, apart_HW = photograph(
        GROUND_ONLY, dataclasses.replace(ball, centre=(0, 0.4, 6)), light=evening
    )
    near_HW, open_HW = (index_HW == 0) & (apart_HW < 0.6), (index_HW == 0) & (apart_HW > 1.5) & (apart_HW < 3)
    assert rgb_HW3[near_HW].mean() < rgb_HW3[open_HW].mean() - 10
    hazy = dataclasses.replace(NOON, haze_per_m=0.2, sky_low=(0.1, 0.2, 1.0))
    rgb_HW3, depth_HW, index_HW, _ = photograph(GROUND_ONLY, light=hazy)
    blueness_HW = rgb_HW3[..., 2].astype(float) / (rgb_HW3.mean(axis=2) + 1)
    far_HW, near_HW = (index_HW == 0) & (depth_HW > 20), (index_HW == 0) & (depth_HW < 5)
    assert blueness_HW[far_HW].mean() > blueness_HW[near_HW].mean() + 0.3


def test_sensor_noise_changes_the_photograph_and_not_the_depth() -> None:
    world = build(4)
    depth_HW, index_HW, rays = cast(world, 42, 56)
    before = depth_HW.tobytes()
    one, same, other = (paint(world, depth_HW, index_HW, rays, seed) for seed in (1, 1, 2))
    assert one.tobytes() == same.tobytes() != other.tobytes()
    assert paint(world, depth_HW, index_HW, rays, 4).tobytes() == render_scene(4, 42, 56).rgb_HW3.tobytes()
    assert depth_HW.tobytes() == before
