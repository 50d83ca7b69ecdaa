"""Every option of segpipe: type, unit, meaning and rule; the values live in `conf/*.yaml`."""
