"""Models by kind; each module needs the extra ``torch``."""
