"""What may hang or crash, each in a process of its own: `python -m defectd.doctor.probes.NAME`, a JSON object in, JSON
lines out."""
