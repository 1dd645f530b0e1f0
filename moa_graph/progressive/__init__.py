"""Progressive modes: models read answers while these are written."""
