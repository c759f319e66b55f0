"""Services as other tools want to have them: texts out of wishes and facts of the site. Pure; equals give equals."""

from leptonai.export.site import Files, Site

__all__ = ["Files", "Site"]
