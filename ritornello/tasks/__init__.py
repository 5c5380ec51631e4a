"""Tasks: data only, one file per task. A task knows no model."""
