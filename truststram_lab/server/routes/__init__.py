"""The doors: each checks its input, calls one service, and shows what came back."""
