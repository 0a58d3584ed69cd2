"""The points at which `filtering` takes polynomials, beside 0 and infinity."""

NEAR, FAR = 2 / 3, 3 / 2
"""On either side of 0; their product is 1."""
