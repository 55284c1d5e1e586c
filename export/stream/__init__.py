"""A clip network as a step of a few new frames."""
