"""Ask one model one question, and read its answer."""
