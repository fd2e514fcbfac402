"""Data as records that move to another home."""
