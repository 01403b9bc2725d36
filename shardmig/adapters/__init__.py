"""One adapter per system, with a read side, a write side, or both."""
