"""The bounds of a spec are the door's: text and API are held to the same table."""

from leptonai.admit.bounds import BOUNDS as BOUNDS
from leptonai.admit.bounds import FieldError as FieldError
from leptonai.admit.bounds import validate as validate
