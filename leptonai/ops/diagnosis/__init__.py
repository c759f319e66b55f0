"""Rules and fault trees: what may have happened, told as text by operators, weighed against what was seen."""
