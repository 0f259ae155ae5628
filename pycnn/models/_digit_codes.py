"""The target codes of LeNet-5's output layer: ten digits drawn on 7x12 cells.

The paper (LeCun et al. 1998, figure 3) uses stylised bitmaps of characters, so that similar
characters have similar codes. The drawings here are our own.
"""

from __future__ import annotations

import numpy as np

__all__ = ["HEIGHT", "WIDTH", "digit_codes"]

HEIGHT, WIDTH = 12, 7

_DRAWINGS = """
..###.. ...#... ..###.. .#####. ....##. #######
.#...#. ..##... .#...#. #.....# ...#.#. #......
#.....# .#.#... #.....# ......# ..#..#. #......
#.....# ...#... ......# ......# ..#..#. #......
#.....# ...#... .....#. .....#. .#...#. #.####.
#.....# ...#... ....#.. ..###.. .#...#. ##....#
#.....# ...#... ...#... .....#. #....#. ......#
#.....# ...#... ..#.... ......# ####### ......#
#.....# ...#... .#..... ......# .....#. ......#
#.....# ...#... #...... ......# .....#. #.....#
.#...#. ...#... #...... #.....# .....#. .#...#.
..###.. .#####. ####### .#####. .....#. ..###..

..####. ####### .#####. ..###..
.#....# ......# #.....# .#...#.
#...... ......# #.....# #.....#
#...... .....#. #.....# #.....#
#...... .....#. .#...#. #.....#
#.###.. ....#.. ..###.. .#...##
##...#. ....#.. .#...#. ..###.#
#.....# ...#... #.....# ......#
#.....# ...#... #.....# ......#
#.....# ..#.... #.....# ......#
.#...#. ..#.... #.....# #....#.
..###.. .#..... .#####. .####..
"""


def digit_codes() -> np.ndarray:
    """Codes of the digits 0 to 9: float32 (10, 84), +1 for ink and -1 for background."""
    rows: list[np.ndarray] = []
    for block in _DRAWINGS.strip().split("\n\n"):
        lines = [line.split() for line in block.splitlines()]
        for digit in range(len(lines[0])):
            cells = "".join(line[digit] for line in lines)
            rows.append(np.array([1.0 if cell == "#" else -1.0 for cell in cells], np.float32))
    return np.stack(rows)
