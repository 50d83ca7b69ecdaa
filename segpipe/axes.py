"""Names for axes, in plans and where scans are turned."""

from typing import Literal

Axis = Literal[0, 1, 2]
Slices = Literal["plan", "flat", "scan"]
Axes = Literal["ras", "file"]
Direction = tuple[float, float, float]
Frame = tuple[Direction, Direction, Direction]
AXES = ("left-right", "posterior-anterior", "foot-head")  # of RAS+, as people call them
