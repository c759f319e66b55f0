"""The store in PostgreSQL: the extra ``postgres``."""
