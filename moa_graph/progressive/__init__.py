"""Models that write while others read."""
