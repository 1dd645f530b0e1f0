"""What `ChatMoA`, `MoAMiddleware` and `consult_tool` do in an agent."""
