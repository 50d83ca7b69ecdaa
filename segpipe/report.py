"""Pictures."""
def draw_curves(a,b): pass
def draw_overlay(*a): pass
