"""Milliseconds a client update, side by side: one job in every simulator, measured round by round in turn."""
