"""One question to one model: how it is asked, and how its answer is read."""
