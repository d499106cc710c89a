"""A bundle from where it is published to this disk: resumable, bounded, verified as it comes."""
