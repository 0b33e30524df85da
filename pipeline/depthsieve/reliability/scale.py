"""Which expected error each reliability code stands for, by the version of the label spec. Numbers only: no torch, no
numpy, as the store's own documents state it.

Between two knots each step of the code is the same factor. The first version has two: 10,000 to 1, in steps of 3.7%,
of which labels used a fifth. The second puts most codes where the least reliable pixels of images lie, in which masks
cut: steps of 1.1% from 0.06 to 0.3, of 2% and 2.4% from there to 0.6 and to 0.02, and wider ones beyond.
"""

import functools
from dataclasses import dataclass

CODE_VERSION = 2
"""Of new stores."""

NATIVE_VERSION = "network-native-"
"""How versions of error networks begin that look at the teacher's own confidence too."""


@dataclass(frozen=True)
class CodeScale:
    """The error of each code by its ``knots``, (code, error) each, from code 1 to code 255."""

    knots: tuple[tuple[int, float], ...]

    def error(self, code: float) -> float:
        """The expected error that a code from 1 to 255 stands for; also between two codes, where one becomes the
        other."""
        pairs = zip(self.knots, self.knots[1:], strict=False)
        first, last = next((one, other) for one, other in pairs if code <= other[0])
        share = (code - first[0]) / (last[0] - first[0])
        return float(first[1] * (first[1] / last[1]) ** -share)

    @functools.cached_property
    def formula(self) -> str:
        """How to compute it, with ``numpy``'s functions."""
        (low, most), (high, least) = self.knots[0], self.knots[-1]
        if len(self.knots) == 2 and most == 1:
            return f"{1 / least:.0f} ** (-(code - {low}) / {high - low})"
        codes, errors = [code for code, _ in self.knots], [error for _, error in self.knots]
        return f"exp(interp(code, {codes}, log({errors})))"


SCALES = {
    1: CodeScale(((1, 1.0), (255, 1e-4))),
    2: CodeScale(((1, 1.0), (6, 0.6), (41, 0.3), (194, 0.06), (240, 0.02), (251, 0.005), (255, 0.001))),
}
"""By the version of the label spec."""
