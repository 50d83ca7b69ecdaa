"""Every option of segpipe: its type, unit, meaning and rule. Values live in `conf/*.yaml`, never here."""
