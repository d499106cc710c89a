"""The technician's tools: from a laptop, over the broker, a model goes to stations, wave by wave, and is followed."""
