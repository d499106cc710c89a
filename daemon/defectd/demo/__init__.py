"""The demo's model: trained on simulated boards, small enough to travel with the package."""
