"""Pictures, plots and pages that a person looks at."""
