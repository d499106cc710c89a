"""What the machine itself does: heat, clocks, power, memory; whether it throttles, and what that costs."""
