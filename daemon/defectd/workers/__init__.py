"""Child processes: the frame ring they share, the records they exchange, and who kills them when they hang."""
