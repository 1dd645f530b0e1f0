"""Clients of the server's APIs, driven by scripts of their own."""
