"""Cameras: each a worker process that announces units and writes their pixels into the frame ring."""
