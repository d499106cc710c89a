"""Pictures of units that were not passed: written by a worker of low priority, never on the inspection path."""
