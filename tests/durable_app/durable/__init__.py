"""A Flower app whose sums are exact, and which notes what it sent and what was used."""
