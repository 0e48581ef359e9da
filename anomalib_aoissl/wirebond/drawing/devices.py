# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""The device types of the demonstration set: packages, materials and bonding of wire-bonded semiconductors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

GENERATOR_VERSION = 1  # raise it whenever the same arguments give another picture
CLASS_NAMES: tuple[str, ...] = ("background", "wire", "ball", "wedge", "epoxy")

PACKAGES: tuple[str, ...] = ("lead_frame", "laminate", "ceramic")
ARRANGEMENTS: tuple[str, ...] = ("single", "center_pads", "stack", "pair", "grid", "power", "module", "card", "mems")
DIE_TEXTURES: tuple[str, ...] = ("logic", "memory", "analog", "sensor", "led", "power", "mems")
EPOXIES: tuple[str, ...] = ("fillet", "glob")


@dataclass(frozen=True)
class DeviceType:
    """A type of wire-bonded device.

    All lengths are in reference pixels: pixels of an image whose shorter side is 512 px.

    Attributes:
        name: Name of the type; part of the seed, so that two types never share their random numbers.
        package: One of ``PACKAGES``: metal lead frame, laminate substrate or ceramic.
        arrangement: One of ``ARRANGEMENTS``: how dies, pads and leads are laid out.
        die_texture: One of ``DIE_TEXTURES``: the circuit seen on the die.
        sides: Sides of the die with bonds, any of the letters N, E, S, W.
        die_size: Width and height of the die.
        pads_per_side: Number of bond pads in a row.
        lead_tiers: Number of rows of leads on a side; wires to the outer row loop higher.
        lead_gap: Distance from the edge of the die to the tips of the inner leads.
        lead_pitch: Distance between two neighbouring leads of a side, at their tips.
        wire_width: Diameter of the wire, 2 to 6.
        wire_material: Metal of the wire: gold, copper, silver or aluminium.
        ball_diameter: Diameter of the ball bonds; 0 for wedge-wedge bonding, which has no balls.
        wedge_length: Length of the wedge (stitch) bonds.
        loop_height: Height of the wire loop over the lead.
        bow: Largest sideways bow of a wire as a share of its length.
        crossing: Share of neighbouring wires that swap their leads and cross.
        base_material: What lies behind everything: tape, green, black, white, alumina, gold.
        lead_material: Surface of the leads or bond fingers.
        paddle_material: Surface under the die; empty for a die that sits on the base itself.
        epoxy: One of ``EPOXIES``: die attach fillet alone, or with a translucent glob over part of the wires.
        epoxy_material: Material of the fillet: silver_epoxy, clear_epoxy, black_epoxy or white_epoxy.
        epoxy_width: Mean width of the fillet around the die.
        glob_material: Material of the glob.
        glob: Glob centre x, y and radii x, y.
    """

    name: str
    package: str
    arrangement: str
    die_texture: str
    sides: str = "NESW"
    die_size: tuple[float, float] = (220.0, 220.0)
    pads_per_side: int = 12
    lead_tiers: int = 1
    lead_gap: float = 60.0
    lead_pitch: float = 28.0
    wire_width: float = 3.0
    wire_material: str = "gold"
    ball_diameter: float = 10.0
    wedge_length: float = 9.0
    loop_height: float = 26.0
    bow: float = 0.03
    crossing: float = 0.0
    base_material: str = "tape"
    lead_material: str = "silver"
    paddle_material: str = ""
    epoxy: str = "fillet"
    epoxy_material: str = "silver_epoxy"
    epoxy_width: float = 10.0
    glob_material: str = "clear_epoxy"
    glob: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        """Check the values that have a fixed choice or range."""
        for field, allowed in (
            ("package", PACKAGES),
            ("arrangement", ARRANGEMENTS),
            ("die_texture", DIE_TEXTURES),
            ("epoxy", EPOXIES),
        ):
            if getattr(self, field) not in allowed:
                msg = f"{field} of device type {self.name!r} is {getattr(self, field)!r}; choose one of {allowed}."
                raise ValueError(msg)
        if not 2.0 <= self.wire_width <= 6.0:
            msg = f"wire_width of device type {self.name!r} is {self.wire_width}; choose 2 to 6 reference pixels."
            raise ValueError(msg)


_TYPES = (
    DeviceType(
        "qfn48_copper", "lead_frame", "single", "logic", die_size=(206, 206), pads_per_side=12, lead_gap=64,
        lead_pitch=26, wire_width=2.8, wire_material="copper", ball_diameter=10, lead_material="silver",
        paddle_material="copper", epoxy_width=11,
    ),
    DeviceType(
        "qfp100_gold", "lead_frame", "single", "memory", die_size=(216, 204), pads_per_side=18, lead_gap=64,
        lead_pitch=16, wire_width=2.2, ball_diameter=7.5, wedge_length=8, loop_height=34, bow=0.045, crossing=0.04,
        lead_material="silver", paddle_material="silver", epoxy_width=8,
    ),
    DeviceType(
        "soic8_gold", "lead_frame", "single", "analog", sides="NS", die_size=(214, 150), pads_per_side=4, lead_gap=72,
        lead_pitch=92, wire_width=3.8, ball_diameter=15, wedge_length=13, loop_height=34, bow=0.05,
        lead_material="nipdau", paddle_material="nipdau", epoxy_material="clear_epoxy", epoxy_width=14,
    ),
    DeviceType(
        "bga_gold_two_tier", "laminate", "single", "logic", die_size=(214, 226), pads_per_side=18, lead_tiers=2,
        lead_gap=46, lead_pitch=16.5, wire_width=2.3, ball_diameter=7.5, wedge_length=8, loop_height=40, bow=0.05,
        crossing=0.08, base_material="green", lead_material="gold", epoxy_width=8,
    ),
    DeviceType(
        "dram_center_pads_gold", "laminate", "center_pads", "memory", sides="EW", die_size=(250, 400), pads_per_side=18,
        lead_gap=34, lead_pitch=19, wire_width=2.4, ball_diameter=8, wedge_length=8, loop_height=30, bow=0.03,
        base_material="black", lead_material="gold", epoxy_material="black_epoxy", epoxy_width=8,
    ),
    DeviceType(
        "stacked_die_silver", "laminate", "stack", "memory", sides="W", die_size=(270, 330), pads_per_side=15,
        lead_gap=34, lead_pitch=21, wire_width=2.6, wire_material="silver", ball_diameter=8.5, wedge_length=7.5,
        loop_height=16, bow=0.03, base_material="green", lead_material="gold", epoxy_material="clear_epoxy",
        epoxy_width=9,
    ),
    DeviceType(
        "power_to220_aluminium", "lead_frame", "power", "power", sides="S", die_size=(270, 190), pads_per_side=3,
        lead_gap=104, lead_pitch=128, wire_width=6.0, wire_material="aluminium", ball_diameter=0, wedge_length=24,
        loop_height=54, bow=0.03, lead_material="nipdau", paddle_material="copper", epoxy_material="silver_epoxy",
        epoxy_width=17,
    ),
    DeviceType(
        "power_module_aluminium", "ceramic", "module", "power", sides="E", die_size=(130, 140), pads_per_side=6,
        lead_gap=82, lead_pitch=19, wire_width=5.2, wire_material="aluminium", ball_diameter=0, wedge_length=17,
        loop_height=40, bow=0.02, base_material="alumina", lead_material="copper", paddle_material="copper",
        epoxy="glob", epoxy_material="silver_epoxy", epoxy_width=9, glob=(20, 190, 300, 90),
    ),
    DeviceType(
        "sensor_ceramic", "ceramic", "single", "sensor", sides="NS", die_size=(300, 240), pads_per_side=13,
        lead_gap=42, lead_pitch=25, wire_width=2.7, ball_diameter=9, wedge_length=9, loop_height=22, bow=0.025,
        base_material="alumina", lead_material="gold", epoxy="glob", epoxy_material="black_epoxy", epoxy_width=9,
        glob_material="black_epoxy", glob=(-40, 178, 150, 44),
    ),
    DeviceType(
        "led_array", "ceramic", "grid", "led", sides="E", die_size=(74, 74), pads_per_side=1, lead_gap=26,
        lead_pitch=40, wire_width=3.2, ball_diameter=12, wedge_length=10, loop_height=22, bow=0.08,
        base_material="white", lead_material="gold", paddle_material="silver", epoxy="glob",
        epoxy_material="clear_epoxy", epoxy_width=7, glob_material="white_epoxy", glob=(90, 90, 150, 140),
    ),
    DeviceType(
        "mems_microphone", "laminate", "mems", "mems", sides="NE", die_size=(190, 190), pads_per_side=6, lead_gap=34,
        lead_pitch=24, wire_width=3.0, ball_diameter=10, wedge_length=10, loop_height=24, bow=0.05,
        base_material="black", lead_material="gold", epoxy="glob", epoxy_material="clear_epoxy", epoxy_width=10,
        glob_material="black_epoxy", glob=(140, -40, 66, 80),
    ),
    DeviceType(
        "multi_die_copper", "lead_frame", "pair", "analog", sides="NESW", die_size=(124, 190), pads_per_side=7,
        lead_gap=58, lead_pitch=30, wire_width=3.2, wire_material="copper", ball_diameter=11, wedge_length=10,
        loop_height=28, bow=0.045, crossing=0.1, lead_material="copper", paddle_material="silver", epoxy_width=11,
    ),
    DeviceType(
        "rf_module_gold", "ceramic", "pair", "analog", sides="NESW", die_size=(112, 132), pads_per_side=4, lead_gap=36,
        lead_pitch=34, wire_width=3.4, ball_diameter=12, wedge_length=11, loop_height=18, bow=0.07,
        base_material="alumina", lead_material="gold", paddle_material="gold", epoxy_width=12,
    ),
    DeviceType(
        "chip_on_board_glob", "laminate", "single", "logic", die_size=(164, 150), pads_per_side=8, lead_gap=72,
        lead_pitch=34, wire_width=3.3, wire_material="aluminium", ball_diameter=0, wedge_length=12, loop_height=30,
        bow=0.04, crossing=0.05, base_material="green", lead_material="nipdau", epoxy="glob",
        epoxy_material="silver_epoxy", epoxy_width=10, glob_material="black_epoxy", glob=(-70, 60, 150, 130),
    ),
    DeviceType(
        "smart_card_gold", "laminate", "card", "logic", sides="EW", die_size=(170, 190), pads_per_side=4, lead_gap=70,
        lead_pitch=94, wire_width=3.0, ball_diameter=11, wedge_length=11, loop_height=30, bow=0.06,
        base_material="black", lead_material="gold", epoxy_material="silver_epoxy", epoxy_width=12,
    ),
    DeviceType(
        "sot23_copper", "lead_frame", "power", "analog", sides="N", die_size=(170, 160), pads_per_side=2, lead_gap=92,
        lead_pitch=176, wire_width=5.0, wire_material="copper", ball_diameter=21, wedge_length=18, loop_height=48,
        bow=0.06, lead_material="silver", paddle_material="silver", epoxy_width=12,
    ),
)  # fmt: skip

DEVICES: dict[str, DeviceType] = {device.name: device for device in _TYPES}


def random_device(seed: int) -> DeviceType:
    """Return a further device type, the same one for the same seed.

    A random one of the built-in types gives the arrangement; sizes, pitch, materials, texture and bonding are drawn
    anew, within what the arrangement has room for.

    Args:
        seed: Any non-negative integer.

    Raises:
        ValueError: If ``seed`` is negative.
    """
    if seed < 0:
        msg = f"seed is {seed}; give an integer of 0 or more."
        raise ValueError(msg)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x0DE71CE]))
    parent = _TYPES[int(rng.integers(len(_TYPES)))]
    shrink = float(rng.uniform(0.8, 1.0))
    pads = max(1, round(parent.pads_per_side * float(rng.uniform(0.6, 1.1))))
    pitch = parent.lead_pitch * parent.pads_per_side / pads
    width = float(np.clip(parent.wire_width * rng.uniform(0.85, 1.35), 2.1, min(6.0, max(2.4, 0.22 * pitch))))
    texture = parent.die_texture
    if texture in {"logic", "memory", "analog"}:
        texture = str(rng.choice(["logic", "memory", "analog"]))
    base, lead = _random_materials(parent, rng)
    sides = parent.sides
    if parent.arrangement == "single" and len(sides) == 4:
        sides = str(rng.choice(["NESW", "NESW", "NS", "EW"]))
    side_x, side_y = rng.choice([-1.0, 1.0], 2)
    glob = (side_x * rng.uniform(40, 180), side_y * rng.uniform(40, 180), rng.uniform(50, 150), rng.uniform(50, 150))
    return replace(
        parent,
        name=f"random_{seed}",
        die_texture=texture,
        sides=sides,
        die_size=(parent.die_size[0] * shrink, parent.die_size[1] * float(rng.uniform(0.92, 1.05)) * shrink),
        pads_per_side=pads,
        lead_gap=parent.lead_gap * float(rng.uniform(0.85, 1.15)),
        lead_pitch=pitch,
        wire_width=width,
        wire_material=str(rng.choice(["gold", "copper", "silver"])) if parent.ball_diameter else "aluminium",
        ball_diameter=width * float(rng.uniform(3.0, 4.0)) if parent.ball_diameter else 0.0,
        wedge_length=width * float(rng.uniform(3.0, 4.0)),
        loop_height=parent.loop_height * float(rng.uniform(0.7, 1.3)),
        bow=parent.bow * float(rng.uniform(0.6, 1.8)),
        crossing=float(rng.choice([0.0, 0.05, 0.12])),
        base_material=base,
        lead_material=lead,
        epoxy="glob" if rng.random() < 0.35 else "fillet",
        epoxy_material=str(rng.choice(["silver_epoxy", "clear_epoxy", "black_epoxy"])),
        epoxy_width=float(rng.uniform(7, 15)),
        glob_material=str(rng.choice(["clear_epoxy", "black_epoxy", "white_epoxy"])),
        glob=(float(glob[0]), float(glob[1]), float(glob[2]), float(glob[3])),
    )


def _random_materials(parent: DeviceType, rng: np.random.Generator) -> tuple[str, str]:
    """Return base and lead material that go together on this kind of package."""
    if parent.package == "lead_frame":
        return parent.base_material, str(rng.choice(["silver", "copper", "nipdau"]))
    if parent.package == "laminate":
        return str(rng.choice(["green", "black"])), str(rng.choice(["gold", "nipdau"]))
    return str(rng.choice(["alumina", "white"])), str(rng.choice(["gold", "copper", "silver"]))
